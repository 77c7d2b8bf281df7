import numpy as np
import pandas as pd
import pytest

from clinode.attribution import explain, explain_along
from clinode.errors import ArgumentError


def test_each_time_is_explained_from_what_lay_before_it(run, cohort):
    some, told = cohort.take(range(2, 6)), []
    found = explain_along(run, some, [10.0, 25.0], progress=lambda *part: told.append(part))
    table = found.to_pandas()
    assert list(table.columns[:3]) == ["subject_id", "prediction_time", "kind"]
    own = table[table["kind"] == "observation"]
    assert (own["time"] <= own["prediction_time"]).all()
    assert own.groupby("prediction_time").size().is_monotonic_increasing
    alone = explain(run, some, at=25.0).to_pandas()
    shown = table[table["prediction_time"] == 25.0].drop(columns="prediction_time")
    pd.testing.assert_frame_equal(shown.reset_index(drop=True), alone)
    total = table.groupby(["prediction_time", "subject_id"])["attribution"].sum()
    gates = found.gates.set_index(["prediction_time", "subject_id"]).loc[total.index]
    change = gates["output"] - gates["base"]
    assert (np.abs(total - change) <= 0.01 * np.maximum(np.abs(change), 0.1)).all()
    assert told == [(1, 2), (2, 2)]
    assert found.to_dict()["at"] == [10.0, 25.0]


@pytest.mark.parametrize("at", [[], [5.0, 5.0], [9.0, 3.0]])
def test_times_that_do_not_ascend_are_refused(run, cohort, at):
    with pytest.raises(ArgumentError, match="each later than the one before"):
        explain_along(run, cohort, at)
