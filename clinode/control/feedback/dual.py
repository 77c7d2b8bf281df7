"""Dual control: an input that steers what is known as well as the state (Feldbaum 1960).

Where an input changes how well the state will be known, the best input balances three things: it
steers (certainty equivalence: as if the mean were the truth), it is careful (caution: the
uncertainty of today is counted), and it probes (the readings to come are counted as well).

Small problems (one input, one reading, few steps) are solved by dynamic programming over beliefs,
the expectation over each reading by quadrature and the minimum over each input by a search. Beyond
them the belief is a state like another (`belief`), noisy and controlled, and the path and feedback
that are locally best for it are found by differential dynamic programming (van den Berg, Patil &
Alterovitz 2012, Int. J. Robotics Res. 31:1263-1278). Its expansion to second order holds where the
readings are what the path changes; where a gain's sign is open it does not, and says so.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from clinode.errors import ArgumentError

from .belief import BeliefPolicy, Filter, filter_of, first_belief, separation
from .exactness import exactness
from .planner import Planner
from .problem import ControlProblem
from .quadrature import BeliefTree
from .sampling import in_steps
from .separation import Separation
from .trials import Trials, run_trials

METHODS = ("quadrature", "belief")
FEW_STEPS, MOST_STEPS = 2, 3  # decisions by quadrature unasked, and at all
N_GUESSES = 5  # random ones, beside those that cautious and certainty equivalent control give


@dataclass(frozen=True, eq=False)
class Choice:
    """One way to act.

    Attributes:
        action: The first input, (input,), where the first reading is the expected one.
        cost: By quadrature: of this first input and the best behavior after it. In belief space:
            what the plan expects; None for certainty equivalence, which expects nothing of use.
        policy: All of it, as a system that reads the sensors.
    """

    action: Tensor
    cost: float | None
    policy: BeliefPolicy

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {"action": self.action.tolist(), "cost": self.cost}


@dataclass(frozen=True, eq=False)
class DualSolution:
    """Control that probes, beside control that does not; from `dual_control`.

    Attributes:
        problem: What was solved, in steps.
        method: "quadrature" or "belief".
        exact: Whether beliefs move exactly as computed; else the filter approximates.
        why: Of `exact`, in words.
        cost: Expected under dual control. By quadrature, of an exact problem, it is the least there
            is; in belief space it is a local optimum of an approximation: run `compare`.
        choices: "dual", "cautious" (today's uncertainty is counted, not what will be learned) and
            "certainty equivalent" (the mean is taken for the truth).
        verdict: "least" (quadrature, exact beliefs), "least within the filter's approximation"
            (quadrature), "local optimum" (belief space), or "undecided: why" where the plan in
            belief space expects to do worse than caution, so that its expansion cannot be trusted.
        accuracy: By quadrature, by how much the cost changes with half the nodes; None in belief
            space, where only trials tell.
        separates: Whether all three are the same by theory, and why not.
        tree: By quadrature: costs of beliefs.
        gain: None: the input is no linear function of a state.
        filter_gain: None: the filter's gain depends on the belief.
    """

    problem: ControlProblem
    method: str
    exact: bool
    why: str
    cost: float
    choices: dict[str, Choice]
    separates: Separation
    verdict: str
    accuracy: float | None
    tree: BeliefTree | None = None
    gain: None = None
    filter_gain: None = None

    def cost_of(self, actions: Tensor) -> Tensor:
        """By quadrature: what first inputs (action) cost if the best behavior follows, (action).

        Raises:
            ArgumentError: The problem was solved in belief space.
        """
        if self.tree is None:
            raise ArgumentError(
                "in belief space only the plan has a cost", fix="method='quadrature'"
            )
        filter = self.tree.filter
        start = _after_first_reading(filter, first_belief(self.problem, filter))
        return self.tree.cost(0, start.expand(len(actions), -1), actions.unsqueeze(-1))

    @property
    def policy(self) -> BeliefPolicy:
        """Dual control as a system."""
        return self.choices["dual"].policy

    @property
    def cost_split(self) -> dict[str, float | None]:
        """The cost of each way to act."""
        return {name: choice.cost for name, choice in self.choices.items()}

    def compare(self, n_trials: int, seed: int) -> dict[str, Trials]:
        """All three on the system itself, nonlinear as it is, under the same noise."""
        return {
            name: run_trials(
                self.problem, choice.policy, n_trials, torch.Generator().manual_seed(seed)
            )
            for name, choice in self.choices.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "method": self.method,
            "exact": self.exact,
            "why": self.why,
            "cost": self.cost,
            "verdict": self.verdict,
            "accuracy": self.accuracy,
            "choices": {name: choice.to_dict() for name, choice in self.choices.items()},
            "separates": self.separates.to_dict(),
        }


def dual_control(
    problem: ControlProblem,
    *,
    step: float | None = None,
    method: str | None = None,
    n_nodes: int | None = None,
    inputs: Tensor | None = None,
    replans: bool = False,
    max_iterations: int = 300,
) -> DualSolution:
    """Control under uncertainty that its own actions can reduce.

    What is unknown is part of the state: a constant parameter is a state that stays. What is known
    at the start is `initial_state` and `initial_covariance`.

    Args:
        problem: With a horizon, and sensors.
        step: Of a flow: length of the steps in which it is controlled.
        method: "quadrature", "belief", or None: quadrature for one input, one reading and at most
            two steps. It does three as well, in minutes.
        n_nodes: Of the quadrature over each reading; 320 for two steps, 32 for three.
        inputs: First guess for the plans, (step, input).
        replans: Whether policies plan anew after every reading (slow), or follow the feedback of
            their first plan; quadrature is anew at every step in any case.
        max_iterations: Of a plan.

    Raises:
        ArgumentError: No horizon, an unknown method, quadrature asked for what is not small.
        SolverError: A plan did not settle.
    """
    problem = in_steps(problem, step)
    if problem.start.ndim > 1:
        raise ArgumentError("initial_state has batch axes, a belief has one mean")
    is_small = problem.n_steps <= MOST_STEPS and problem.system.n_inputs == problem.n_sensors == 1
    if method is None:
        method = "quadrature" if is_small and problem.n_steps <= FEW_STEPS else "belief"
    if method not in METHODS:
        raise ArgumentError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if method == "quadrature" and not is_small:
        raise ArgumentError(
            f"quadrature over beliefs is for one input, one reading and at most {MOST_STEPS} steps",
            fix="method='belief'",
        )
    filter = filter_of(problem)
    before = first_belief(problem, filter)
    start = _after_first_reading(filter, before)
    ways = {
        "cautious": Planner(filter.as_stages(learns=False), None, True, max_iterations, replans),
        "certainty equivalent": Planner(
            replace(filter.stages, noise=None), filter.n_states, False, max_iterations, replans
        ),
    }
    guess = filter.stages.rest.expand(problem.n_steps, -1) if inputs is None else inputs.double()
    plans = {name: planner.first(start, guess[None]) for name, planner in ways.items()}
    accuracy, tree = None, None
    if method == "belief":
        cautious, certain = (plans[name].inputs[:, 0] for name in ways)
        guesses = _guesses(guess, cautious, certain)
        planner = Planner(filter.as_stages(), None, True, max_iterations, replans)
        plans = {"dual": planner.first(start, guesses), **plans}
        ways = {"dual": planner, **ways}
    choices = {
        name: Choice(
            plans[name].inputs[0, 0],
            None if name == "certainty equivalent" else float(plans[name].cost[0]),
            BeliefPolicy(problem, planner),
        )
        for name, planner in ways.items()
    }
    if method == "belief":
        cost = float(plans["dual"].cost[0])
    else:
        n_nodes = n_nodes or (320 if problem.n_steps <= 2 else 32)
        tree = BeliefTree(filter, n_nodes)
        choices, cost = _by_quadrature(problem, tree, before, start, choices)
        accuracy = abs(cost - BeliefTree(filter, n_nodes // 2).over_first_reading(before))
    exact, why = exactness(problem, filter)
    separates = separation(problem, problem.n_steps)
    verdict = _verdict(method, exact, cost, choices["cautious"].cost)
    return DualSolution(
        problem, method, exact, why, cost, choices, separates, verdict, accuracy, tree
    )


def _verdict(method: str, exact: bool, cost: float, cautious: float | None) -> str:
    if method == "quadrature":
        return "least" if exact else "least within the filter's approximation"
    if cautious is not None and cost > cautious * (1 + 1e-9):
        return (
            f"undecided: the plan in belief space expects {cost:.4g}, more than the {cautious:.4g} "
            "of control that never learns, so that its expansion does not hold here"
        )
    return "local optimum"


def _guesses(guess: Tensor, cautious: Tensor, certain: Tensor, seed: int = 0) -> Tensor:
    """First guesses for a plan that may have many optima, (guess, step, input)."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.maximum(cautious.abs().amax(), (certain - guess).abs().amax()).clamp(min=1e-3)
    random = torch.randn(N_GUESSES, *guess.shape, generator=generator, dtype=torch.float64)
    return torch.cat([torch.stack([guess, cautious, certain]), cautious + size * random])


def _after_first_reading(filter: Filter, before: Tensor) -> Tensor:
    """What is known once the first reading was the expected one."""
    return filter.joined(filter.split(before)[0], filter.gain(0, before)[0])


def _by_quadrature(
    problem: ControlProblem,
    tree: BeliefTree,
    before: Tensor,
    start: Tensor,
    choices: dict[str, Choice],
) -> tuple[dict[str, Choice], float]:
    """The dual choice, and what the first inputs of the others cost if the best follows them."""
    one = start.unsqueeze(0)
    action, least = tree.best(0, one)
    made = {"dual": Choice(action[0], float(least), BeliefPolicy(problem, tree.act))}
    for name, choice in choices.items():
        cost = float(tree.cost(0, one, choice.action.unsqueeze(0)))
        made[name] = replace(choice, cost=cost)
    tells = bool((tree.filter.gain(0, before)[1] != 0).any())
    return made, tree.over_first_reading(before) if tells else float(least)
