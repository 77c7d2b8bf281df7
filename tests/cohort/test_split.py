import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinode.cohort import Cohort, check_disjoint, read_cohort, split
from clinode.cohort.split import _share, some_subjects
from clinode.errors import ArgumentError, SchemaError


def cohort_of(subjects):
    statics = pd.DataFrame({"subject_id": list(subjects), "age": 50.0})
    empty = pd.DataFrame({"subject_id": [], "time": [], "variable": [], "value": []})
    return Cohort.from_tables(empty, statics)


@pytest.fixture(scope="module")
def thousand():
    return cohort_of(range(1000))


def test_a_share_is_the_first_64_bits_of_blake2b_over_salt_and_id():
    digest = hashlib.blake2b(b"2026|132539", digest_size=8).hexdigest()
    assert _share(132539, "2026") == int(digest, 16) / 2**64
    assert _share("132539", "2026") == _share(np.int64(132539), "2026")
    assert 0 <= _share("x", "") < 1


def test_parts_cover_the_cohort_once_and_stay_in_order(thousand):
    parts = split(thousand)
    together = np.concatenate([part.subjects for part in parts])
    assert sorted(together) == thousand.subjects.tolist()
    for part in parts:
        assert (np.diff(part.subjects) > 0).all()
    check_disjoint(*parts)


def test_shares_are_those_asked_for_within_four_standard_errors():
    shares = np.array([_share(number, "2026") for number in range(200_000)])
    for low, high in ((0.0, 0.7), (0.7, 0.85), (0.85, 1.0)):
        width = high - low
        found = ((low <= shares) & (shares < high)).mean()
        assert abs(found - width) < 4 * np.sqrt(width * (1 - width) / len(shares))


@settings(max_examples=10, deadline=None)
@given(
    first=st.sets(st.integers(-(10**6), 10**6), min_size=1, max_size=30),
    second=st.sets(st.integers(-(10**6), 10**6), min_size=1, max_size=30),
)
def test_added_subjects_move_no_other(first, second):
    before = split(cohort_of(first))
    after = split(cohort_of(first | second))
    for small, large in zip(before, after, strict=True):
        assert set(small.subjects.tolist()) == set(large.subjects.tolist()) & first


def test_another_salt_gives_another_split(thousand):
    one, other = split(thousand)[0], split(thousand, salt="another")[0]
    assert set(one.subjects) != set(other.subjects)
    assert split(thousand)[0].subjects.tolist() == one.subjects.tolist()


def test_subjects_of_one_group_stay_together():
    table = pd.DataFrame({"subject_id": range(60), "time": 0.0, "variable": "HR", "value": 80.0})
    statics = pd.DataFrame({"subject_id": range(60), "person": np.arange(60) // 6})
    cohort = read_cohort(table, statics=statics, group="person")
    for part in split(cohort, (0.5, 0.5)):
        assert len(part) % 6 == 0
    with pytest.raises(SchemaError, match="groups in two splits: 1"):
        check_disjoint(cohort.take(range(9)), cohort.select([9, 12]))


def test_some_subjects_are_whole_groups_whatever_else_is_there():
    table = pd.DataFrame({"subject_id": range(60), "time": 0.0, "variable": "HR", "value": 80.0})
    statics = pd.DataFrame({"subject_id": range(60), "person": np.arange(60) // 6})
    cohort = read_cohort(table, statics=statics, group="person")
    some = some_subjects(cohort, 20)
    assert len(some) == 18
    assert set(np.bincount(some.groups.astype(int), minlength=10)) == {0, 6}
    fewer = some_subjects(cohort.take(np.flatnonzero(np.isin(cohort.groups, some.groups))), 12)
    assert set(fewer.subjects) < set(some.subjects)
    assert len(some_subjects(cohort, 1)) == 6
    assert some_subjects(cohort, 60) is cohort


def test_a_subject_in_two_splits_is_refused(thousand):
    with pytest.raises(SchemaError, match=r"subjects in two splits: 3 \(cohorts 1 and 3\)"):
        check_disjoint(thousand.take(range(5)), thousand.take([9]), thousand.take([2, 3, 4, 11]))


@pytest.mark.parametrize("fractions", [(), (0.5, 0.4), (1.2, -0.2), (float("nan"), 1.0)])
def test_fractions_must_add_up_to_one(thousand, fractions):
    with pytest.raises(ArgumentError, match="add up to 1"):
        split(thousand, fractions)


def test_published_splits_are_asked_for_and_must_be_there(thousand):
    with pytest.raises(ArgumentError, match="came without published splits"):
        split(thousand, published=True)
