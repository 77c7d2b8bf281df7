"""One subject at many prediction times: what is asked, and what an interval may claim."""

import numpy as np
import pytest

from clinode.cohort import Cohort
from clinode.cohort.conditions import Bounds, Measured
from clinode.cohort.definition import TaskDefinition
from clinode.training import evaluate, fit

DEFINITION = TaskDefinition(
    name="high_lactate",
    label=(Measured(variable="Lactate", bounds=Bounds(above=3.0)),),
    window=8.0,
    horizon=8.0,
    every=8.0,
    unmeasured="negative",
    record_ends="negative",
)


@pytest.fixture(scope="module")
def along(tmp_path_factory, make_cohort, small_model, small_config):
    """A run that answers every eight hours; nobody may change it."""
    defined = DEFINITION.define(make_cohort(120, seed=0))
    out = tmp_path_factory.mktemp("runs") / "along"
    call = {"config": small_config, "progress": False}
    return fit(small_model, defined.cohort, task=defined.task, out=out, **call)


@pytest.mark.slow
def test_every_prediction_time_has_an_answer_that_later_rows_do_not_move(along, make_cohort):
    plain = make_cohort(40, seed=5, first_id=7001)
    defined = DEFINITION.define(plain)
    table = along.predict(defined.cohort)
    outcomes = defined.cohort.outcomes
    assert len(table) == len(outcomes) == defined.flow.steps[-1].n_left
    assert table.groupby("subject_id").size().max() > 2
    times = outcomes.groupby("subject_id")["prediction_time"]
    assert (times.diff().dropna() % 8.0 == 0).all()
    later = plain.observations
    later.loc[later["time"] > 16.0, "value"] *= 1.05
    edited = Cohort.from_tables(later, statics=plain.statics).select(defined.cohort.subjects)
    other = along.predict(edited.with_outcomes(outcomes))
    same = table["prediction_time"] <= 16.0
    np.testing.assert_array_equal(other["logit"][same], table["logit"][same])
    assert not np.allclose(other["logit"][~same], table["logit"][~same])


def test_the_same_subjects_asked_four_times_are_not_four_times_the_subjects(
    along, make_cohort, fitted
):
    cohort = make_cohort(150, seed=6, first_id=9001)
    once = cohort.outcomes
    stretched = once.loc[once.index.repeat(4)].reset_index(drop=True)
    # four prediction times within a minute behind the last observation: nothing is learned by them
    stretched["prediction_time"] = 48.0 + np.tile([0.0, 0.005, 0.01, 0.015], len(once))
    four = cohort.with_outcomes(stretched)
    one, many = (evaluate(fitted, c, n_resamples=300) for c in (cohort, four))
    for metric in ("auroc", "brier"):
        a, b = one.to_dict()[metric], many.to_dict()[metric]
        assert b["value"] == pytest.approx(a["value"], abs=2e-3)
        # resampling rows would halve it
        assert b["high"] - b["low"] == pytest.approx(a["high"] - a["low"], rel=0.05)
    assert many.to_dict()["n_subjects"] == 150
    assert many.to_dict()["n_records"] == 600
    sizes = [[row["n"] for row in found.subgroups] for found in (one, many)]
    assert sizes[0] == sizes[1]  # a group of few is not made large by asking often
    events = [[row["n_events"] for row in found.subgroups] for found in (one, many)]
    assert events[0] == events[1]
