import json

import numpy as np
import pandas as pd
import pytest

from clinode.attribution import Attributions

GATE = {"prediction_time": 48.0, "base": -1.0, "gap": 0.0, "rows_used": 25, "why": ""}


def attributions(events: list[tuple], withheld: tuple[bool, ...] = (False, False, False)):
    """A small table written by hand; subjects are 1, 2, 3."""
    columns = ["subject_id", "kind", "time", "variable", "value", "attribution"]
    gates = [
        {"subject_id": k + 1, "output": 0.5, "withheld": flag} | GATE
        for k, flag in enumerate(withheld)
    ]
    return Attributions(
        events=pd.DataFrame(events, columns=columns),
        gates=pd.DataFrame(gates),
        method="integrated_gradients",
        baseline="cohort_mean",
        outcome="died",
        tolerance=0.01,
    )


BY_HAND = [
    (1, "observation", 1.0, "HR", 90.0, 0.5),
    (1, "observation", 2.0, "HR", 95.0, -0.2),
    (1, "observation", 2.0, "Lactate", 3.0, 0.4),
    (2, "observation", 1.0, "HR", 80.0, -0.1),
    (2, "static", np.nan, "age", 70.0, 0.05),
]


def test_variables_are_ranked_by_their_sum_in_each_subject_and_by_their_mean_event():
    table = attributions(BY_HAND).by_variable().set_index("variable")
    assert table.index.tolist() == ["HR", "Lactate", "age"]
    # three subjects; heart rate sums to 0.3 in one and -0.1 in another
    assert table["per_subject"].tolist() == pytest.approx([0.4 / 3, 0.4 / 3, 0.05 / 3])
    assert table["per_measurement"].tolist() == pytest.approx([0.8 / 3, 0.4, 0.05])
    assert table["measurements"].tolist() == [3, 1, 1]
    assert table["subjects"].tolist() == [2, 1, 1]


def test_intervals_are_bootstraps_over_subjects_not_events():
    generator = np.random.default_rng(0)
    size = generator.normal(size=400)
    events = [(k + 1, "observation", 1.0, "HR", 90.0, size[k]) for k in range(400)]
    table = attributions(events, withheld=(False,) * 400).by_variable()
    low, high = table.loc[0, ["per_subject_low", "per_subject_high"]]
    standard_error = np.abs(size).std() / 20
    assert low == pytest.approx(np.abs(size).mean() - 1.96 * standard_error, abs=0.01)
    assert high == pytest.approx(np.abs(size).mean() + 1.96 * standard_error, abs=0.01)
    # every event twice: the mean event does not become more certain
    doubled = attributions(events * 2, withheld=(False,) * 400).by_variable()
    columns = ["per_measurement", "per_measurement_low", "per_measurement_high"]
    np.testing.assert_allclose(doubled.loc[0, columns], table.loc[0, columns], rtol=1e-12)


def test_withheld_subjects_are_not_counted_as_subjects_without_attribution():
    table = attributions(BY_HAND, withheld=(False, False, True)).by_variable()
    assert table.set_index("variable").loc["HR", "per_subject"] == pytest.approx(0.4 / 2)


def test_without_any_event_there_is_nothing_to_rank():
    table = attributions([]).by_variable()
    assert len(table) == 0
    assert {"variable", "per_subject", "per_measurement_high"} <= set(table.columns)


def test_the_table_is_a_copy():
    found = attributions(BY_HAND)
    table = found.to_pandas()
    table["attribution"] = 0.0
    assert found.to_pandas()["attribution"].tolist() == [0.5, -0.2, 0.4, -0.1, 0.05]


def test_to_dict_is_json_with_nothing_undefined_in_it():
    data = json.loads(json.dumps(attributions(BY_HAND).to_dict(), allow_nan=False))
    assert data["events"][-1]["time"] is None
    assert data["events"][0]["attribution"] == 0.5
    assert data["gates"][0]["withheld"] is False
    assert data["method"] == "integrated_gradients"
