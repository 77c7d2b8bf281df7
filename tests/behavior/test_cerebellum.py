"""Adaptation of the reflex against matrix powers, autograd and its closed forms."""

import math

import numpy as np
import pytest
import torch

from clinode.behavior import (
    VOR,
    CerebellarLearning,
    HeadMovement,
    adapt,
    delay_lines,
    learning_rates,
    low_passes,
)
from clinode.behavior.cerebellum import overlap, update
from clinode.errors import ArgumentError, SolverError


def drawn(seed: int):
    generator = np.random.default_rng(seed)
    n_fibers, n_components = int(generator.integers(1, 65)), int(generator.integers(1, 6))
    if seed % 2:
        fibers = delay_lines(generator.uniform(0, 0.3, n_fibers))
    else:
        fibers = low_passes(generator.uniform(0.001, 0.5, n_fibers))
    reflex = VOR(
        brainstem=float(generator.uniform(0.3, 1.5)),
        fibers=fibers,
        weights=generator.normal(size=n_fibers) / n_fibers,
    )
    frequency = np.sort(generator.choice(np.arange(1, 60), n_components, replace=False)) / 10
    movement = HeadMovement(frequency, generator.uniform(0.5, 20, n_components))
    R = overlap(reflex, movement)
    eta = float(generator.uniform(0.2, 1.8)) / np.linalg.eigvalsh(R).max()
    return reflex, movement, float(generator.uniform(-1, 2)), CerebellarLearning(eta=eta), R


def samples(reflex: VOR, movement: HeadMovement, n: int = 200):
    """Head, and each parallel fiber, over one common period in the time domain."""
    t = np.arange(n) / n * 10.0  # s, a whole period of every tenth of a hertz
    turn = np.exp(2j * math.pi * np.outer(movement.frequency, t))
    head = (np.asarray(movement.amplitude)[:, None] * turn).real.sum(axis=0)
    response = reflex.fibers(np.asarray(movement.frequency))
    fibers = np.einsum("jc,c,ct->jt", response, np.asarray(movement.amplitude), turn).real
    return head, fibers


@pytest.mark.parametrize("seed", range(8))
def test_the_rule_is_a_step_down_the_gradient_of_what_slips(seed):
    reflex, movement, goal, rule, _ = drawn(seed)
    head, fibers = (torch.from_numpy(part) for part in samples(reflex, movement))
    weights = torch.from_numpy(reflex.depth.copy()).requires_grad_()
    slip = (goal - reflex.brainstem) * head + weights @ fibers
    (slope,) = torch.autograd.grad((slip**2).mean() / 2, weights)
    found = update(reflex, movement, goal, rule)
    scale = max(np.abs(found).max(), 1e-300)
    np.testing.assert_allclose(found / scale, -rule.eta * slope.numpy() / scale, atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_an_adaptation_is_a_power_of_a_matrix(seed):
    reflex, movement, goal, rule, R = drawn(seed)
    n, n_trials = len(R), 40
    course = adapt(reflex, movement, goal, rule, n_trials)
    response = reflex.fibers(np.asarray(movement.frequency))
    pull = (movement.power * ((goal - reflex.brainstem) * response.conj()).real).sum(axis=1)
    # the map w -> (I - eta R) w - eta pull, by powers of a matrix with one row more
    step = np.eye(n + 1)
    step[:n, :n] -= rule.eta * R
    step[:n, n] = -rule.eta * pull
    for trial in (1, 7, n_trials):
        expected = (np.linalg.matrix_power(step, trial) @ np.r_[reflex.depth, 1.0])[:n]
        np.testing.assert_allclose(course.weights[trial], expected, atol=1e-9)
    rates = np.sort(np.linalg.eigvals(np.eye(n) - rule.eta * R).real)
    np.testing.assert_allclose(np.sort(learning_rates(reflex, movement, rule).real), rates)


def test_one_fiber_follows_the_closed_form():
    movement = HeadMovement([0.5], [2.0])  # mean square 2
    rule = CerebellarLearning(eta=0.05)
    course = adapt(VOR(brainstem=0.8), movement, 1.0, rule, 22)
    n = np.arange(23)
    np.testing.assert_allclose(1 - course.gain[:, 0].real, 0.2 * 0.9**n, rtol=1e-12)
    assert abs(course.gain[22, 0]) > 0.98 > abs(course.gain[21, 0])
    assert (np.diff(course.weights[:, 0]) < 0).all()  # a rising gain takes depression


@pytest.mark.parametrize("goal", [2.0, 0.25, -1.0])
def test_glasses_are_adapted_to(goal):
    movement = HeadMovement([0.2, 1.0], [5.0, 5.0])
    course = adapt(VOR(), movement, goal, CerebellarLearning(eta=0.01), 200)
    np.testing.assert_allclose(course.gain[-1], goal, atol=1e-6)
    assert course.slip[-1] < 1e-5


def test_too_large_steps_and_errors_too_late_run_away():
    movement = HeadMovement([1.0], [2.0])
    for eta, runs in ((0.99, False), (1.01, True)):
        rule = CerebellarLearning(eta=eta)
        assert (np.abs(learning_rates(VOR(), movement, rule)).max() > 1) == runs
    with pytest.raises(SolverError, match="runs away"):
        adapt(VOR(), movement, 1.0, CerebellarLearning(eta=3.0), 400)
    small = CerebellarLearning(eta=0.01)
    for delay, runs in ((0.24, False), (0.26, True)):  # a quarter of a period is 0.25 s
        late = VOR(error_delay=delay)
        assert (np.abs(learning_rates(late, movement, small)).max() > 1) == runs
        met = VOR(error_delay=delay, eligibility_delay=delay)
        np.testing.assert_allclose(
            adapt(met, movement, 1.0, small, 30).gain,
            adapt(VOR(), movement, 1.0, small, 30).gain,
            rtol=1e-12,
        )


def test_without_depression_the_gain_does_not_rise_and_without_potentiation_not_fall():
    movement = HeadMovement([0.5], [2.0])
    rule = CerebellarLearning(eta=0.05, depresses=False)
    up = adapt(VOR(), movement, 2.0, rule, 50)
    np.testing.assert_array_equal(up.gain, up.gain[:1].repeat(51, axis=0))
    assert adapt(VOR(), movement, 0.2, rule, 50).gain[-1, 0].real < 0.21
    other = CerebellarLearning(eta=0.05, potentiates=False)
    assert adapt(VOR(), movement, 0.2, other, 50).gain[-1, 0].real == pytest.approx(0.8)
    assert adapt(VOR(), movement, 2.0, other, 50).gain[-1, 0].real > 1.99


def test_a_lesion_takes_all_of_it_unless_the_nuclei_have_taken_it_over():
    movement = HeadMovement([0.5], [2.0])
    one = adapt(VOR(), movement, 1.6, CerebellarLearning(eta=0.1), 100).reflex
    assert one.gain(0.5)[0].real == pytest.approx(1.6, abs=1e-6)
    assert one.lesioned().gain(0.5)[0].real == pytest.approx(0.8)
    two = adapt(VOR(), movement, 1.6, CerebellarLearning(eta=0.1, consolidation=0.02), 100).reflex
    assert two.gain(0.5)[0].real == pytest.approx(1.6, abs=1e-3)
    kept = (two.lesioned().gain(0.5)[0].real - 0.8) / 0.8
    assert 0.8 < kept < 1.0
    early = adapt(VOR(), movement, 1.6, CerebellarLearning(eta=0.1, consolidation=0.02), 5).reflex
    assert (early.lesioned().gain(0.5)[0].real - 0.8) / 0.8 < 0.1


@pytest.mark.parametrize("seed", range(6))
def test_what_moves_to_the_nuclei_follows_two_geometric_series(seed):
    draw = np.random.default_rng(seed)
    movement = HeadMovement([float(draw.uniform(0.1, 2))], [float(draw.uniform(0.5, 3))])
    k, w, goal = (float(draw.uniform(*span)) for span in ((0.4, 1.2), (-0.4, 0.4), (0.2, 2)))
    pace = float(draw.uniform(0.02, 0.6))  # eta <H^2>
    share, n = float(draw.uniform(0.005, 0.3)), np.arange(61)
    rule = CerebellarLearning(eta=pace / movement.power[0], consolidation=share)
    found = adapt(VOR(brainstem=k, weights=[w]), movement, goal, rule, 60)
    # the gain closes in by 1 - pace a trial; of each trial's weight the nuclei take their share
    off, stay, left = goal - (k - w), 1 - share, 1 - pace
    gathered = stay * (stay**n - left**n) / (stay - left)
    weights = stay**n * w - pace * off * gathered
    np.testing.assert_allclose(found.gain[:, 0], goal - off * left**n, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.weights[:, 0], weights, rtol=0, atol=1e-12)
    kept = found.reflex.lesioned().gain(movement.frequency)[0]
    assert kept == pytest.approx(goal - off * left**60 + weights[-1], abs=1e-12)
    np.testing.assert_allclose(found.brainstem, found.gain[:, 0].real + weights, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_consolidation_with_many_fibers_is_a_power_of_one_matrix(seed):
    draw = np.random.default_rng(seed)
    n, n_components = int(draw.integers(2, 5)), 4
    reflex = VOR(
        brainstem=float(draw.uniform(0.4, 1.2)),
        fibers=low_passes(np.geomspace(0.01, 0.5, n)),
        weights=draw.normal(size=n) / 4,
    )
    movement = HeadMovement(np.sort(draw.uniform(0.1, 4, n_components)), draw.uniform(1, 3, 4))
    goal, share = float(draw.uniform(0.2, 2)), float(draw.uniform(0.02, 0.3))
    R, power = overlap(reflex, movement), movement.power
    eta = float(draw.uniform(0.3, 1.5)) / np.linalg.eigvalsh(R).max()
    response = reflex.fibers(np.asarray(movement.frequency))
    heard = (response.real * power).sum(axis=1)  # <p H>
    # states w, k, 1: learning, then what the nuclei take is given back by the nearest weights
    learn, hand = np.eye(n + 2), np.eye(n + 2)
    learn[:n, :n] -= eta * R
    learn[:n, n], learn[:n, n + 1] = eta * heard, -eta * goal * heard
    taken = share * heard / power.sum()
    design = np.vstack([(response.real * np.sqrt(power)).T, (response.imag * np.sqrt(power)).T])
    unit = np.r_[np.sqrt(power), np.zeros(n_components)]
    nearest = np.linalg.solve(design.T @ design, design.T @ unit)
    hand[:n, :n] -= np.outer(nearest, taken)
    hand[n, :n] -= taken
    rule = CerebellarLearning(eta=eta, consolidation=share)
    course = adapt(reflex, movement, goal, rule, 30)
    start = np.r_[reflex.depth, reflex.brainstem, 1.0]
    for trial in (1, 9, 30):
        expected = np.linalg.matrix_power(hand @ learn, trial) @ start
        np.testing.assert_allclose(course.weights[trial], expected[:n], rtol=0, atol=1e-9)
        assert course.brainstem[trial] == pytest.approx(expected[n], abs=1e-9)


def test_what_is_learned_at_one_frequency_spreads_by_the_overlap_of_the_fibers():
    fibers = low_passes(np.geomspace(0.005, 2.0, 24))
    trained = adapt(
        VOR(fibers=fibers), HeadMovement([1.0], [10.0]), 1.6, CerebellarLearning(eta=2e-3), 400
    ).reflex
    off = np.abs(trained.gain([1.0, 1.3, 3.0, 10.0]) - 1.6)
    assert off[0] < 0.01
    assert (np.diff(off) > 0).all()


def test_movements_and_rules_that_make_no_sense_are_refused():
    for call, words in (
        (lambda: HeadMovement([0.0], [1.0]), "frequencies must be positive"),
        (lambda: HeadMovement([1.0, 1.0], [1.0, 2.0]), "given twice"),
        (lambda: HeadMovement([1.0], [math.nan]), "amplitudes must be finite"),
        (lambda: HeadMovement([], []), "one at least"),
        (lambda: VOR(weights=np.zeros(2)), "one of 1 fibers"),
        (lambda: VOR(error_delay=-0.1), "delays must be finite and not negative"),
        (lambda: HeadMovement([1.0], [0.0]), "not all 0"),
        (lambda: VOR(brainstem=math.nan), "brainstem must be finite"),
        (lambda: VOR(error_delay=math.nan), "delays must be finite"),
        (lambda: delay_lines([]), "one at least"),
        (lambda: low_passes([-1.0]), "not negative"),
        (lambda: adapt(VOR(), HeadMovement([1.0], [1.0]), math.nan, CerebellarLearning(eta=1.0), 1),
         "goal must be finite"),
        (lambda: CerebellarLearning(eta=0.0), "eta must be positive"),
        (lambda: CerebellarLearning(eta=1.0, consolidation=1.0), r"lie in \[0, 1\)"),
        (lambda: adapt(VOR(), HeadMovement([1.0], [1.0]), 1.0, CerebellarLearning(eta=1.0), 0),
         "whole number of at least 1"),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match=words):
            call()
