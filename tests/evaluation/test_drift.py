import json

import numpy as np
import pandas as pd
import pytest

from clinode.cohort import Cohort
from clinode.cohort.fingerprint import fingerprint
from clinode.errors import ArgumentError
from clinode.evaluation.drift import compare_fingerprint


def drawn(n, seed, *, shift=0.0, drop=0.0, often=6, positive=0.3, names=("x", "y")):
    """Subjects with a mean of their own, so that values of one are alike."""
    rng = np.random.default_rng(seed)
    rows = []
    for name in names:
        for subject in range(n):
            if rng.random() < drop:
                continue
            count = 1 + rng.poisson(often)
            own = rng.normal(shift, 1.0)
            values = own + rng.normal(0, 1, count)
            times = np.sort(rng.random(count)) * 24
            rows += [(subject, t, name, v) for t, v in zip(times, values, strict=True)]
    observations = pd.DataFrame(rows, columns=["subject_id", "time", "variable", "value"])
    outcomes = pd.DataFrame(
        {"subject_id": np.arange(n), "died": (rng.random(n) < positive).astype(float)}
    )
    return Cohort.from_tables(observations=observations, outcomes=outcomes)


@pytest.fixture(scope="module")
def training():
    return drawn(400, 0).fingerprint()


def told(drift, kind, name):
    table = drift.to_pandas()
    return table[(table["kind"] == kind) & (table["name"] == name)].iloc[0]


def test_the_same_population_stays_within_chance(training):
    verdicts = []
    for seed in range(1, 13):
        verdicts += compare_fingerprint(training, drawn(150, seed)).table["verdict"].tolist()
    moved = sum(v in ("shift", "large shift") for v in verdicts)
    assert moved <= 0.03 * len(verdicts)


def test_the_index_of_values_is_that_of_the_shares_between_the_quantiles(training):
    here = drawn(300, 5, shift=1.0)
    found = told(compare_fingerprint(training, here), "value", "x")
    own = next(e for e in training["variables"] if e["name"] == "x")
    edges = list(own["quantiles"].values())
    value = here.observations.query("variable == 'x'")["value"].to_numpy()
    levels = [0, *map(float, own["quantiles"]), 1]
    index = 0.0
    for k in range(len(levels) - 1):
        low = -np.inf if k == 0 else edges[k - 1]
        high = np.inf if k == len(edges) else edges[k]
        p, q = levels[k + 1] - levels[k], ((value > low) & (value <= high)).mean()
        index += (q - p) * np.log(q / p)
    assert found["measure"] == pytest.approx(index)
    assert found["verdict"] == "large shift"
    assert found["chance"] < 0.1


@pytest.mark.parametrize(
    ("change", "kind"),
    [({"drop": 0.5}, "missing"), ({"often": 20}, "rate"), ({"positive": 0.7}, "outcome")],
)
def test_each_kind_of_shift_is_found_and_no_other(training, change, kind):
    found = compare_fingerprint(training, drawn(400, 9, **change)).to_pandas()
    moved = found[found["verdict"].isin(["shift", "large shift"])]
    assert set(moved["kind"]) == {kind}


def test_variables_that_are_absent_or_unknown_are_named(training):
    found = compare_fingerprint(training, drawn(60, 3, names=("x", "z")))
    table = found.to_pandas()
    assert table.loc[table["kind"] == "absent", "name"].tolist() == ["y"]
    assert table.loc[table["kind"] == "unknown", "name"].tolist() == ["z"]
    assert "1 variables here are unknown to the model" in found.verdict
    json.dumps(found.to_dict(), allow_nan=False)


def test_what_is_no_fingerprint_is_refused(training):
    with pytest.raises(ArgumentError, match="no fingerprint of a cohort"):
        compare_fingerprint({"train": training}, drawn(20, 0))


def test_what_comes_after_the_asked_times_is_neither_described_nor_compared():
    many = drawn(300, 11)
    early = many.observations.query("time <= 10")
    short = Cohort.from_tables(observations=early, outcomes=many.outcomes)
    until = np.full(300, 10.0)
    alone, within = short.fingerprint(), fingerprint(many, until)
    assert {**within, "sha256": ""} == {**alone, "sha256": ""}
    assert within["sha256"] == many.fingerprint()["sha256"]
    after = many.observations.assign(value=lambda t: t["value"] + 50 * (t["time"] > 10))
    moved = Cohort.from_tables(observations=after, outcomes=many.outcomes)
    assert compare_fingerprint(within, moved, until).to_dict()["verdict"].startswith("0 large")
    assert not compare_fingerprint(within, moved).to_dict()["verdict"].startswith("0 large")
