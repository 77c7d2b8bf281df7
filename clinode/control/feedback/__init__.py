"""Feedback under noise: linear, signal-dependent, nonlinear, predictive, dual."""

from .dual import DualSolution, dual_control
from .expected import expected_cost
from .feedback import FeedbackSolution, FilterSolution, lqe, lqg, lqr
from .iterative import IterativeSolution, ilqg
from .predictive import PredictiveSolution, model_predictive
from .problem import ControlProblem
from .quadratic import OutputCost, StateCost
from .trials import Trials, run_trials
from .witsenhausen import witsenhausen

__all__ = [
    "ControlProblem",
    "DualSolution",
    "FeedbackSolution",
    "FilterSolution",
    "IterativeSolution",
    "OutputCost",
    "PredictiveSolution",
    "StateCost",
    "Trials",
    "dual_control",
    "expected_cost",
    "ilqg",
    "lqe",
    "lqg",
    "lqr",
    "model_predictive",
    "run_trials",
    "witsenhausen",
]
