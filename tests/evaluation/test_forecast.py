import json
import math
from typing import Any

import numpy as np
import pytest

from clinode.errors import ArgumentError
from clinode.evaluation import Predicted, evaluate_forecast

NAMES = ("HR", "pH", "lactate")


def draw(n, seed, n_subjects=50) -> dict[str, Any]:
    """Standard normal residuals of two of the three variables."""
    generator = np.random.default_rng(seed)
    mean = generator.normal(size=n)
    return {
        "target": mean + generator.normal(size=n),
        "variable": generator.integers(0, 2, n),
        "predicted": Predicted(mean=mean, spread=np.ones(n)),
        "names": NAMES,
        "subjects": generator.integers(0, n_subjects, n),
    }


def test_a_hand_computed_table():
    result = evaluate_forecast(
        np.array([1.0, 2.0, 3.0, 10.0]),
        np.array([0, 0, 0, 1]),
        Predicted(mean=np.array([1.0, 1.0, 1.0, 14.0])),
        {"zero": Predicted(mean=np.zeros(4))},
        names=NAMES,
        subjects=np.arange(4),
        n_resamples=20,
    )
    value = {name: estimate.value for name, estimate in result.metrics.items()}
    assert value == pytest.approx(
        {
            "mse": (0 + 1 + 4 + 16) / 4,
            "mse_by_variable": (5 / 3 + 16) / 2,
            "mae": (0 + 1 + 2 + 4) / 4,
            "mae_by_variable": (1 + 4) / 2,
        }
    )
    assert result.difference["zero"]["mae"].value == pytest.approx((7 - 16) / 4)
    assert result.variables["HR"]["model"]["mse"].value == pytest.approx(5 / 3)
    assert result.variables["HR"]["zero"]["mae"].value == pytest.approx(2)
    assert result.variables["lactate"]["model"]["mse"].verdict == (
        "undefined: it is never observed later"
    )
    assert result.variable_queries == {"HR": 3, "pH": 1, "lactate": 0}


def test_a_true_normal_forecast_covers_nine_tenths_and_has_its_entropy():
    result = evaluate_forecast(**draw(100_000, seed=0), n_resamples=20)
    assert result.metrics["coverage"].value == pytest.approx(0.9, abs=0.004)
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    assert result.metrics["nll"].value == pytest.approx(entropy, abs=0.01)
    assert result.metrics["mse"].value == pytest.approx(1, abs=0.02)
    assert result.metrics["mae"].value == pytest.approx(math.sqrt(2 / math.pi), abs=0.01)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_wrong_spread_costs_likelihood(factor):
    case = draw(20_000, seed=1)
    mean = case["predicted"].mean
    wrong = Predicted(mean=mean, spread=np.full(len(mean), factor))
    result = evaluate_forecast(**case, baselines={"wrong": wrong}, n_resamples=50)
    assert result.difference["wrong"]["nll"].high < 0
    assert result.difference["wrong"]["mse"].value == 0


def test_given_intervals_are_used_instead_of_normal_ones():
    case = draw(1000, seed=2)
    mean = case["predicted"].mean
    case["predicted"] = Predicted(mean=mean, spread=np.ones(1000), low=mean - 1e9, high=mean + 1e9)
    result = evaluate_forecast(**case, n_resamples=5)
    assert result.metrics["coverage"].value == 1


def test_the_mean_over_variables_weighs_a_rare_one_like_a_common_one():
    n = 1000
    target = np.zeros(n)
    variable = (np.arange(n) == 0).astype(int)
    mean = np.where(variable == 1, 3.0, 1.0)
    result = evaluate_forecast(
        target, variable, Predicted(mean=mean), names=NAMES, subjects=np.arange(n), n_resamples=50
    )
    assert result.metrics["mse_by_variable"].value == pytest.approx((1 + 9) / 2)
    assert result.metrics["mse"].value == pytest.approx((999 + 9) / 1000)
    # resamples without the one subject average over the other variable alone
    assert result.metrics["mse_by_variable"].low == pytest.approx(1)
    assert result.variables["pH"]["model"]["mse"].verdict.startswith("no interval: undefined on")


def test_intervals_are_over_subjects_not_over_queries():
    generator = np.random.default_rng(3)
    of_subject = generator.normal(size=40)
    once = np.arange(40)
    often = np.repeat(once, 25)
    spread = []
    for subject in (once, often):
        result = evaluate_forecast(
            of_subject[subject],
            np.zeros(len(subject), dtype=int),
            Predicted(mean=np.zeros(len(subject))),
            names=NAMES,
            subjects=subject,
            n_resamples=200,
        )
        spread.append((result.metrics["mse"].low, result.metrics["mse"].high))
    assert spread[1] == pytest.approx(spread[0])


def test_a_baseline_without_spread_is_compared_where_it_can_be():
    case = draw(200, seed=4)
    point = {"point": Predicted(mean=np.zeros(200))}
    result = evaluate_forecast(**case, baselines=point, n_resamples=20)
    assert set(result.difference["point"]) == {"mse", "mse_by_variable", "mae", "mae_by_variable"}
    assert set(result.metrics) - set(result.baselines["point"]) == {
        "coverage",
        "coverage_by_variable",
        "nll",
        "nll_by_variable",
    }


def test_the_dictionary_is_strict_json_and_the_table_has_every_variable():
    case = draw(300, seed=5)
    result = evaluate_forecast(
        **case, baselines={"zero": Predicted(mean=np.zeros(300))}, n_resamples=20
    )
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert told["n_queries"] == 300
    assert told["variables"]["HR"]["n_queries"] + told["variables"]["pH"]["n_queries"] == 300
    assert told["variables"]["lactate"]["model"]["mse"]["value"] is None
    table = result.to_pandas()
    row = table.query("variable == 'HR' and forecaster == 'zero' and metric == 'mse'")
    assert row["value"].item() == told["variables"]["HR"]["zero"]["mse"]["value"]
    assert set(table["variable"]) == set(NAMES)


def test_without_a_query_everything_is_undefined():
    empty = np.empty(0)
    result = evaluate_forecast(
        empty,
        np.empty(0, dtype=int),
        Predicted(mean=empty),
        names=NAMES,
        subjects=np.empty(0, dtype=int),
        n_resamples=5,
    )
    assert {e.verdict for e in result.metrics.values()} == {"undefined: there is no query"}


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"spread": np.array([1.0, 0.0])}, "every spread must be positive"),
        ({"spread": np.array([1.0, np.nan])}, "every spread must be positive"),
        ({"low": np.zeros(2)}, "an interval needs both ends"),
        ({"mean": np.array([0.0, np.nan])}, "forecasts must be finite"),
    ],
)
def test_forecasts_that_are_none_are_refused(parts, problem):
    with pytest.raises(ArgumentError, match=problem):
        Predicted(**({"mean": np.zeros(2)} | parts))


def test_targets_and_baselines_that_do_not_fit_are_refused():
    case = draw(10, seed=6)
    with pytest.raises(ArgumentError, match="10 targets, but 9 of 'short'"):
        evaluate_forecast(**case, baselines={"short": Predicted(mean=np.zeros(9))})
    with pytest.raises(ArgumentError, match="cannot be named 'model'"):
        evaluate_forecast(**case, baselines={"model": case["predicted"]})
    with pytest.raises(ArgumentError, match=r"must lie in 0\.\.0"):
        evaluate_forecast(**{**case, "names": ("HR",)})
    with pytest.raises(ArgumentError, match="targets must be finite"):
        evaluate_forecast(**{**case, "target": np.full(10, np.nan)})
