import math

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.optimize
import torch

import clinode as cn
from clinode.alignment import (
    AtRest,
    OverTime,
    Period,
    covariance_twins,
    cuts,
    interventional_alignment,
    lesions,
    similar_twins,
)
from clinode.dynamics import stationary_moments
from clinode.errors import ArgumentError, SolverError


class Rates(cn.System):
    """x' = -x + phi(W x + b)."""

    inputs = (cn.Quantity("drive", "1"),)

    def __init__(self, W, b, phi=torch.tanh):
        super().__init__()
        labels = tuple(str(k) for k in range(len(b)))
        self.states = (cn.Quantity("x", "1", labels, range=(-3.0, 3.0)),)
        self.outputs = self.states
        self.register_buffer("W", W)
        self.register_buffer("b", b)
        self.phi = phi

    def vector_field(self, t, x, u):
        return -x + self.phi(x @ self.W.T + self.b + u)


class Ring(cn.System):
    """A cycle of radius 1 whose speed 1 + z a third state sets, which rests at z = c."""

    time_unit = "s"
    states = (
        cn.Quantity("x", "1", range=(-1.5, 1.5), default=1.0),
        cn.Quantity("y", "1", range=(-1.5, 1.5), default=0.0),
        cn.Quantity("z", "1", range=(-1.0, 3.0), default=1.0),
    )
    inputs = (cn.Quantity("push", "1/s"),)
    constants = (cn.Quantity("c", "1"),)

    def __init__(self, c=1.0):
        super().__init__()
        self.register_constants(c=c)

    def vector_field(self, t, x, u):
        a, b, z = self.split(x).values()
        pull = 1 - a**2 - b**2
        return self.join(x=pull * a - (1 + z) * b, y=pull * b + (1 + z) * a, z=self.c - z + u)


def random_linear(n, seed, *, gain=0.7):
    draw = np.random.default_rng(seed)
    W = gain * draw.standard_normal((n, n)) / math.sqrt(n)
    np.fill_diagonal(W, 0.0)
    A = W - np.eye(n)
    A -= max(0.0, np.linalg.eigvals(A).real.max() + 0.3) * np.eye(n)
    b = draw.uniform(0.5, 1.5, n)
    return A, b, cn.LinearSystem(A, b[:, None])


@pytest.mark.parametrize("n", [5, 17, 60])
def test_effects_on_a_linear_network_are_the_closed_forms(n):
    A, b, system = random_linear(n, n)
    inverse = np.linalg.inv(A)
    x = -inverse @ b
    sites = [0, n // 2, n - 1]
    i, j = 1, 3
    every = [
        *[cn.silence(f"x{k + 1}") for k in sites],
        cn.cut(f"x{j + 1}", f"x{i + 1}"),
        cn.inject("x2", 0.7),
        [cn.silence("x1"), cn.silence("x4")],
    ]
    made = interventional_alignment(system, system, every, AtRest(u=1.0), n_resamples=10)
    w = A[i, j]
    expected = [-inverse[:, k] / inverse[k, k] * x[k] for k in sites]
    expected.append(inverse[:, i] * w * x[j] / (1 - w * inverse[j, i]))
    expected.append(-inverse[:, 1] * 0.7)
    kept = [k for k in range(n) if k not in (0, 3)]
    both = np.zeros(n)
    both[kept] = -np.linalg.solve(A[np.ix_(kept, kept)], b[kept])
    expected.append(both - x)
    alive = [k for k, why in enumerate(made.lost.get(word, "") for word in made.experiments)
             if not why]  # fmt: skip
    assert len(alive) >= 4
    np.testing.assert_allclose(made.actual[alive], np.array(expected)[alive], atol=1e-9)
    np.testing.assert_allclose(made.predicted[alive], np.array(expected)[alive], atol=1e-9)


@pytest.mark.parametrize(("phi", "seed"), [(torch.tanh, 0), (torch.relu, 1)])
def test_effects_on_a_network_of_rates_are_those_of_scipy(phi, seed):
    n, draw = 5, np.random.default_rng(seed)
    W = 0.8 * draw.standard_normal((n, n)) / math.sqrt(n)
    W *= min(1.0, 0.9 / np.linalg.norm(W, 2))  # a contraction, so that rests are unique
    b = draw.uniform(-0.5, 1.0, n)
    system = Rates(torch.tensor(W), torch.tensor(b), phi)
    found = interventional_alignment(
        system, system, lesions(system, n_sites=2), AtRest(start=np.zeros(n)), n_resamples=10
    )
    act = np.tanh if phi is torch.tanh else lambda x: np.maximum(x, 0.0)

    def rest(held):
        free = np.array([k not in held for k in range(n)])

        def rate(x):
            return np.where(free, -x + act(W @ np.where(free, x, 0.0) + b), -x)

        return scipy.optimize.fixed_point(
            lambda x: x + rate(x), np.zeros(n), xtol=1e-12, method="iteration"
        )

    intact = rest(())
    expected = [rest((k,)) - intact for k in range(n)]
    expected += [rest((k, m)) - intact for k in range(n) for m in range(k + 1, n)]
    assert not found.lost
    np.testing.assert_allclose(found.actual, expected, atol=1e-8)


def test_effects_over_time_are_those_of_the_matrix_exponential():
    A, b, system = random_linear(5, 3)
    x = -np.linalg.solve(A, b)
    times = [0.0, 0.5, 2.0]
    made = interventional_alignment(
        system, system, [cn.silence("x2")], OverTime(times=times, u=1.0), n_resamples=10
    )
    kept = [0, 2, 3, 4]
    inner = A[np.ix_(kept, kept)]
    end = -np.linalg.solve(inner, b[kept])
    for row, t in zip(made.actual[0].reshape(2, 5), times[1:], strict=True):
        moved = end + scipy.linalg.expm(inner * t) @ (x[kept] - end)
        np.testing.assert_allclose(row[kept], moved - x[kept], atol=1e-7)
    assert made.set_by_hand.reshape(2, 5)[:, 1].all()
    assert made.set_by_hand.sum() == 2


@pytest.mark.slow
def test_effects_on_a_period_are_the_closed_form_and_a_lost_cycle_is_named():
    system, model = Ring(c=1.0), Ring(c=0.5)
    every = [cn.silence("z"), cn.clamp("z", 3.0), cn.inject("push", 2.0), cn.silence("x")]
    made = interventional_alignment(model, system, every, Period(), n_resamples=10)
    expected = 2 * math.pi * (1 / np.array([1.0, 4.0, 4.0]) - 1 / 2.0)
    np.testing.assert_allclose(made.actual[:3, 0], expected, atol=1e-6)
    expected = 2 * math.pi * (1 / np.array([1.0, 4.0, 3.5]) - 1 / 1.5)
    np.testing.assert_allclose(made.predicted[:3, 0], expected, atol=1e-6)
    assert list(made.lost) == ["silence x"]
    assert "system: no cycle" in made.lost["silence x"]
    assert made.fate.value == 1.0
    assert "1 of 4 experiments are not scored" in made.verdict
    assert made.readings[0].unit == "s"


@pytest.mark.parametrize("readout", [AtRest(u=1.0), OverTime(times=[0.0, 1.0], u=1.0)])
@pytest.mark.parametrize("seed", [4])
def test_a_system_is_perfectly_aligned_with_itself(readout, seed):
    _, _, system = random_linear(6, seed)
    every = [*lesions(system)[:3], *cuts(system)[:2], cn.inject("x1", 0.3)]
    made = interventional_alignment(system, system, every, readout, n_resamples=50)
    for found, value in ((made.r, 1.0), (made.error, 0.0), (made.sign_agreement, 1.0)):
        assert found.value == pytest.approx(value, abs=1e-9)
        assert found.low == pytest.approx(value, abs=1e-9)
        assert found.high == pytest.approx(value, abs=1e-9)
        assert found.verdict == "ok"
    assert made.ceiling.value == 1.0
    assert made.identified is None


def test_a_twin_of_equal_covariance_fits_all_and_predicts_other_lesions():
    _, _, system = random_linear(5, 7)
    diffusion = np.full(5, 0.1)
    model, *twins = covariance_twins(system, diffusion, 40, u=1.0)
    rests = [cn.find_equilibria(one, 1.0)[0] for one in (model, system)]
    own, other = (
        stationary_moments(one, rest, diffusion)
        for one, rest in zip((model, system), rests, strict=True)
    )
    np.testing.assert_allclose(own.covariance, other.covariance, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(own.mean, other.mean, rtol=1e-9, atol=1e-12)
    made = interventional_alignment(
        model, system, lesions(system, n_sites=2), AtRest(u=1.0), twins=twins, seen=own
    )
    assert made.r.value < 0.9
    assert made.error.value > 0.3
    assert made.identified is False
    assert "what was observed does not decide the answer" in made.verdict
    assert made.p_value > 0.05
    assert made.seen_r.is_defined
    assert made.ambiguity.low > 0.1
    # The system is no better off: by itself it is right, and yet the data could not have told.
    by_luck = interventional_alignment(
        system, system, lesions(system), AtRest(u=1.0), twins=twins, n_resamples=10
    )
    assert by_luck.r.value == pytest.approx(1.0)
    assert by_luck.identified is False


def test_twins_that_are_the_model_itself_leave_nothing_open():
    _, _, system = random_linear(4, 2)
    made = interventional_alignment(
        system, system, lesions(system), AtRest(u=1.0), twins=[system] * 25, n_resamples=10
    )
    assert made.identified is True
    assert made.ambiguity.value == pytest.approx(0.0, abs=1e-12)
    assert made.p_value == 1.0


def test_twins_that_run_away_where_the_model_rests_decide_nothing():
    model = cn.LinearSystem([[-1.0, -2.0], [2.0, -2.0]], [[1.0], [0.0]], states=["E", "I"])
    twin = cn.LinearSystem([[1.0, -2.0], [2.0, -2.0]], [[1.0], [0.0]], states=["E", "I"])
    for twins in ([twin], [twin, twin]):
        made = interventional_alignment(
            model, model, [cn.silence("I")], AtRest(u=1.0), twins=twins, n_resamples=10
        )
        assert made.identified is False
        assert "fit it as well leave 100% of its experiments without an end" in made.verdict


def test_stacked_twins_are_those_asked_one_by_one():
    _, _, system = random_linear(4, 6)
    twins = covariance_twins(system, np.ones(4), 3, u=1.0)
    every = [*lesions(system, n_sites=2), cn.cut("x1", "x2"), cn.inject("u1", 0.5)]
    together = interventional_alignment(
        system, system, every, AtRest(u=1.0), twins=twins, n_resamples=10
    )
    for i, twin in enumerate(twins):
        alone = interventional_alignment(
            twin, system, every, AtRest(u=1.0), n_resamples=10
        ).predicted
        np.testing.assert_allclose(together.twins[i], alone, atol=1e-10)


def test_a_change_of_coordinates_answers_inputs_alike_and_lesions_otherwise():
    _, _, system = random_linear(4, 9)
    (twin,) = similar_twins(system, 1)
    inputs = [cn.inject("u1", amount) for amount in (-1.0, 0.5, 2.0)]
    alike = interventional_alignment(twin, system, inputs, AtRest(u=1.0), n_resamples=10)
    np.testing.assert_allclose(alike.predicted, alike.actual, atol=1e-9)
    other = interventional_alignment(twin, system, lesions(system), AtRest(u=1.0), n_resamples=10)
    assert other.error.value > 0.1


def test_an_experiment_that_ends_in_no_rest_is_counted_and_named():
    runaway = cn.LinearSystem(
        [[1.0, -2.0], [2.0, -2.0]], [[1.0], [0.0]], states=["E", "I"], inputs=["drive"]
    )
    calm = cn.LinearSystem(
        [[-1.0, -2.0], [2.0, -2.0]], [[1.0], [0.0]], states=["E", "I"], inputs=["drive"]
    )
    every = [cn.silence("I"), cn.inject("drive", 0.5), cn.inject("I", 0.2)]
    made = interventional_alignment(calm, runaway, every, AtRest(u=1.0), n_resamples=10)
    assert made.lost == {"silence I": "system: its rest is unstable, so that it runs away"}
    assert made.fate.value == pytest.approx(2 / 3)
    assert np.isnan(made.actual[0]).all()
    assert "1 leave the system without what is read, 0 the model" in made.verdict
    table = made.to_pandas()
    assert (table.status == made.lost["silence I"]).sum() == 2


def test_where_every_experiment_is_lost_nothing_is_scored():
    A = [[1.0, -2.0], [2.0, -2.0]]
    system = cn.LinearSystem(A, [[1.0], [0.0]], states=["E", "I"])
    made = interventional_alignment(
        system, system, [cn.silence("I")], AtRest(u=1.0), noise=0.1, n_resamples=10
    )
    assert not made.r.is_defined
    assert not made.ceiling.is_defined
    assert made.fate.value == 1.0
    assert "1 of 1 experiments are not scored" in made.verdict


def test_units_that_differ_are_scored_in_sizes_of_their_effects():
    made = []
    for factor in (1.0, 1000.0):
        rows = [[-1.0, 0.2, 0.1], [0.3, -1.0, 0.4], [-0.2, 0.1, -1.0]]
        outputs = [cn.Quantity("V", "mV"), cn.Quantity("r", "Hz"), cn.Quantity("w", "pA")]
        C = np.diag([1.0, factor, 1.0])
        system, model = (
            cn.LinearSystem(np.array(rows) - d * np.eye(3), np.ones((3, 1)), C, outputs=outputs)
            for d in (0.0, 0.5)
        )
        every = lesions(system, n_sites=2)
        made.append(interventional_alignment(model, system, every, AtRest(u=1.0), n_resamples=10))
    assert made[0].error.value == pytest.approx(made[1].error.value, rel=1e-9)
    assert made[0].r.value == pytest.approx(made[1].r.value, rel=1e-9)


def test_a_model_with_other_names_is_told_what_stands_for_what():
    A, b, system = random_linear(3, 1)
    model = cn.LinearSystem(A, b[:, None], states=["a", "b", "c"], inputs=["i"])
    every = [cn.silence(f"x{k}") for k in (1, 2, 3)]
    own = [cn.silence(name) for name in "abc"]
    outputs = {"x1": "a", "x2": "b", "x3": "c"}
    made = interventional_alignment(
        model, system, every, AtRest(u=1.0), outputs=outputs, model_interventions=own,
        n_resamples=10,
    )  # fmt: skip
    assert made.error.value == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(
        ArgumentError, match=r"the model: 'silence x1' cannot be done.*model_interv"
    ):
        interventional_alignment(model, system, every, AtRest(u=1.0), outputs=outputs)
    with pytest.raises(ArgumentError, match="the model: it has no output 'x1'"):
        interventional_alignment(model, system, every, AtRest(u=1.0), model_interventions=own)


def test_bad_calls_are_refused_in_words():
    A, _, system = random_linear(3, 1)
    every, at = lesions(system), AtRest(u=1.0)
    with pytest.raises(ArgumentError, match="there are no interventions"):
        interventional_alignment(system, system, [], at)
    many = cn.LinearSystem(np.stack([A, A]), np.ones((3, 1)))
    for readout in (at, OverTime(times=[0.0, 1.0], start=np.zeros(3), u=1.0)):
        with pytest.raises(ArgumentError, match="has batch axes"):
            interventional_alignment(many, system, every, readout)
    with pytest.raises(ArgumentError, match="an experiment has no intervention"):
        interventional_alignment(system, system, [()], at)
    with pytest.raises(ArgumentError, match="the system: 'silence y9'"):
        interventional_alignment(system, system, [cn.silence("y9")], at)
    small = cn.LinearSystem(A[:2, :2], np.ones((2, 1)))
    with pytest.raises(ArgumentError, match="the model: 'silence x3' cannot be done"):
        interventional_alignment(small, system, every, at)
    with pytest.raises(ArgumentError, match="the model: it has no output 'x3'"):
        interventional_alignment(small, system, every[:2], at)
    with pytest.raises(ArgumentError, match="noise must be finite and not negative"):
        interventional_alignment(system, system, every, at, noise=-1.0)
    with pytest.raises(ArgumentError, match="noise of 'x7', which is not read"):
        interventional_alignment(system, system, every, at, noise={"x7": 1.0})
    with pytest.raises(ArgumentError, match="repeated twice at least"):
        interventional_alignment(system, system, every, at, noise=1.0, repeats=1)
    with pytest.raises(ArgumentError, match="2 model_interventions for 3"):
        interventional_alignment(system, system, every, at, model_interventions=every[:2])
    with pytest.raises(ArgumentError, match="an output is named twice"):
        interventional_alignment(system, system, every, at, outputs=["x1", "x1"])
    volts = cn.LinearSystem(A, np.ones((3, 1)), states=[cn.Quantity(f"x{k}", "mV") for k in "123"])
    with pytest.raises(ArgumentError, match="in 1 in the system and in mV in the model"):
        interventional_alignment(volts, system, every, at)
    with pytest.raises(SolverError, match="the system: there is nothing to read before"):
        interventional_alignment(system, cn.LinearSystem(np.eye(3), np.ones((3, 1))), every, at)
    learned = cn.LinearSystem(A, np.ones((3, 1)), np.eye(3), latent=True,
                              outputs=["x1", "x2", "x3"], states=["x1", "x2", "x3"])  # fmt: skip
    with pytest.raises(ArgumentError, match=r"'x1' is a state of a learned model"):
        interventional_alignment(learned, system, every, at, outputs=["x1"])
    with pytest.raises(ArgumentError, match="is a map"):
        interventional_alignment(
            cn.LinearSystem(0.5 * np.eye(3), np.ones((3, 1)), step=1.0), system, every, at
        )


@pytest.mark.slow  # slow tests run without checks of types, as a user does
def test_calls_of_the_wrong_type_are_refused_in_words():
    _, _, system = random_linear(3, 1)
    every, at = lesions(system), AtRest(u=1.0)
    with pytest.raises(ArgumentError, match="interventions must be a list, got Clamp"):
        interventional_alignment(system, system, cn.silence("x1"), at)
    with pytest.raises(ArgumentError, match="twins must be a list, got LinearSystem"):
        interventional_alignment(system, system, every, at, twins=system)
    with pytest.raises(ArgumentError, match="int is no experiment"):
        interventional_alignment(system, system, [3], at)
    with pytest.raises(ArgumentError, match="str is no intervention"):
        interventional_alignment(system, system, ["x1"], at)


def test_with_noise_a_perfect_model_reaches_the_ceiling_and_no_more():
    _, _, system = random_linear(10, 12)
    every = lesions(system, n_sites=2)
    exact = interventional_alignment(system, system, every, AtRest(u=1.0), n_resamples=10)
    scored = np.where(exact.set_by_hand, np.nan, exact.actual)
    spread = float(np.nanvar(scored))
    noise, repeats = 1.0 * math.sqrt(spread), 5
    made = interventional_alignment(
        system, system, every, AtRest(u=1.0), noise=noise, repeats=repeats, n_resamples=200,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    # Each repeat measures the intact and the changed system: their noise adds.
    expected = math.sqrt(spread / (spread + 2 * noise**2 / repeats))
    assert made.ceiling.value == pytest.approx(expected, abs=0.05)
    assert made.r.value == pytest.approx(made.ceiling.value, abs=0.05)
    assert made.share_of_ceiling.value == pytest.approx(1.0, abs=0.05)
    assert made.standard_error[:, 0].mean() == pytest.approx(
        noise * math.sqrt(2 / repeats), rel=0.3
    )
    assert set(made.by_sites) == {1, 2}


def test_the_same_call_gives_the_same_numbers_and_plain_json():
    import json

    _, _, system = random_linear(4, 8)
    call = {"noise": 0.1, "repeats": 3, "n_resamples": 20}
    first, second = (
        interventional_alignment(system, system, lesions(system), AtRest(u=1.0), **call).to_dict()
        for _ in range(2)
    )
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)


@pytest.mark.slow
def test_a_sparse_prior_foretells_lesions_that_free_weights_of_equal_fit_do_not():
    from torch.nn.utils import parametrize

    from clinode.dynamics import NetworkDrift, SparsityMask, fit_stationary

    r: dict[str, list[float]] = {"free": [], "sparse": [], "twin": []}
    n, Q = 8, np.ones(8)
    for seed in range(20):
        draw = torch.Generator().manual_seed(seed)
        mask = (torch.rand(n, n, generator=draw) < 0.3) & ~torch.eye(n, dtype=torch.bool)
        W = torch.randn(n, n, generator=draw, dtype=torch.float64) * mask
        W = 0.8 * W / torch.linalg.eigvals(W).abs().max().clamp(min=0.5)
        drive = 0.5 + torch.rand(n, 1, generator=draw, dtype=torch.float64)
        hidden = cn.LinearSystem(W - torch.eye(n).double(), drive)
        rest = cn.find_equilibria(hidden, 1.0)[0]
        P = stationary_moments(hidden, rest, Q).covariance
        models = {"twin": covariance_twins(hidden, Q, 1, u=1.0, generator=draw)[0]}
        start = 0.6 * torch.randn(n, n, generator=draw, dtype=torch.float64) / n**0.5
        for name, allowed in (("free", ~torch.eye(n, dtype=torch.bool)), ("sparse", mask)):
            drift = NetworkDrift(start * allowed)
            parametrize.register_parametrization(drift, "weight", SparsityMask(allowed))
            fit = fit_stationary(drift, P, Q, max_iterations=300)
            assert fit.explained > 1 - 1e-6
            models[name] = cn.LinearSystem(fit.A, drive, offset=(rest.state, [1.0]))
        for name, model in models.items():
            made = interventional_alignment(
                model, hidden, lesions(hidden, n_sites=2), AtRest(u=1.0), n_resamples=10
            )
            r[name].append(made.r.value)
    assert min(r["sparse"]) > 0.999
    assert np.mean(r["sparse"]) - np.mean(r["free"]) >= 0.3
    assert np.mean(r["twin"]) < 0.5
