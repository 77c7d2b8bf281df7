"""Hyper-parameter search: trials drawn from a declared space, scored on the tuning part.

Drawn at random, each trial by its own number, so that a search can be stopped, resumed, extended
and spread over processes without changing any of them. `search_optuna` asks Optuna instead.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clinode.cohort import Cohort, Task
from clinode.errors import ArgumentError, SolverError
from clinode.folder import read_json, write_json
from clinode.sequence import SequenceModel, model_from_config
from clinode.training.call import describe_call, refuse_other_call
from clinode.training.config import FitConfig
from clinode.training.cross_validate import side_by_side
from clinode.training.fit import fit
from clinode.training.optimise import keyed_seed
from clinode.training.run import Run, load_run

Setting = int | float | str


class Dimension(ABC):
    """What one setting may be."""

    @abstractmethod
    def draw(self, generator: np.random.Generator) -> Setting:
        """One value."""


@dataclass(frozen=True)
class Choice(Dimension):
    """One of some values, each as likely."""

    values: Sequence[Setting]

    def __post_init__(self):
        if not len(self.values):
            raise ArgumentError("a choice needs at least one value")

    def draw(self, generator: np.random.Generator) -> Setting:
        return self.values[int(generator.integers(len(self.values)))]


@dataclass(frozen=True)
class Uniform(Dimension):
    """A number between two, each as likely; on a logarithmic scale with `log`."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self):
        _check_bounds(self.low, self.high, log=self.log)

    def draw(self, generator: np.random.Generator) -> Setting:
        if self.log:
            return float(np.exp(generator.uniform(math.log(self.low), math.log(self.high))))
        return float(generator.uniform(self.low, self.high))


@dataclass(frozen=True)
class Integers(Dimension):
    """A whole number from `low` to `high`, both included; on a logarithmic scale with `log`."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self):
        if not (isinstance(self.low, int) and isinstance(self.high, int)):
            raise ArgumentError("the bounds of whole numbers are whole numbers")
        _check_bounds(self.low, self.high, log=self.log)

    def draw(self, generator: np.random.Generator) -> Setting:
        if not self.log:
            return int(generator.integers(self.low, self.high + 1))
        bounds = math.log(self.low), math.log(self.high + 1)
        return min(int(np.exp(generator.uniform(*bounds))), self.high)


Space = Mapping[str, Dimension]
"""Dimensions by setting: "model.latent", "fit.learning_rate"."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Search:
    """What a search found.

    Args:
        folder: Holds one run a trial, `trial-0` and so on, beside it `trial-0.json` with its score,
            written as soon as it has ended, and at the end `search.json` with all of them.
        trials: One row a trial: its number, its settings, its score (the least loss on the tuning
            part), the epoch of it, and its status, "done" or "diverged".
    """

    folder: Path
    trials: pd.DataFrame

    @property
    def best(self) -> Run:
        """The run with the least score.

        Raises:
            SolverError: Every trial diverged.
        """
        scored = self.trials.dropna(subset=["score"])
        if not len(scored):
            raise SolverError(
                "every trial of the search diverged", fix="search lower learning rates"
            )
        number = int(scored.loc[scored["score"].idxmin(), "trial"])
        return load_run(self.folder / f"trial-{number}")

    def to_pandas(self) -> pd.DataFrame:
        """The trials, the best first; those that diverged last."""
        return self.trials.sort_values("score", kind="stable", ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """The trials as plain records."""
        plain = self.trials.astype(object).where(self.trials.notna(), None)
        return {"trials": plain.to_dict("records")}


def search(
    model: SequenceModel,
    train: Cohort,
    tune: Cohort,
    *,
    task: Task,
    space: Space,
    out: Path | str,
    n_trials: int = 20,
    seed: int = 0,
    device: str = "auto",
    config: FitConfig | None = None,
    n_jobs: int = 1,
) -> Search:
    """Fit a model with settings drawn at random, and say which did best on the tuning part.

    Trial k is the same in every search of this seed and space, however many trials there are; one
    that has ended, diverged ones included, is not fitted again. The score of the best is
    flattering, since it was chosen by it: evaluate on subjects that took no part.

    Args:
        model: What is not searched stays as it is here.
        train, tune: The parts; every trial is scored on `tune`.
        task: What to predict.
        space: What is searched.
        out: Folder of the trials.
        n_trials: How many.
        seed: Of the settings and of every fit.
        device: "auto", "cpu" or "cuda".
        config: The schedule; None takes what is recommended for the task.
        n_jobs: Trials at the same time, through joblib.

    Raises:
        ArgumentError: A setting that neither the model nor `FitConfig` has, or no trial.
        OutputError: `out` holds trials of another call.
    """
    trials = Trials(model, train, tune, task, Path(out).resolve(), seed, device, config)
    trials.check(space)
    if n_trials < 1:
        raise ArgumentError(f"n_trials must be at least 1, got {n_trials}")
    rows = side_by_side(
        lambda number: trials.row(number, _drawn(space, seed, number)), range(n_trials), n_jobs
    )
    return trials.finish(rows)


@dataclass(frozen=True, eq=False)
class Trials:
    """How a trial is fitted and scored, whoever chooses its settings."""

    model: SequenceModel
    train: Cohort
    tune: Cohort
    task: Task
    out: Path
    seed: int
    device: str
    config: FitConfig | None

    def check(self, space: Space) -> None:
        """Refuse settings that there are not.

        Raises:
            ArgumentError: Names it.
        """
        schedule = FitConfig.recommended(self.task) if self.config is None else self.config
        known = {f"model.{name}" for name in self.model.config() if name != "name"}
        known |= {f"fit.{name}" for name in schedule.to_dict()}
        unknown = sorted(set(space) - known)
        if unknown or not space:
            raise ArgumentError(
                f"no setting {unknown[0]!r} to search" if unknown else "nothing to search",
                fix=f"choose among {', '.join(sorted(known))}",
            )

    def row(self, number: int, settings: Mapping[str, Setting]) -> dict[str, Any]:
        """A trial: its number, settings, score and status."""
        own = {k.removeprefix("model."): v for k, v in settings.items() if k.startswith("model.")}
        schedule = FitConfig.recommended(self.task) if self.config is None else self.config
        changed: dict[str, Any] = {
            k.removeprefix("fit."): v for k, v in settings.items() if k.startswith("fit.")
        }
        config = FitConfig.from_dict({**schedule.to_dict(), **changed})
        model = model_from_config({**self.model.config(), **own})
        parts = {"train": self.train.fingerprint(), "tune": self.tune.fingerprint()}
        call = describe_call(model, parts, self.task, self.seed, config)
        written = self.out / f"trial-{number}.json"
        if written.exists():
            stored = read_json(written)
            refuse_other_call(written.name, stored["call"], call)
            found = stored["found"]
        else:
            found = self._score(number, model, config)
            write_json(written, {"call": call, "found": found})
        score, epoch, status = found["score"], found["epoch"], found["status"]
        return {"trial": number, **settings, "score": score, "epoch": epoch, "status": status}

    def _score(self, number: int, model: SequenceModel, config: FitConfig) -> dict[str, Any]:
        """The least loss on the tuning part, and the epoch of it."""
        try:
            run = fit(
                model,
                self.train,
                self.tune,
                task=self.task,
                out=self.out / f"trial-{number}",
                seed=self.seed,
                device=self.device,
                config=config,
                progress=False,
            )
        except SolverError:
            return {"score": None, "epoch": None, "status": "diverged"}
        best = min(run.metrics["curve"], key=lambda epoch: epoch["tune_loss"])
        return {"score": best["tune_loss"], "epoch": best["epoch"], "status": "done"}

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> Search:
        """The search of these trials, written down."""
        table = pd.DataFrame(rows).astype({"score": "float64"})
        found = Search(folder=self.out, trials=table)
        write_json(self.out / "search.json", found.to_dict())
        return found


def _drawn(space: Space, seed: int, number: int) -> dict[str, Setting]:
    generator = np.random.default_rng(keyed_seed(seed, "trial", number))
    return {name: space[name].draw(generator) for name in sorted(space)}


def _check_bounds(low: float | int, high: float | int, *, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ArgumentError(f"bounds must be finite and in order, got {low} and {high}")
    if log and low <= 0:
        raise ArgumentError(f"a logarithmic scale starts above 0, got {low}")
