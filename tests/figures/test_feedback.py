import base64

import pytest
import torch

from clinode.brain.sensorimotor import TwoLinkArm
from clinode.control.feedback.dual import dual_control
from clinode.control.feedback.iterative import ilqg
from clinode.control.feedback.problem import ControlProblem, OutputCost
from clinode.control.feedback.trials import Trials, run_trials
from clinode.errors import ArgumentError
from clinode.figures.feedback import (
    action_cost_figure,
    minimal_intervention_figure,
    places_figure,
    reaching_figure,
)
from clinode.figures.picture import data_uri
from clinode.system import DiscreteSystem, Quantity


class UnknownGain(DiscreteSystem):
    states = (Quantity("x", "mm"), Quantity("b", "mm/V"))
    inputs = (Quantity("u", "V"),)
    outputs = (Quantity("x", "mm"),)

    def next_state(self, k, x, u):
        return torch.cat([x[..., :1] + x[..., 1:] * u, x[..., 1:] + 0 * u], dim=-1)

    def output(self, t, x, u):
        return x[..., :1]


@pytest.fixture(scope="module")
def reach():
    arm = TwoLinkArm()
    final = OutputCost({"hand_x": 1e4, "hand_y": 1e4}, {"hand_x": 0.1, "hand_y": 0.45})
    problem = ControlProblem(
        arm, 0.0, 0.1, horizon=0.5, final_cost=final, initial_state=arm.posture(0.0, 0.35)
    )
    solution = ilqg(problem, step=0.05)
    trials = run_trials(solution.problem, solution.policy, 20, torch.Generator().manual_seed(0))
    return arm, solution, trials


@pytest.fixture(scope="module")
def dual():
    problem = ControlProblem(
        UnknownGain(), {"x": 1.0}, 0.0, process_noise=torch.diag(torch.tensor([1.0, 0.0])),
        horizon=2, initial_state=[1.0, 0.5],
        initial_covariance=torch.diag(torch.tensor([0.0, 1.0])),
    )  # fmt: skip
    return dual_control(problem, n_nodes=32)


def text_of(figure):
    return base64.b64decode(data_uri(figure).split(",", 1)[1]).decode()


def test_a_reach_shows_path_speed_and_commands_with_units(reach):
    text = text_of(reaching_figure(*reach))
    for words in ("hand x (m)", "hand y (m)", "time (s)", "hand speed (m/s)", "command (N·m)"):
        assert words in text


def test_minimal_intervention_shows_where_hands_end_and_spread(reach):
    arm, _, trials = reach
    figure = minimal_intervention_figure(
        arm, {"reach a point": trials, "reach a line": trials}, step=0.05
    )
    text = text_of(figure)
    for words in ("hand x, from its mean (mm)", "standard deviation (mm)", "reach a point"):
        assert words in text


def test_the_three_choices_stand_on_the_curve_of_costs(dual):
    figure = action_cost_figure(dual, -3.0, 1.0)
    text = text_of(figure)
    for words in ("first input u (V)", "expected cost", "dual", "cautious", "certainty equivalent"):
        assert words in text
    curve, *points = figure.axes[0].lines
    assert all(point.get_ydata()[0] >= min(curve.get_ydata()) - 1e-3 for point in points)
    with pytest.raises(ArgumentError, match="low must be below high"):
        action_cost_figure(dual, 1.0, 1.0)


def test_paths_of_several_controllers_stand_beside_their_costs():
    generator = torch.Generator().manual_seed(0)
    runs = {
        name: Trials(
            torch.randn(5, 10, 2, generator=generator),
            torch.zeros(4, 10, 1),
            torch.rand(10, generator=generator),
            torch.zeros(5, 10, 0),
        )
        for name in ("dual", "cautious")
    }
    text = text_of(places_figure(runs, ("x", "y"), "m"))
    for words in ("x (m)", "y (m)", "mean cost (95 % interval)", "dual", "cautious"):
        assert words in text
