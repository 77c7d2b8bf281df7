"""Fit models of reaction times by maximum likelihood, parameters shared or free by condition."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from torch import Tensor

from clinode.behavior.diffusion import DDM
from clinode.behavior.later import LATER
from clinode.behavior.race import LBA, WaldRace
from clinode.behavior.response_times import ResponseModel, choices, seconds
from clinode.behavior.wald import Wald
from clinode.errors import ArgumentError, SolverError
from clinode.system import Values

N_STARTS = 4  # searches, the first from a guess, the others from around it
FURTHEST = 20.0  # of the unbounded scales: what a long step of the search is cut to
MOST_CONTAMINANTS = 0.5  # share of trials


@dataclass(frozen=True)
class Trials:
    """Reaction times of one experiment.

    Attributes:
        rt: (trial,), seconds; infinite where no response came by the deadline.
        choice: (trial,), 1 or 0.
        condition: (trial,), position in `conditions`.
        conditions: Their names.
        deadline: Seconds; None where every trial has a response.
    """

    rt: Tensor
    choice: Tensor
    condition: Tensor
    conditions: tuple[str, ...]
    deadline: float | None = None

    @classmethod
    def read(
        cls,
        rt: Values,
        choice: Values | None = None,
        condition: Sequence[Any] | None = None,
        deadline: float | None = None,
    ) -> "Trials":
        """Checked trials.

        Args:
            rt: Seconds; infinite for a trial without a response by the deadline.
            choice: 1 or 0; all 1 by default.
            condition: Of each trial; one for all by default.
            deadline: Needed where times are infinite.

        Raises:
            ArgumentError: Times that cannot be seconds, choices other than 0 and 1, shapes that do
                not fit, infinite times without a deadline.
        """
        times = torch.as_tensor(rt, dtype=torch.float64).flatten()
        answered = times != math.inf
        if deadline is None and not bool(answered.all()):
            raise ArgumentError(
                f"{int((~answered).sum())} trials have no response, and no deadline is told",
                fix="pass deadline=, the time at which a trial was given up",
            )
        seconds(times[answered])
        chosen = torch.ones_like(times) if choice is None else choices(choice, times)
        named = ["all"] * len(times) if condition is None else [str(one) for one in condition]
        if len(named) != len(times):
            raise ArgumentError(f"{len(named)} conditions for {len(times)} trials")
        names = tuple(dict.fromkeys(named))
        place = {name: k for k, name in enumerate(names)}
        return cls(times, chosen, torch.tensor([place[n] for n in named]), names, deadline)

    def __len__(self) -> int:
        return len(self.rt)

    def counted(self) -> tuple["Trials", Tensor]:
        """Each different trial once, and how often it came.

        Times are recorded in milliseconds or coarser, so of many trials few differ.
        """
        rows = torch.stack([self.rt, self.choice, self.condition.double()], dim=1)
        rows, counts = torch.unique(rows, dim=0, return_counts=True)
        rt, choice, condition = rows.unbind(dim=1)
        different = replace(self, rt=rt, choice=choice, condition=condition.long())
        return different, counts.double()


@dataclass(frozen=True, eq=False)
class Fit:
    """A model fitted to trials.

    Attributes:
        model: Its class.
        parameters: (condition, parameter) -> value, in the units of the class.
        standard_errors: The same; NaN where the likelihood does not curve.
        contaminants: Share of trials that the model does not explain; 0 where not fitted.
        log_likelihood: Of the trials, in nats.
        n_parameters: Fitted.
        n_trials: How many.
        trials: What was fitted.
        verdict: "ok", or what is wrong with the standard errors.
    """

    model: type[ResponseModel]
    parameters: dict[tuple[str, str], float]
    standard_errors: dict[tuple[str, str], float]
    contaminants: float
    log_likelihood: float
    n_parameters: int
    n_trials: int
    trials: Trials
    verdict: str

    @property
    def aic(self) -> float:
        """2 parameters - 2 log likelihood; lower is better."""
        return 2 * self.n_parameters - 2 * self.log_likelihood

    @property
    def bic(self) -> float:
        """log(trials) parameters - 2 log likelihood; lower is better."""
        return math.log(self.n_trials) * self.n_parameters - 2 * self.log_likelihood

    def of(self, condition: str) -> ResponseModel:
        """The fitted distribution in one condition."""
        values = {name: v for (where, name), v in self.parameters.items() if where == condition}
        if not values:
            raise ArgumentError(
                f"no condition {condition!r}; there are: {', '.join(self.trials.conditions)}"
            )
        return self.model(**values)

    def to_pandas(self) -> pd.DataFrame:
        """One row a condition and parameter: condition, parameter, value, standard_error."""
        rows = [(*key, value, self.standard_errors[key]) for key, value in self.parameters.items()]
        return pd.DataFrame(rows, columns=["condition", "parameter", "value", "standard_error"])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model.__name__,
            "parameters": self.to_pandas().to_dict("records"),
            "contaminants": self.contaminants,
            "log_likelihood": self.log_likelihood,
            "n_parameters": self.n_parameters,
            "n_trials": self.n_trials,
            "aic": self.aic,
            "bic": self.bic,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class _Known:
    """How a parameter is searched for: its scale, and a guess from trials."""

    scale: str  # "real", "positive", "unit" or "before": below the fastest response
    guess: Callable[[Tensor, Tensor], float]


def _rate(rt: Tensor) -> Tensor:
    return 1 / rt


PARAMETERS: dict[type[ResponseModel], dict[str, _Known]] = {
    DDM: {
        "drift": _Known("real", lambda rt, choice: 2.0 * float(choice.mean() - 0.5)),
        "bound": _Known("positive", lambda rt, choice: 2.0 * math.sqrt(float(rt.std()) + 0.05)),
        "start": _Known("unit", lambda rt, choice: 0.5),
        "non_decision": _Known("before", lambda rt, choice: 0.8),
    },
    LATER: {
        "mean": _Known("real", lambda rt, choice: float(_rate(rt).median())),
        "spread": _Known("positive", lambda rt, choice: float(_rate(rt).std()) * 0.8),
        "early_spread": _Known("positive", lambda rt, choice: float(_rate(rt).std()) * 2),
    },
    Wald: {
        "drift": _Known("positive", lambda rt, choice: 1.5 / math.sqrt(float(rt.mean()))),
        "threshold": _Known("positive", lambda rt, choice: math.sqrt(float(rt.mean()))),
        "non_decision": _Known("before", lambda rt, choice: 0.3),
    },
    WaldRace: {
        "drift": _Known("positive", lambda rt, choice: 1.0 / math.sqrt(float(rt.mean()))),
        "other_drift": _Known("positive", lambda rt, choice: 0.5 / math.sqrt(float(rt.mean()))),
        "threshold": _Known("positive", lambda rt, choice: math.sqrt(float(rt.mean()))),
        "non_decision": _Known("before", lambda rt, choice: 0.5),
    },
    LBA: {
        "drift": _Known("real", lambda rt, choice: 2.0),
        "other_drift": _Known("real", lambda rt, choice: 1.0),
        "threshold": _Known("positive", lambda rt, choice: 2.0 * float(rt.mean())),
        "start_range": _Known("unit", lambda rt, choice: 0.5),  # a share of the threshold
        "non_decision": _Known("before", lambda rt, choice: 0.5),
    },
}


def fit(
    model: type[ResponseModel],
    rt: Values,
    choice: Values | None = None,
    *,
    condition: Sequence[Any] | None = None,
    free: Sequence[str] = (),
    fixed: Mapping[str, float] | None = None,
    contaminants: bool = False,
    deadline: float | None = None,
    seed: int = 0,
) -> Fit:
    """Maximum likelihood, searched from several starts by BFGS with exact gradients.

    Standard errors come from the curvature of the likelihood, carried over to the parameters by
    their slope.

    Args:
        model: DDM, LBA or WaldRace of two responses, LATER or Wald of one.
        rt: (trial,), seconds; infinite where no response came by the deadline.
        choice: (trial,), 1 or 0; not for models of one response.
        condition: (trial,), names; one for all by default.
        free: Parameters with a value for each condition; the others are shared.
        fixed: Parameters that keep a value, `{"start": 0.5}` say. The spread of LBA's drifts is 1,
            for only ratios of its speeds to it can be known.
        contaminants: Whether a share of the trials is uniform over the times seen.
        deadline: Seconds; trials without a response count as not done by then.
        seed: Of the starts.

    Raises:
        ArgumentError: As in `Trials.read`; an unknown model or parameter; one response only for a
            model of two.
        SolverError: No start led to a finite likelihood.
    """
    if model not in PARAMETERS:
        raise ArgumentError(
            f"no fit is known for {model.__name__}; there are: "
            f"{', '.join(one.__name__ for one in PARAMETERS)}"
        )
    trials = Trials.read(rt, choice, condition, deadline)
    plan = _Plan.of(model, trials, tuple(free), dict(fixed or {}), contaminants)
    best = maximise(plan.log_likelihood, plan.start, seed=seed, where=model.__name__)
    return plan.described(best)


@dataclass(frozen=True, eq=False)
class _Plan:
    """Where each parameter lies in the vector that is searched."""

    model: type[ResponseModel]
    trials: Trials
    different: Trials  # and how often each came
    counts: Tensor
    places: dict[str, list[int]]  # by parameter, one a condition
    fixed: dict[str, float]
    start: np.ndarray
    contaminants: bool
    fastest: float

    @classmethod
    def of(
        cls,
        model: type[ResponseModel],
        trials: Trials,
        free: tuple[str, ...],
        fixed: dict[str, float],
        contaminants: bool,
    ) -> "_Plan":
        known = PARAMETERS[model]
        if unknown := [name for name in (*free, *fixed) if name not in known]:
            raise ArgumentError(
                f"{model.__name__} has no parameter {unknown[0]!r}; there are: {', '.join(known)}"
            )
        answered = trials.rt < math.inf
        rt, choice = trials.rt[answered], trials.choice[answered]
        shares = choice.mean()
        if model.n_responses == 2 and float(shares) in (0.0, 1.0):
            raise ArgumentError(
                f"all {len(rt)} responses are the same, and {model.__name__} is about two",
                fix="code which response was given, or fit LATER or Wald",
            )
        if model.n_responses == 1 and float(shares) != 1.0:
            raise ArgumentError(
                f"{model.__name__} is about one response",
                fix="fit each response by itself, or take a race",
            )
        start, places = [], {}
        for name, one in known.items():
            if name in fixed:
                continue
            n = len(trials.conditions) if name in free else 1
            first = len(start)
            own = range(len(trials.conditions)) if n > 1 else [None]
            for k in own:
                part = answered if k is None else answered & (trials.condition == k)
                guess = one.guess(trials.rt[part], trials.choice[part])
                start.append(_unbounded(one.scale, guess))
            places[name] = [first + (k if n > 1 else 0) for k in range(len(trials.conditions))]
        if contaminants:
            start.append(_unbounded("unit", 0.05))
        return cls(
            model, trials, *trials.counted(), places, fixed, np.array(start), contaminants,
            float(rt.min()),
        )  # fmt: skip

    def values(self, x: Tensor) -> dict[str, Tensor]:
        """(condition,) of each parameter."""
        known, found = PARAMETERS[self.model], {}
        for name, one in known.items():
            if name in self.fixed:
                found[name] = torch.full((len(self.trials.conditions),), self.fixed[name]).double()
                continue
            own = x[self.places[name]]
            if one.scale == "positive":
                own = own.exp()
            elif one.scale == "unit":
                own = torch.sigmoid(own)
            elif one.scale == "before":
                own = self.fastest * torch.sigmoid(own)
            found[name] = own
        if self.model is LBA and "start_range" not in self.fixed:
            found["start_range"] = found["start_range"] * found["threshold"]
        return found

    def log_likelihood(self, x: Tensor) -> Tensor:
        """Of all trials."""
        trials = self.different
        values = {name: v[trials.condition] for name, v in self.values(x).items()}
        model = self.model(**values)
        answered = trials.rt < math.inf
        rt = torch.where(answered, trials.rt, 1.0)
        density = model.log_prob(rt, trials.choice)
        if self.contaminants:
            share = MOST_CONTAMINANTS * torch.sigmoid(x[-1])
            spread = float(trials.rt[answered].max() - trials.rt[answered].min())
            uniform = -math.log(spread * self.model.n_responses)
            density = torch.logaddexp(torch.log1p(-share) + density, torch.log(share) + uniform)
        if trials.deadline is not None:
            late = torch.full_like(rt, trials.deadline)
            density = torch.where(answered, density, model.log_survival(late))
        return (self.counts * density).sum()

    def described(self, x: np.ndarray) -> Fit:
        """The fit at a solution."""
        at = torch.from_numpy(x)
        names = list(self.values(at))
        flat = torch.cat([self.values(at)[name] for name in names])
        slopes = torch.autograd.functional.jacobian(
            lambda y: torch.cat([self.values(y)[name] for name in names]), at
        )
        curvature = torch.autograd.functional.hessian(self.log_likelihood, at)
        information = -torch.as_tensor(curvature)
        root, failed = torch.linalg.cholesky_ex(information)
        verdict, errors = "ok", torch.full_like(flat, math.nan)
        if int(failed) == 0:
            spread = torch.cholesky_inverse(root)
            errors = ((slopes @ spread) * slopes).sum(dim=1).clamp(min=0).sqrt()
        else:
            verdict = "no standard errors: the trials do not determine every parameter"
        keys = [(where, name) for name in names for where in self.trials.conditions]
        share = float(MOST_CONTAMINANTS * torch.sigmoid(at[-1])) if self.contaminants else 0.0
        return Fit(
            model=self.model,
            parameters=dict(zip(keys, flat.tolist(), strict=True)),
            standard_errors=dict(zip(keys, errors.tolist(), strict=True)),
            contaminants=share,
            log_likelihood=float(self.log_likelihood(at)),
            n_parameters=len(x),
            n_trials=len(self.trials),
            trials=self.trials,
            verdict=verdict,
        )


def maximise(
    log_likelihood: Callable[[Tensor], Tensor], start: np.ndarray, *, seed: int, where: str
) -> np.ndarray:
    """The best of several searches.

    Raises:
        SolverError: None of them is finite.
    """
    draw, best, value = np.random.default_rng(seed), None, math.inf

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.from_numpy(np.clip(x, -FURTHEST, FURTHEST)).requires_grad_()
        lost = -log_likelihood(at)
        if not bool(lost.isfinite()):
            return 1e15, np.zeros_like(x)
        (slope,) = torch.autograd.grad(lost, at)
        return float(lost.detach()), np.nan_to_num(slope.numpy())

    for k in range(N_STARTS):
        begun = start if k == 0 else start + draw.normal(0, 0.3, len(start))
        found = minimize(loss, begun, jac=True, method="BFGS", options={"gtol": 1e-5})
        if found.fun < value - 1e-9:
            best, value = found.x, float(found.fun)
    if best is None or value >= 1e15:
        raise SolverError(
            "no start of the search has a finite likelihood",
            where=where,
            fix="look for times that the model cannot give, or fit contaminants",
        )
    return np.clip(best, -FURTHEST, FURTHEST)


def _unbounded(scale: str, value: float) -> float:
    if scale == "positive":
        return math.log(max(value, 1e-6))
    if scale in ("unit", "before"):
        return math.log(value / (1 - value))
    return value
