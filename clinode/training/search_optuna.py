"""The search of `search`, with Optuna choosing the settings of each trial from those before."""

from pathlib import Path
from typing import Any

from clinode.cohort import Cohort, Task
from clinode.errors import ArgumentError
from clinode.sequence import SequenceModel
from clinode.training.config import FitConfig
from clinode.training.search import Choice, Integers, Search, Space, Trials, Uniform


def search_optuna(
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
    study: Any = None,
) -> Search:
    """As `search`, one trial after the other, by Optuna's tree-structured Parzen estimator.

    Args:
        model, train, tune, task, space, out, n_trials, seed, device, config: As of `search`.
        study: An Optuna study that minimises, with a sampler of its own, which goes on where it
            stands and numbers the trials; None makes one with this seed.

    Raises:
        ArgumentError: As `search`; Optuna is not installed.
        OutputError: `out` holds trials of another call.
    """
    try:
        import optuna  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError:
        raise ArgumentError(
            "search_optuna needs the package optuna", fix="install the extra: clinode[hpo]"
        ) from None
    trials = Trials(model, train, tune, task, Path(out).resolve(), seed, device, config)
    trials.check(space)
    if study is None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    distributions = {name: _distribution(optuna, space[name]) for name in sorted(space)}
    rows = []
    for _ in range(n_trials):
        asked = study.ask(distributions)
        row = trials.row(asked.number, asked.params)
        diverged = row["status"] == "diverged"
        state = optuna.trial.TrialState.FAIL if diverged else optuna.trial.TrialState.COMPLETE
        study.tell(asked, None if diverged else row["score"], state=state)
        rows.append(row)
    return trials.finish(rows)


def _distribution(optuna: Any, dimension: object) -> Any:
    kinds = optuna.distributions
    if isinstance(dimension, Choice):
        return kinds.CategoricalDistribution(list(dimension.values))
    if isinstance(dimension, Integers):
        return kinds.IntDistribution(dimension.low, dimension.high, log=dimension.log)
    if isinstance(dimension, Uniform):
        return kinds.FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    raise ArgumentError(
        f"Optuna has no {type(dimension).__name__}", fix="use Choice, Integers or Uniform"
    )
