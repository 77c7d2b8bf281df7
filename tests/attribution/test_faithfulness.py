from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from clinode.attribution import Attributions, planted_recovery
from clinode.errors import ArgumentError


@pytest.fixture
def planted() -> pd.DataFrame:
    """Every third lactate is a cause; two orders too; one weight is zero."""
    rows = [(s, "value", float(t), "Lactate", 1.0) for s in range(1, 41) for t in (3, 6)]
    rows += [(1, "ordering", 1.0, "Lactate", 0.3), (2, "value", 1.0, "Lactate", 0.0)]
    return pd.DataFrame(rows, columns=["subject_id", "kind", "time", "variable", "weight"])


def attributions(score) -> Attributions:
    events = [
        (s, "observation", float(t), name, 1.0, score(s, t, name))
        for s in range(1, 41)
        for t in range(1, 8)
        for name in ("Lactate", "HR")
    ]
    events += [(s, "static", np.nan, "age", 60.0, 9.0) for s in range(1, 41)]
    columns = ["subject_id", "kind", "time", "variable", "value", "attribution"]
    gates = pd.DataFrame({"subject_id": range(1, 41), "withheld": False})
    return Attributions(
        events=pd.DataFrame(events, columns=columns),
        gates=gates,
        method="integrated_gradients",
        baseline="cohort_mean",
        outcome="died",
        tolerance=0.01,
    )


def test_the_truth_itself_scores_one_whatever_its_sign(planted):
    found = planted_recovery(
        attributions(lambda s, t, name: -1.0 if name == "Lactate" and t in (3, 6) else 0.1), planted
    )
    assert (found.auprc.value, found.auprc.low) == (1.0, 1.0)
    assert (found.n_events, found.n_planted) == (40 * 14, 80)
    assert found.chance == pytest.approx(80 / 560)


def test_the_score_is_the_average_precision_of_scikit_learn(planted):
    generator = np.random.default_rng(0)
    table = attributions(lambda s, t, name: generator.normal() + (name == "Lactate"))
    found = planted_recovery(table, planted)
    events = table.to_pandas().query("kind == 'observation'")
    truth = (events["variable"] == "Lactate") & events["time"].isin([3.0, 6.0])
    expected = average_precision_score(truth, events["attribution"].abs())
    assert found.auprc.value == pytest.approx(expected)
    assert found.auprc.low < expected < found.auprc.high


def test_other_kinds_of_cause_count_only_when_asked_for(planted):
    table = attributions(lambda s, t, name: 1.0)
    assert planted_recovery(table, planted, kinds=("value", "ordering")).n_planted == 81
    assert planted_recovery(table, planted, kinds=("ordering",)).n_planted == 1


def test_without_a_cause_there_is_no_score_but_words(planted):
    found = planted_recovery(attributions(lambda s, t, name: 1.0), planted, kinds=("timing",))
    assert "undefined" in found.auprc.verdict
    assert found.to_dict()["auprc"]["value"] is None


def test_nothing_attributed_is_refused(planted):
    table = attributions(lambda s, t, name: 1.0)
    table = replace(table, events=table.events.query("kind == 'static'"))
    with pytest.raises(ArgumentError, match="no measured event was attributed"):
        planted_recovery(table, planted)
