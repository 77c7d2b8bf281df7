import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import invgauss, kstest, norm

from clinode.behavior import DDM, LATER, LBA, FirstPassage, Wald, WaldRace, Wiener, first_passage
from clinode.errors import ArgumentError
from clinode.system import LinearSystem

DOUBLE = torch.float64
MODELS = {
    "later": LATER(5.0, 1.0),
    "later with early": LATER(4.8, 0.9, 3.2),
    "lba": LBA(2.4, 1.1, 1.1, 0.6, 0.15),
    "wald race": WaldRace(2.5, 1.4, 1.2, 0.2),
    "wald": Wald(4.0, 1.2, 0.1),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_distribution_functions_are_the_integrals_of_densities(name):
    model = MODELS[name]
    for choice in (1.0, 0.0)[: model.n_responses]:
        for end in (0.25, 0.5, 1.5):
            area = quad(
                lambda t, c=choice: float(model.log_prob(t, c).exp()), 1e-9, end, limit=400
            )[0]
            assert float(model.cdf(end, choice)) == pytest.approx(area, abs=1e-6)


@pytest.mark.parametrize("name", list(MODELS))
def test_samples_follow_the_distribution_function(name):
    model = MODELS[name]
    drawn = model.sample(6000, torch.Generator().manual_seed(4))
    for choice in (1.0, 0.0)[: model.n_responses]:
        own = drawn.rt[(drawn.choice == choice) & (drawn.rt < 50)]
        share = float(model.cdf(50.0, choice))
        assert len(own) / 6000 == pytest.approx(share, abs=0.03)
        test = kstest(own.numpy(), lambda t, c=choice, s=share: model.cdf(t, c).numpy() / s)
        assert test.pvalue > 1e-3


@pytest.mark.parametrize("name", list(MODELS))
def test_what_is_not_yet_decided_is_what_is_left(name):
    model = MODELS[name]
    for t in (0.1, 0.3, 0.8):
        given = sum(model.cdf(t, choice) for choice in (1.0, 0.0)[: model.n_responses])
        left = float(model.log_survival(t).exp())
        assert left == pytest.approx(1 - float(given), abs=1e-6)


def test_later_is_a_line_on_reciprobit_axes():
    model, t = LATER(5.0, 1.2), np.array([0.15, 0.2, 0.3, 0.5])
    probits = norm.ppf(model.cdf(t).numpy())
    np.testing.assert_allclose(probits, (5.0 - 1 / t) / 1.2, atol=1e-9)
    assert float(model.intercept) == pytest.approx(5.0 / 1.2)
    assert float(model.cdf(math.inf)) == pytest.approx(norm.cdf(5 / 1.2), abs=1e-12)


def test_one_bound_is_two_of_which_one_is_far_away_and_scipys_inverse_gaussian():
    v, b, late = 3.0, 1.1, 0.12
    t, found = np.array([0.13, 0.2, 0.4, 0.9]), Wald(v, b, late)
    np.testing.assert_allclose(
        found.log_prob(t), invgauss.logpdf(t - late, 1 / (v * b), scale=b**2), rtol=1e-10
    )
    far = DDM(v, 40.0, 1 - b / 40.0, late)
    np.testing.assert_allclose(found.log_prob(t), far.log_prob(t, 1.0), rtol=1e-9)
    np.testing.assert_allclose(found.cdf(t), far.cdf(t, 1.0), atol=1e-9)
    assert float(found.cdf(math.inf)) == 1.0
    assert float(found.log_prob(0.3, 0.0)) == float(found.log_prob(late)) == -math.inf
    assert float(found.cdf(0.3, 0.0)) == float(found.cdf(0.05)) == 0.0


def test_the_early_unit_wins_when_it_is_faster():
    t = np.array([0.1, 0.2, 0.4])
    model = LATER(4.0, 1.0, 3.0)
    waits = norm.cdf((1 / t - 4.0) / 1.0) * norm.cdf(1 / t / 3.0)
    np.testing.assert_allclose(model.cdf(t), 1 - waits, atol=1e-12)


def test_an_lba_is_the_integral_over_its_starts_and_speeds():
    v, other, b, A, s, t = 2.4, 1.1, 1.1, 0.6, 1.0, 0.5
    starts, weights = np.polynomial.legendre.leggauss(60)
    starts, weights = (starts + 1) * A / 2, weights / 2

    def finish(mean):
        return (weights * norm.pdf(((b - starts) / t - mean) / s) / s * (b - starts) / t**2).sum()

    def waits(mean):
        return (weights * norm.cdf(((b - starts) / t - mean) / s)).sum()

    found = LBA(v, other, b, A, 0.0, s)
    assert float(found.log_prob(t, 1.0).exp()) == pytest.approx(finish(v) * waits(other), abs=1e-9)
    assert float(found.log_prob(t, 0.0).exp()) == pytest.approx(finish(other) * waits(v), abs=1e-9)


@pytest.mark.parametrize("name", list(MODELS))
def test_gradients_are_those_of_finite_differences(name):
    kind = type(MODELS[name])
    start = {
        LATER: (4.8, 0.9, 3.2),
        LBA: (2.4, 1.1, 1.1, 0.6, 0.15),
        WaldRace: (2.5, 1.4, 1.2, 0.2),
        Wald: (4.0, 1.2, 0.1),
    }[kind]
    given = [torch.tensor(x, dtype=DOUBLE, requires_grad=True) for x in start]
    rt = torch.tensor([0.22, 0.4, 0.9], dtype=DOUBLE)
    assert torch.autograd.gradcheck(lambda *p: kind(*p).log_prob(rt, 1.0), given)


def test_first_passages_converge_to_the_closed_form_with_second_order():
    t = torch.linspace(0.1, 2.5, 40, dtype=DOUBLE)
    closed = DDM(1.0, 2.0, 0.5, 0.0)
    errors = []
    for n, m in ((40, 100), (80, 200)):
        found = FirstPassage(Wiener(1.0), 0.0, 2.0, start=1.0, horizon=2.5, n_places=n, n_times=m)
        errors.append(max(float((found.cdf(t, c) - closed.cdf(t, c)).abs().max()) for c in (0, 1)))
    assert errors[1] < 1e-3
    assert math.log2(errors[0] / errors[1]) > 1.7


def test_moving_bounds_are_those_of_a_process_seen_from_them():
    # bounds that both move at speed c are fixed bounds for a drift less c
    moving = FirstPassage(
        Wiener(1.5),
        lambda t: -1.0 + 0.7 * t,
        lambda t: 1.0 + 0.7 * t,
        start=0.0,
        horizon=2.0,
        n_places=80,
        n_times=200,
    )
    t = torch.linspace(0.2, 2.0, 20, dtype=DOUBLE)
    closed = DDM(0.8, 2.0, 0.5, 0.0)
    for choice in (0.0, 1.0):
        torch.testing.assert_close(moving.cdf(t, choice), closed.cdf(t, choice), rtol=0, atol=1e-3)


def test_collapsing_bounds_agree_with_simulated_paths():
    model = FirstPassage(
        Wiener(0.5, leak=1.0),
        lambda t: -0.3 - 0.7 * torch.exp(-t),
        lambda t: 0.3 + 0.7 * torch.exp(-t),
        start=0.1,
        horizon=3.0,
        n_places=80,
        n_times=200,
    )
    draw, dt, n = np.random.default_rng(0), 0.0005, 10_000
    x, done, upper = np.full(n, 0.1), np.full(n, np.inf), np.zeros(n, bool)
    for k in range(int(1.5 / dt)):
        live = np.isinf(done)
        x[live] += (0.5 - x[live]) * dt + draw.normal(0, math.sqrt(dt), live.sum())
        # a path seen in steps crosses a bound .5826 sqrt(dt) further out (Broadie et al. 1997)
        reach = 0.3 + 0.7 * math.exp(-(k + 1) * dt) - 0.5826 * math.sqrt(dt)
        out = live & (np.abs(x) >= reach)
        done[out], upper[out] = (k + 1) * dt, x[out] > 0
    for t in (0.3, 0.7, 1.5):
        for choice in (0, 1):
            share = np.mean((done <= t) & (upper == choice))
            error = math.sqrt(share * (1 - share) / n)
            assert float(model.cdf(t, float(choice))) == pytest.approx(share, abs=4 * error + 2e-3)


def test_first_passages_have_gradients_in_constants_and_are_sampled():
    v = torch.tensor(1.0, dtype=DOUBLE, requires_grad=True)

    def probability(drift):
        system = Wiener(drift)
        return FirstPassage(system, 0.0, 1.0, start=0.5, horizon=2.0, n_places=30, n_times=40).cdf(
            2.0, 1.0
        )

    (slope,) = torch.autograd.grad(probability(v), v)
    apart = [float(probability(torch.tensor(1.0 + h, dtype=DOUBLE))) for h in (-1e-4, 1e-4)]
    assert float(slope) == pytest.approx((apart[1] - apart[0]) / 2e-4, rel=1e-4)
    model = FirstPassage(Wiener(1.0), 0.0, 1.0, start=0.5, horizon=3.0, non_decision=0.2)
    drawn = model.sample(4000, torch.Generator().manual_seed(0))
    share = float(model.cdf(3.2, 1.0))
    assert float(drawn.choice.mean()) == pytest.approx(share, abs=0.03)


def test_the_sweep_of_first_passages_and_its_slopes_are_those_of_whole_matrices():
    draw = torch.Generator().manual_seed(0)
    shapes = ((7,), (9, 6), (9, 7), (9, 6))
    given = [torch.rand(s, generator=draw, dtype=DOUBLE, requires_grad=True) for s in shapes]
    parts = (given[0], -given[1], 2.5 + given[2], -given[3])
    swept, dense = first_passage._Swept.apply(*parts), first_passage.swept_densely(*parts)
    torch.testing.assert_close(swept, dense, rtol=1e-12, atol=1e-12)
    weights = torch.rand(9, 7, generator=draw, dtype=DOUBLE)
    slopes = [torch.autograd.grad((x * weights).sum(), given) for x in (swept, dense)]
    for ours, torchs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-11, atol=1e-11)


def test_first_passages_have_slopes_of_slopes():
    def probability(v):
        return FirstPassage(Wiener(v), 0.0, 1.0, start=0.5, horizon=1.0, n_places=8, n_times=8).cdf(
            0.9, 1.0
        )

    assert torch.autograd.gradgradcheck(
        probability, torch.tensor(0.8, dtype=DOUBLE).requires_grad_()
    )


def test_what_has_no_first_passage_is_refused():
    with pytest.raises(ArgumentError, match="made of torch's operations"):
        FirstPassage(Wiener(), 0.0, lambda t: 1.0 if t < 1 else 0.5, start=0.3, horizon=2.0)
    with pytest.raises(ArgumentError, match="must have one state and noise"):
        FirstPassage(LinearSystem([[-1.0]], [[1.0]]), 0.0, 1.0, start=0.5, horizon=1.0)
    with pytest.raises(ArgumentError, match="cross or meet"):
        FirstPassage(Wiener(), lambda t: t - 1, lambda t: 1 - t, start=0.0, horizon=2.0)
    with pytest.raises(ArgumentError, match="start must lie between"):
        FirstPassage(Wiener(), 0.0, 1.0, start=2.0, horizon=1.0)
    with pytest.raises(ArgumentError, match="beyond the horizon"):
        FirstPassage(Wiener(), 0.0, 1.0, start=0.5, horizon=1.0, n_places=20, n_times=20).cdf(2.0)
    with pytest.raises(ArgumentError, match="above the largest start"):
        LBA(threshold=0.4, start_range=0.5)
