import numpy as np
import pandas as pd
import pytest

from clinode.attribution import explain
from clinode.cohort import Cohort, Survive
from clinode.errors import ArgumentError
from clinode.sequence import LinearLatentODE
from clinode.training import FitConfig, evaluate, fit, load_run

LANDMARK = 6.0
TASK = Survive("end", "dead", "cause", landmark=LANDMARK)


def make_cohort(n: int, seed: int, first: int = 1) -> tuple[Cohort, np.ndarray]:
    """Heart rates that tell two constant hazards, with independent censoring; and the hazards."""
    generator = np.random.default_rng(seed)
    subjects = np.arange(first, first + n)
    severity = generator.normal(size=n)
    observations = pd.DataFrame(
        {
            "subject_id": np.repeat(subjects, 4),
            "time": np.tile([0.0, 2.0, 4.0, 6.0], n),
            "variable": "HR",
            "value": np.repeat(80 + 10 * severity, 4) + generator.normal(size=4 * n),
        }
    )
    hazard = np.stack([0.03 * np.exp(0.8 * severity), 0.02 * np.exp(-0.5 * severity)], axis=1)
    total = hazard.sum(axis=1)
    time = LANDMARK + generator.exponential(1 / total)
    kind = 1.0 + (generator.random(n) < hazard[:, 1] / total)
    lost = LANDMARK + generator.exponential(60, size=n)
    outcomes = pd.DataFrame(
        {
            "subject_id": subjects,
            "end": np.minimum(time, lost),
            "dead": (time <= lost).astype(float),
            "cause": np.where(time <= lost, kind, np.nan),
        }
    )
    return Cohort.from_tables(observations, outcomes=outcomes), hazard


def true_incidence(hazard: np.ndarray, hours: float) -> np.ndarray:
    total = hazard.sum(axis=1, keepdims=True)
    return hazard / total * -np.expm1(-total * hours)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    train, _ = make_cohort(400, seed=0)
    folder = tmp_path_factory.mktemp("survival") / "run"
    config = FitConfig(epochs=20)
    fit(
        LinearLatentODE(latent=6, hidden=12),
        train,
        None,
        task=TASK,
        out=folder,
        config=config,
        progress=False,
    )
    return load_run(folder)


def test_known_hazards_are_found_again(fitted):
    test, hazard = make_cohort(500, seed=1, first=10_001)
    table = fitted.predict(test)
    for hour in fitted.schema.intervals.horizons:
        truth = true_incidence(hazard, hour)
        for cause in (1, 2):
            found = table[f"incidence_{cause}_{hour:g}h"].to_numpy()
            # an incidence of .3 from 400 subjects has a standard error of .02
            assert np.sqrt(np.mean((found - truth[:, cause - 1]) ** 2)) < 0.06
            assert abs((found - truth[:, cause - 1]).mean()) < 0.05
            assert np.corrcoef(found, truth[:, cause - 1])[0, 1] > 0.95


def test_a_prediction_has_survival_and_incidences_that_sum_to_one(fitted):
    test, _ = make_cohort(20, seed=2, first=20_001)
    table = fitted.predict(test, hours_after=[1.0, 10.0])
    assert list(table.columns) == [
        "subject_id",
        "prediction_time",
        "survival_1h",
        "incidence_1_1h",
        "incidence_2_1h",
        "survival_10h",
        "incidence_1_10h",
        "incidence_2_10h",
        "probability",
    ]
    parts = table[["survival_10h", "incidence_1_10h", "incidence_2_10h"]]
    np.testing.assert_allclose(parts.sum(axis=1), 1.0)
    bare = test.with_outcomes(test.outcomes.assign(end=np.nan, dead=np.nan, cause=np.nan))
    pd.testing.assert_frame_equal(fitted.predict(bare), fitted.predict(test))
    with pytest.raises(ArgumentError, match="horizons must be hours"):
        fitted.predict(test, hours_after=[1e6])


def test_a_run_is_measured_beside_its_baselines(fitted):
    test, _ = make_cohort(300, seed=3, first=30_001)
    found = evaluate(fitted, test, n_resamples=50).to_dict()
    horizon = fitted.schema.intervals.horizon
    assert found["horizon"] == horizon
    assert set(found["baselines"]) == {"aalen_johansen", "pooled_logistic"}
    assert found["auc"]["low"] > 0.6
    assert found["difference"]["aalen_johansen"]["integrated_brier"]["high"] < 0
    assert found["baselines"]["aalen_johansen"]["auc"]["value"] == 0.5
    assert found["causes"]["2"]["auc"]["value"] > 0.6
    assert found["n_records"] == 300


def test_the_odds_of_the_first_cause_at_the_horizon_are_explained(fitted):
    test, _ = make_cohort(6, seed=4, first=40_001)
    attributions = explain(fitted, test)
    probability = fitted.predict(test)["probability"].to_numpy()
    gates = attributions.gates
    np.testing.assert_allclose(
        gates["output"], np.log(probability / (1 - probability)), rtol=1e-3, atol=1e-3
    )
    assert not gates["withheld"].any()
