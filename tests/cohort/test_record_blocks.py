import itertools
from dataclasses import fields

import numpy as np
import pytest
import torch

from clinode.cohort import Classify, Cohort, Forecast, PackedRecords, Preprocessor, Several
from clinode.cohort.record_blocks import pack_in_blocks
from clinode.errors import ArgumentError

ARRAYS = ("subjects", "subject_index", "prediction_time", "lengths")


BOTH = Several((Classify("died"), Forecast(6.0)))


@pytest.mark.parametrize(
    "task", [Classify("died"), Forecast(6.0), BOTH], ids=["classify", "forecast", "both"]
)
@pytest.mark.parametrize("block", [1, 7, 40, 1000])
def test_records_packed_in_blocks_are_those_packed_in_one_piece(treated, task, block):
    schema = Preprocessor.fit(treated, task)
    whole = PackedRecords.build(treated, schema, task)
    found = pack_in_blocks(treated, schema, task, block_subjects=block)
    for name in ARRAYS:
        assert np.array_equal(getattr(found, name), getattr(whole, name))
    for entry in fields(whole._rows):
        one, other = getattr(found._rows, entry.name), getattr(whole._rows, entry.name)
        assert one.dtype == other.dtype
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    indices = np.random.default_rng(0).permutation(len(whole))[:17]
    packed, built = found.batch(indices), whole.batch(indices)
    pairs = [(packed, built), *zip(packed.parts, built.parts, strict=True)]
    assert len(pairs) == 1 + len(task.parts)
    for (one, other), entry in itertools.product(pairs, fields(built)):
        left, right = getattr(one, entry.name), getattr(other, entry.name)
        if isinstance(left, torch.Tensor):
            torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)


def test_the_files_go_with_the_records(treated, tmp_path):
    task = Classify("died")
    records = pack_in_blocks(treated, Preprocessor.fit(treated, task), task, folder=tmp_path)
    assert list(tmp_path.iterdir())
    del records
    assert not list(tmp_path.iterdir())


def test_nothing_is_not_packed(treated):
    task = Classify("died")
    schema = Preprocessor.fit(treated, task)
    with pytest.raises(ArgumentError, match="nothing to pack"):
        pack_in_blocks(treated.take([]), schema, task)
    with pytest.raises(ArgumentError, match="nothing to pack"):
        pack_in_blocks(treated, schema, task, block_subjects=0)
    assert isinstance(treated, Cohort)
