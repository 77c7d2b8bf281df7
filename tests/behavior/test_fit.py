import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import norm

from clinode.behavior import (
    DDM,
    LATER,
    LBA,
    Wald,
    WaldRace,
    compare,
    fit,
    predictive_check,
    ramp_signature,
    swivel_or_shift,
)
from clinode.behavior.compare import held_out_log_likelihood
from clinode.behavior.fit import Trials
from clinode.errors import ArgumentError


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)


def test_later_without_early_responses_is_fitted_in_closed_form(generator):
    rt = LATER(5.0, 1.0).sample(800, generator).rt
    found = fit(LATER, rt, fixed={"early_spread": 0.0})
    rate = 1 / rt.numpy()
    assert found.parameters["all", "mean"] == pytest.approx(rate.mean(), abs=1e-5)
    assert found.parameters["all", "spread"] == pytest.approx(rate.std(), abs=1e-5)
    assert found.standard_errors["all", "mean"] == pytest.approx(
        rate.std() / math.sqrt(800), rel=1e-4
    )
    assert found.aic == pytest.approx(4 - 2 * found.log_likelihood)
    assert found.bic == pytest.approx(2 * math.log(800) - 2 * found.log_likelihood)


@pytest.mark.slow
def test_diffusion_parameters_come_back_without_bias_and_within_their_errors(generator):
    draw = np.random.default_rng(0)
    deviations = []
    for _ in range(50):
        true = {
            "drift": draw.uniform(-2, 2),
            "bound": draw.uniform(0.8, 2.2),
            "start": draw.uniform(0.35, 0.65),
            "non_decision": draw.uniform(0.15, 0.4),
        }
        drawn = DDM(**true).sample(1000, generator)
        found = fit(DDM, drawn.rt, drawn.choice)
        deviations.append(
            [
                (found.parameters["all", name] - value) / found.standard_errors["all", name]
                for name, value in true.items()
            ]
        )
    deviations = np.array(deviations)
    assert (np.abs(deviations.mean(axis=0)) < 1).all()  # bias below one standard error
    assert np.mean(np.abs(deviations) < 2) > 0.88


def test_parameters_are_free_or_shared_by_condition(generator):
    easy, hard = DDM(2.0, 1.5, 0.5, 0.3), DDM(0.5, 1.5, 0.5, 0.3)
    parts = [one.sample(600, generator) for one in (easy, hard)]
    rt, choice = (torch.cat([getattr(p, name) for p in parts]) for name in ("rt", "choice"))
    condition = ["easy"] * 600 + ["hard"] * 600
    found = fit(DDM, rt, choice, condition=condition, free=["drift"], fixed={"start": 0.5})
    assert found.n_parameters == 4
    assert found.parameters["easy", "drift"] == pytest.approx(2.0, abs=0.25)
    assert found.parameters["hard", "drift"] == pytest.approx(0.5, abs=0.25)
    assert found.parameters["easy", "bound"] == found.parameters["hard", "bound"]
    shared = fit(DDM, rt, choice, condition=condition, fixed={"start": 0.5})
    assert found.bic < shared.bic
    assert held_out_log_likelihood(found, found) == pytest.approx(found.log_likelihood / 1200)
    assert set(found.to_pandas().columns) == {"condition", "parameter", "value", "standard_error"}


def test_equal_trials_are_taken_once_and_counted(generator):
    drawn = DDM(1.0, 1.5, 0.5, 0.3).sample(2000, generator)
    rt, late = (drawn.rt * 100).round() / 100, drawn.rt > 1.5
    rt[late] = math.inf
    trials = Trials.read(rt, drawn.choice, ["a", "b"] * 1000, deadline=1.5)
    different, counts = trials.counted()
    assert len(different) < 500
    assert float(counts.sum()) == 2000
    rows = zip(different.rt.tolist(), different.choice.tolist(), different.condition.tolist(),
               strict=True)  # fmt: skip
    for row, count in list(zip(rows, counts.tolist(), strict=True))[::37]:
        own = zip(trials.rt.tolist(), trials.choice.tolist(), trials.condition.tolist(),
                  strict=True)  # fmt: skip
        assert sum(one == row for one in own) == count
    seen = ~late
    found = fit(DDM, rt[seen], drawn.choice[seen])
    each = found.of("all").log_prob(rt[seen], drawn.choice[seen])
    assert found.log_likelihood == pytest.approx(float(each.sum()), rel=1e-12)


@pytest.mark.slow
def test_contaminants_and_missed_deadlines_are_fitted(generator):
    true = DDM(1.0, 1.6, 0.5, 0.3)
    drawn = true.sample(1500, generator)
    rt, choice = drawn.rt.clone(), drawn.choice.clone()
    late = rt > 1.2
    assert 30 < int(late.sum()) < 600
    rt[late] = math.inf
    censored = fit(DDM, rt, choice, deadline=1.2)
    assert censored.parameters["all", "bound"] == pytest.approx(1.6, abs=0.12)
    noisy = drawn.rt.clone()
    lapses = torch.rand(1500, generator=generator) < 0.06
    noisy[lapses] = 0.32 + 4 * torch.rand(int(lapses.sum()), generator=generator).double()
    mixed = fit(DDM, noisy, drawn.choice, contaminants=True)
    assert mixed.contaminants == pytest.approx(0.06, abs=0.03)
    assert mixed.parameters["all", "bound"] == pytest.approx(1.6, abs=0.15)
    assert not predictive_check(mixed).is_rejected
    assert predictive_check(fit(DDM, noisy, drawn.choice)).p_value < 0.01


@pytest.mark.slow
def test_the_model_behind_the_trials_is_preferred(generator):
    for true in (DDM(1.2, 1.8, 0.45, 0.25), WaldRace(2.0, 1.0, 1.0, 0.2)):
        drawn = true.sample(2000, generator)
        fits = {m.__name__: fit(m, drawn.rt, drawn.choice) for m in (DDM, LBA, WaldRace)}
        found = compare(fits)
        assert found.preferred == type(true).__name__
        assert found.to_pandas()["model"][0] == type(true).__name__


@pytest.mark.slow
def test_latencies_of_one_response_tell_a_rate_from_a_diffusion_and_from_neither(generator):
    draw = np.random.default_rng(1)
    wrong = {"LATER": 0, "Wald": 0, "neither": 0}
    for _ in range(20):
        mean, b = draw.uniform(3.5, 5.5), draw.uniform(0.8, 1.6)
        slow, fast = LATER(mean - 1.5, 0.3), LATER(mean + 1.5, 0.8)
        parts = (one.sample(1000, generator).rt for one in (slow, fast))
        given = {
            "LATER": LATER(mean, mean / draw.uniform(4.5, 6.5)).sample(2000, generator).rt,
            "Wald": Wald(b / draw.uniform(0.12, 0.3), b, draw.uniform(0.03, 0.1))
            .sample(2000, generator)
            .rt,
            "neither": torch.cat(list(parts)),
        }
        for name, rt in given.items():
            fits = {"LATER": fit(LATER, rt, fixed={"early_spread": 0.0}), "Wald": fit(Wald, rt)}
            wrong[name] += (compare(fits).preferred or "neither") != name
    assert max(wrong.values()) <= 1, wrong  # 95 % of 20


@pytest.mark.slow
def test_a_third_model_can_have_all_rejected(generator):
    # two populations of trials, slow and fast, that no single accumulation gives
    parts = [DDM(3.0, 1.0, 0.5, 0.2).sample(1000, generator)]
    parts.append(DDM(-0.5, 2.5, 0.5, 1.0).sample(1000, generator))
    rt, choice = (torch.cat([getattr(p, name) for p in parts]) for name in ("rt", "choice"))
    found = compare({m.__name__: fit(m, rt, choice) for m in (DDM, WaldRace)})
    assert found.preferred is None
    assert found.verdict == "none of the models could have given these trials"


@pytest.mark.slow
def test_counts_in_bins_are_chi_squared_under_the_truth(generator):
    rejected = 0
    for _ in range(40):
        drawn = DDM(1.0, 1.5, 0.5, 0.3).sample(400, generator)
        rejected += predictive_check(fit(DDM, drawn.rt, drawn.choice)).p_value < 0.05
    assert rejected <= 6  # careful: parameters were fitted to the same trials


@pytest.mark.slow
def test_a_change_of_prior_swivels_and_a_change_of_rate_shifts(generator):
    conditions = ["rare"] * 1500 + ["often"] * 1500
    for spreads, name in (((0.8, 1.2), "swivel"), ((1.0, 1.0), "shift")):
        rt = torch.cat(
            [
                LATER(mean, s).sample(1500, generator).rt
                for mean, s in zip((4.0, 6.0), spreads, strict=True)
            ]
        )
        found = swivel_or_shift(rt, conditions)
        assert found.preferred == name
        assert found.accepted
        table = found.parameters.query("form == @name")
        assert len(table) == 2
        if name == "swivel":
            np.testing.assert_allclose(table["intercept"], 5.0, atol=0.4)


@pytest.mark.slow
def test_reciprocal_latencies_of_carpenter_and_williams_agree_with_an_independent_search(data_dir):
    path = data_dir / "saccade_latency" / "carpenter_williams_1995.csv"
    if not path.is_file():
        pytest.skip("no saccade_latency/carpenter_williams_1995.csv under --data")
    trials = pd.read_csv(path).query("participant == 'b'")
    found = swivel_or_shift(trials["latency_ms"].to_numpy() / 1000, trials["condition"].tolist())
    assert found.preferred == "swivel"
    free = found.parameters.query("form == 'free'").set_index("condition")
    published = {
        "p05": (3.4873, 0.6340), "p10": (3.8440, 0.6955), "p25": (4.4282, 0.8735),
        "p50": (4.8430, 0.9573), "p75": (5.0170, 0.9906), "p90": (5.2981, 1.0831),
        "p95": (5.4389, 1.0912),
    }  # fmt: skip
    for condition, (mean, spread) in published.items():
        own = trials.loc[trials["condition"] == condition, "latency_ms"].to_numpy() / 1000

        def lost(p, r=1 / own):
            mean, spread, early = p[0], math.exp(p[1]), math.exp(p[2])
            main = norm.pdf(r, mean, spread) * norm.cdf(r, 0, early)
            both = main + norm.pdf(r, 0, early) * norm.cdf(r, mean, spread)
            return -np.log(both * r**2).sum()

        start = [np.median(1 / own), math.log(np.std(1 / own)), 1.0]
        options = {"xatol": 1e-7, "fatol": 1e-7, "maxiter": 4000}
        best = minimize(lost, start, method="Nelder-Mead", options=options).x
        told = free.loc[condition]
        ours = [told["mean"], told["spread"], told["early_spread"]]
        np.testing.assert_allclose(ours, [best[0], *np.exp(best[1:])], atol=0.002)
        np.testing.assert_allclose(ours[:2], [mean, spread], atol=0.002)


def ramps(kind, n, draw, times):
    dt = np.diff(times, prepend=0.0)
    noise = 0.05 * draw.normal(size=(n, len(times)))
    if kind == "rate":
        return draw.normal(3, 1, (n, 1)) * times + noise
    steps = draw.normal(0, 1, (n, len(times))) * np.sqrt(dt)
    if kind == "diffusion":
        return np.cumsum(steps, axis=1) + 2 * times + noise
    if kind == "bounded":  # what reached a bound stays there
        path = np.cumsum(draw.normal(0.002, math.sqrt(0.001), (n, 500)), axis=1)
        out = np.abs(path) >= 0.7
        at = np.where(out.any(axis=1), out.argmax(axis=1), 499)
        stopped = np.minimum(np.arange(500), at[:, None])
        return (
            np.take_along_axis(path, stopped, 1)[:, np.round(times / 0.001).astype(int) - 1] + noise
        )
    x, seen = np.zeros(n), []
    for k, h in enumerate(dt):  # attracted back
        x = x * math.exp(-6 * h) + steps[:, k]
        seen.append(x)
    return np.stack(seen, axis=1) + noise


@pytest.mark.slow
def test_ramps_alone_tell_diffusion_from_a_rate_and_from_neither():
    draw, times = np.random.default_rng(0), np.linspace(0.05, 0.5, 10)
    wrong = {"diffusion": 0, "rate": 0, "attracted": 0, "bounded": 0}
    for _ in range(20):
        for kind in wrong:
            found = ramp_signature(ramps(kind, 200, draw, times), times)
            expected = kind if kind in ("diffusion", "rate") else "neither"
            wrong[kind] += found.preferred != expected
    assert max(wrong.values()) <= 1  # 95 % of 20
    many = {kind: ramps(kind, 2000, draw, times) for kind in ("diffusion", "rate")}
    assert ramp_signature(many["diffusion"], times).exponent == pytest.approx(1.0, abs=0.1)
    assert ramp_signature(many["rate"], times).exponent == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    ("rt", "choice", "told"),
    [
        ([0.3, -0.1, 0.4], [1, 0, 1], "1 of 3 reaction times are not positive, the first in row 1"),
        ([0.3, math.nan, 0.4], [1, 0, 1], "1 of 3 reaction times are NaN"),
        ([300.0, 450.0, 500.0], [1, 0, 1], "seem to be in milliseconds"),
        ([0.3, 0.4, 0.5], [1, 1, 1], "all 3 responses are the same"),
        ([0.3, 0.4, 0.5], [1, 2, 1], "1 choices are neither 0 nor 1, the first in row 1"),
        ([0.3, 0.4, 0.5], [1, 0], "give one each"),
        ([0.3, math.inf, 0.5], [1, 0, 1], "no deadline is told"),
        ([], [], "is empty"),
    ],
)
def test_trials_that_cannot_be_are_refused(rt, choice, told):
    with pytest.raises(ArgumentError, match=told):
        fit(DDM, rt, choice)


def test_calls_without_meaning_are_refused():
    rt, choice = [0.3, 0.4, 0.5, 0.6], [1, 0, 1, 0]
    with pytest.raises(ArgumentError, match="has no parameter 'rate'"):
        fit(DDM, rt, choice, free=["rate"])
    for model in (LATER, Wald):
        with pytest.raises(ArgumentError, match=f"{model.__name__} is about one response"):
            fit(model, rt, choice)
    with pytest.raises(ArgumentError, match="two conditions of ten trials"):
        swivel_or_shift(rt, ["a"] * 4)
    with pytest.raises(ArgumentError, match="nothing to compare"):
        compare({})
    with pytest.raises(ArgumentError, match="do not determine a covariance"):
        ramp_signature(np.zeros((10, 8)), np.arange(1.0, 9.0))
