"""Run methods over sets and folds, and say how right, how complete and how costly each map is."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clinode.attribution.bench.problem import Problem
from clinode.attribution.bench.recurrent import RecurrentConfig
from clinode.attribution.bench.row import HEADLINES, BenchRow
from clinode.attribution.bench.scores import score_map, unmeasured_share
from clinode.attribution.bench.sets import IRREGULAR, SETS, SMALL, draw_irregular
from clinode.attribution.bench.through import FittedFamily, check_family
from clinode.attribution.function import attribute
from clinode.attribution.methods import COALITIONS, check_method
from clinode.errors import ArgumentError
from clinode.training import FitConfig

DEFAULT_METHODS = (
    "integrated_gradients",
    "captum_integrated_gradients",
    "gradient_shap",
    "saliency",
    "event_deletion",
)
"""Methods that every set can afford; "shapley" takes minutes on the dense ones."""

_DRAWS = 50  # of "gradient_shap", as in the published runs


@dataclass(frozen=True)
class AttributionBench:
    """What was measured, a row a set, method and fold."""

    rows: tuple[BenchRow, ...]

    def to_pandas(self) -> pd.DataFrame:
        """One row a set, method and fold."""
        return pd.DataFrame([row.to_dict() for row in self.rows])

    def summary(self) -> pd.DataFrame:
        """Means over folds, with the standard deviation of AUPRC (NaN with one fold)."""
        table = self.to_pandas()
        numbers = [*HEADLINES, "gap", "withheld", "unmeasured", "rows", "seconds", "off"]
        table[numbers] = table[numbers].apply(pd.to_numeric)
        groups = table.groupby(["set", "through", "method"], sort=False)
        found = pd.DataFrame(groups[numbers].mean())
        found.insert(1, "auprc_sd", groups["auprc"].std().to_numpy())
        found["folds"] = groups.size().to_numpy()
        found["why"] = groups["why"].first().to_numpy()
        return found.reset_index()

    def to_dict(self) -> dict[str, Any]:
        """Plain lists; None where a number is undefined."""
        plain = self.summary().astype(object)
        return {
            "summary": plain.where(plain.notna(), None).to_dict("records"),
            "folds": [row.to_dict() for row in self.rows],
        }


def bench_attribution(
    sets: Sequence[str] | None = None,
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    folds: int = 5,
    seed: int = 0,
    quick: bool = False,
    network: RecurrentConfig = SMALL,
    through: str | None = None,
    fit: FitConfig | None = None,
    progress: Callable[[str], None] | None = None,
) -> AttributionBench:
    """Compare attributions with causes that are known, over draws of each set.

    A fold is a new draw of the data, and of the network that is fitted to them.

    Args:
        sets: Names of `SETS`; None for all, or for all irregular records where `through` is said.
        methods: Names of `clinode.attribution.METHODS`.
        folds: Draws of each set.
        seed: Of the first draw; the others follow.
        quick: Small sets and few epochs: shows that everything runs, its numbers mean little.
        network: How the networks of the sets with labels are built and fitted.
        through: A family of `clinode.sequence.MODELS`, fitted to the same irregular records by
            `clinode.fit` and explained by `clinode.explain`: how the whole path does. None explains
            the small network of each set.
        fit: How the family is fitted; None takes what `clinode.fit` takes.
        progress: Called with a line about what happens.

    Raises:
        ArgumentError: An unknown set, method or family, or no fold; a set whose records are not
            irregular, where `through` is said.
    """
    whole = SETS if through is None else IRREGULAR
    names = list(whole) if sets is None else list(dict.fromkeys(sets))
    for name in names:
        if name not in SETS:
            raise ArgumentError(f"unknown set {name!r}; there are: {', '.join(SETS)}")
        if name not in whole:
            raise ArgumentError(
                f"the set {name!r} is no cohort that a family can be fitted to",
                fix=f"take some of {', '.join(whole)}",
            )
    for method in methods:
        check_method(method)
    if not names or not methods:
        raise ArgumentError("there is no set or no method to run")
    if through is not None:
        check_family(through)
    if folds < 1:
        raise ArgumentError(f"folds must be at least 1, got {folds}")
    tell = progress or (lambda line: None)
    config = RecurrentConfig(hidden=8, epochs=2, learning_rate=1e-2) if quick else network
    rows = []
    for name in names:
        for fold in range(folds):
            where = f"{name}, fold {fold + 1} of {folds}"
            if through is not None:
                tell(f"{where}: drawing, and fitting {through}")
                fitted = _fitted(name, through, seed + fold, quick, fit)
                for method in dict.fromkeys(methods):
                    tell(f"{where}: {method}")
                    rows.append(fitted.row(method, fold=fold, seed=seed + fold))
                continue
            tell(f"{where}: drawing{' and fitting' if SETS[name].is_learned else ''}")
            views = SETS[name].make(seed + fold, quick, config, None)
            for method in dict.fromkeys(methods):
                tell(f"{where}: {method}")
                view = "deletion" if method in COALITIONS and "deletion" in views else "events"
                rows.append(measure(views[view], method, fold=fold, seed=seed + fold))
    return AttributionBench(tuple(rows))


def _fitted(
    name: str, family: str, seed: int, quick: bool, config: FitConfig | None
) -> FittedFamily:
    records, n_train, n_explained = draw_irregular(name, seed, quick)
    schedule = FitConfig(epochs=2) if quick and config is None else config
    return FittedFamily(
        name,
        family,
        records,
        n_train=n_train,
        n_explained=n_explained,
        config=schedule,
        seed=seed,
    )


def measure(problem: Problem, method: str, *, fold: int = 0, seed: int = 0) -> BenchRow:
    """Explain a problem by one method and score the map."""
    started = time.perf_counter()
    values, gap, withheld, used = [], [], [], []
    reference, why = problem.reference, ""
    try:
        for rows, function in problem.pieces:
            x, baseline = problem.x[rows], reference[rows]
            found = attribute(function, x, baseline, method=method, n_samples=_DRAWS, seed=seed)
            values.append(found.values.numpy())
            gap.append(found.gap)
            withheld.append(found.withheld)
            used.append(found.rows_used)
    except ArgumentError as refused:
        why = str(refused)
    seconds = (time.perf_counter() - started) / len(problem.x)
    told = {"set": problem.name, "method": method, "fold": fold, "facts": problem.facts or {}}
    if why:
        return BenchRow.refused(**told, why=why)
    entries = np.concatenate(values)
    cells = problem.of_cells(entries)
    off = None if problem.exact is None else float(np.nanmax(np.abs(cells - problem.exact)))
    return BenchRow(
        **told,
        scores=score_map(cells, problem.truth, problem.measured),
        gap=float(np.median(np.concatenate(gap))),
        withheld=float(np.concatenate(withheld).mean()),
        unmeasured=unmeasured_share(cells, problem.measured),
        rows=float(np.median(np.concatenate(used))),
        seconds=seconds,
        off=off,
    )
