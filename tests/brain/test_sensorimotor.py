import functools
import math

import pytest
import torch
from torch.func import grad, hessian, jacrev

from clinode.brain.sensorimotor import TwoLinkArm
from clinode.control.feedback.iterative import ilqg
from clinode.control.feedback.problem import ControlProblem, OutputCost
from clinode.control.feedback.sampling import sample
from clinode.control.feedback.trials import run_trials
from clinode.dynamics.simulate import simulate
from clinode.errors import ArgumentError
from clinode.system import closed_loop
from clinode.units import check_dimensions

REST = torch.zeros(2).double()
SILENT = TwoLinkArm(sigma=0.0)


def states(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 6, generator=generator, dtype=torch.float64)
    low, high = torch.tensor([s.range for s in TwoLinkArm.states]).double().T
    return low + (high - low) * x


def lagrangian(arm, q, w):
    """Kinetic energy of two rigid links, from where their masses are and how they turn."""
    l1, s2, m2 = (float(getattr(arm, name)) for name in ("l1", "s2", "m2"))
    I1, I2 = float(arm.I1), float(arm.I2)
    turn = q[0] + q[1]
    elbow = torch.stack([-l1 * torch.sin(q[0]), l1 * torch.cos(q[0])]) * w[0]
    center = elbow + torch.stack([-torch.sin(turn), torch.cos(turn)]) * s2 * (w[0] + w[1])
    about_center = I2 - m2 * s2**2
    return (
        0.5 * I1 * w[0] ** 2
        + 0.5 * m2 * (center**2).sum()
        + 0.5 * about_center * (w[0] + w[1]) ** 2
    )


def test_its_units_agree():
    check_dimensions(TwoLinkArm())


def test_it_moves_as_lagrange_says():
    arm = SILENT.with_constants(f=0.0, g=0.0)
    for x in states(10):
        q, w, torque = x[:2], x[2:4], x[4:]
        M = hessian(lambda w, q=q: lagrangian(arm, q, w))(w)
        along = jacrev(grad(lambda w, q: lagrangian(arm, q, w)), argnums=1)(w, q)
        pull = grad(lambda q, w=w: lagrangian(arm, q, w))(q)
        expected = torch.linalg.solve(M, torque + pull - along @ w)
        torch.testing.assert_close(arm.vector_field(0.0, x, REST)[2:4], expected)


def test_without_friction_only_torques_change_its_energy():
    arm = SILENT.with_constants(f=0.0, g=0.0)
    for x in states(5):
        rate = jacrev(arm.energy)(x) @ arm.vector_field(0.0, x, REST)
        assert float(rate) == pytest.approx(float(x[4:] @ x[2:4]), rel=1e-9, abs=1e-9)


def test_friction_alone_takes_its_energy():
    run = simulate(SILENT, [0.5, 1.5, 3.0, -2.0, 0.0, 0.0], [0.0, 0.5, 10.0])
    energy = SILENT.energy(run.states)
    assert float(energy[0]) > float(energy[1]) > float(energy[2])


def test_the_hand_moves_with_the_derivative_of_its_place():
    for x in states(5):
        moving = SILENT.vector_field(0.0, x, REST)
        place = jacrev(lambda x: SILENT.output(0.0, x, REST)[6:8])(x)
        torch.testing.assert_close(place @ moving, SILENT.output(0.0, x, REST)[8:])


def test_a_posture_has_its_hand_where_it_was_asked_to_be():
    for place in ([0.1, 0.4], [-0.2, 0.3], [0.0, 0.6]):
        x = SILENT.posture(*place)
        assert SILENT.output(0.0, x, REST)[6:8].tolist() == pytest.approx(place)
        assert 0 < float(x[1]) < math.pi
        assert float(SILENT.vector_field(0.0, x, REST).abs().max()) == 0
    with pytest.raises(ArgumentError, match=r"reaches from 0\.03 to 0\.63 m"):
        SILENT.posture(1.0, 0.0)


def test_the_noise_of_a_torque_grows_with_it():
    arm = TwoLinkArm()
    x = arm.posture(0.0, 0.4).expand(400, 6)
    spread = []
    for size in (0.25, 0.5, 1.0):
        run = simulate(
            arm, x, [0.0, 0.15], torch.tensor([size, -size]).double(), method="euler", step=1e-3,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        spread.append(run.states[:, -1, 4:].std(0))
    # exactly in proportion, from the same noise; and as theory has it, sigma / sqrt(2 t_a)
    torch.testing.assert_close(spread[1], 2 * spread[0], rtol=1e-9, atol=0.0)
    torch.testing.assert_close(spread[2], 4 * spread[0], rtol=1e-9, atol=0.0)
    expected = 0.05 / math.sqrt(2 * 0.04)
    assert float(spread[2].mean()) == pytest.approx(expected, rel=0.1)


@functools.cache
def reach(to, seconds=0.6, start=(0.0, 0.35), precise=("hand_x", "hand_y")):
    arm = TwoLinkArm()
    final = OutputCost(
        dict.fromkeys(precise, 10000.0)
        | {"hand_velocity_x": 1e2, "hand_velocity_y": 1e2}
        | {"shoulder_torque": 0.1, "elbow_torque": 0.1},
        dict(zip(("hand_x", "hand_y"), to, strict=True)),
    )
    problem = ControlProblem(
        arm, 0.0, 0.1, horizon=seconds, final_cost=final, initial_state=arm.posture(*start)
    )
    return arm, ilqg(problem, step=0.01)


@pytest.mark.parametrize("to", [(0.1, 0.45), (-0.1, 0.45), (0.1, 0.25)])
def test_an_optimal_reach_is_nearly_straight_with_a_bell_of_speed(to):
    arm, solution = reach(to)
    y = arm.output(0.0, solution.states, REST)
    hand, speed = y[:, 6:8], y[:, 8:].norm(dim=-1)
    way = hand[-1] - hand[0]
    assert float((hand[-1] - torch.tensor(to).double()).norm()) < 0.003
    aside = ((hand - hand[0]) @ torch.stack([-way[1], way[0]])) / (way @ way)
    assert float(aside.abs().max()) < 0.1
    peak = int(speed.argmax())
    assert 0.35 < peak / (len(speed) - 1) < 0.65
    assert bool((speed[: peak + 1].diff() > 0).all())
    assert bool((speed[peak:].diff() < 0).all())
    assert float(speed[-1]) < 0.05 * float(speed[peak])


def test_the_expected_cost_of_a_reach_is_that_of_noisy_reaches():
    _, solution = reach((0.1, 0.45))
    trials = run_trials(solution.problem, solution.policy, 1000, torch.Generator().manual_seed(0))
    assert abs(trials.cost.value - float(solution.cost)) < 4 * trials.standard_error


@pytest.mark.slow
def test_the_hand_varies_where_the_task_does_not_care():
    # reach a line: x is asked for, y is not (the minimal intervention of Todorov & Jordan 2002)
    arm, line = reach((0.1, 0.45), precise=("hand_x",))
    trials = run_trials(line.problem, line.policy, 300, torch.Generator().manual_seed(1))
    hand = arm.output(0.0, trials.states[-1], REST)[:, 6:8]
    across, along = hand.std(0).tolist()
    assert along > 3 * across
    _, point = reach((0.1, 0.45))
    both = run_trials(point.problem, point.policy, 300, torch.Generator().manual_seed(1))
    ends = arm.output(0.0, both.states[-1], REST)[:, 6:8].std(0)
    assert float(ends[1]) < along / 2


@pytest.mark.slow
def test_who_knows_of_the_noise_of_commands_reaches_at_less_cost():
    def task(sigma):
        arm = TwoLinkArm(sigma=sigma)
        final = OutputCost({"hand_x": 1e4, "hand_y": 1e4}, {"hand_x": 0.1, "hand_y": 0.45})
        return ControlProblem(
            arm, 0.0, 1e-3, horizon=0.5, final_cost=final, initial_state=arm.posture(0.0, 0.35)
        )

    aware, blind = ilqg(task(0.05), step=0.01), ilqg(task(0.0), step=0.01)
    costs = [
        run_trials(aware.problem, one.policy, 4000, torch.Generator().manual_seed(0)).costs
        for one in (aware, blind)
    ]
    saved = costs[1] - costs[0]  # under the same noise
    assert float(saved.mean()) > 3 * float(saved.std()) / math.sqrt(len(saved))


def test_joined_to_the_arm_the_feedback_still_reaches_from_another_start():
    arm, solution = reach((0.1, 0.45))
    loop = closed_loop(sample(arm, 0.01), solution.policy)
    times = [0.01 * k for k in range(61)]
    run = simulate(loop, arm.posture(0.02, 0.34), times)
    hand = arm.output(0.0, run.states[-1], REST)[6:8]
    assert float((hand - torch.tensor([0.1, 0.45]).double()).norm()) < 0.01
