"""Page 5: the same questions for each group of subjects, with no small group shown or derivable."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clinode.cohort.fingerprint import arrays_until
from clinode.errors import printable
from clinode.evaluation import at_threshold, evaluate_classification, hide_small
from clinode.evaluation.disclosure import SMALLEST_CELL
from clinode.report.charts import Dots, dot_chart
from clinode.report.material import SEED, Material
from clinode.report.tables import DASH, NOT_SHOWN, Cell, Table, interval
from clinode.report.wording import percent, significant
from clinode.statistics import Estimate, bootstrap
from clinode.training.drift import seen_until
from clinode.training.subgroups import subgroup_levels

FILE = "subgroups.html"
MOST_LEVELS = 12  # of one static; the others are pooled
MOST_VARIABLES = 15
N_RESAMPLES = 500  # of each group


@dataclass(frozen=True, eq=False)
class Grouping:
    """One way to divide the subjects.

    Args:
        name: Of the static.
        levels: Its levels, in order.
        level: (subject,) position of each subject's level.
    """

    name: str
    levels: tuple[str, ...]
    level: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """(level,) subjects of the cohort."""
        return np.bincount(self.level, minlength=len(self.levels))


@dataclass(frozen=True)
class Measured:
    """What is told of one group; None where it may not be shown.

    Args:
        group: Its name.
        n, events: Subjects with a known outcome, and with the outcome.
        auroc, calibration: Discrimination, and calibration in the large (logit).
        missed, false: Share of those with the outcome who got no alert, and of those without it
            who got one.
    """

    group: str
    n: int | None
    events: int | None
    auroc: Estimate | None
    calibration: Estimate | None
    missed: Estimate | None
    false: Estimate | None


def subgroups_page(material: Material) -> dict[str, Any]:
    """What the template prints."""
    groupings = find_groupings(material)
    page: dict[str, Any] = {"threshold": percent(material.threshold[0]), "chart": None}
    page["measured"] = []
    page["tables"], page["n_hidden"] = [], 0
    page["missing"] = _missing_tables(material, groupings)
    page["attribution"] = _attribution_tables(material, groupings)
    page["names"] = [grouping.name for grouping in groupings]
    if material.scored is None or not groupings:
        page["why"] = (
            "this cohort carries no outcomes to compare with."
            if groupings
            else "the statics name no age, sex, type of unit or other groups."
        )
        return page
    measured = {g.name: measure_groups(material, g) for g in groupings}
    rows = [row for found in measured.values() for row in found]
    page["why"] = ""
    page["measured"] = rows
    page["chart"] = _chart(rows)
    page["tables"] = [_table(name, found) for name, found in measured.items()]
    page["n_hidden"] = sum(row.auroc is None for row in rows)
    return page


def find_groupings(material: Material) -> list[Grouping]:
    """How the statics divide the subjects; levels beyond the largest twelve are pooled."""
    found = []
    for name, words in subgroup_levels(material.cohort).items():
        levels, counts = np.unique(words.astype(str), return_counts=True)
        if len(levels) > MOST_LEVELS:
            kept = set(levels[np.argsort(-counts, kind="stable")][: MOST_LEVELS - 1])
            others = f"other levels ({len(levels) - len(kept)})"
            words = np.array([w if w in kept else others for w in words.astype(str)])
            levels = np.array([*sorted(kept), others])
        if len(levels) < 2:
            continue
        levels = sorted(levels, key=_order)
        position = {level: k for k, level in enumerate(levels)}
        found.append(
            Grouping(
                printable(name),
                tuple(printable(level) for level in levels),
                np.array([position[str(word)] for word in words]),
            )
        )
    return found


def measure_groups(material: Material, grouping: Grouping) -> list[Measured]:
    """Every group of one grouping; a count that is small, or could be worked out, is None."""
    level = grouping.level[material.subject]
    alert = material.predicted >= material.threshold[0]
    had = material.observed == 1
    masks = [level == k for k in range(len(grouping.levels))]

    def subjects(which: np.ndarray) -> np.ndarray:
        return np.array([len(np.unique(material.subject[mask & which])) for mask in masks])

    everybody = np.ones(len(level), dtype=bool)
    n, events = subjects(everybody), subjects(had)
    few = np.minimum(events, n - events) < SMALLEST_CELL
    hide_n = hide_small(n)
    hide_events = hide_small(np.minimum(events, n), n, unknown=hide_n | few)
    without = subjects(~had)
    missed, false = subjects(had & ~alert), subjects(~had & alert)
    hide_missed = hide_small(np.minimum(missed, events), events, unknown=hide_events)
    hide_false = hide_small(np.minimum(false, without), without, unknown=hide_events)
    rows = []
    for k, (name, mask) in enumerate(zip(grouping.levels, masks, strict=True)):
        told = {} if few[k] else _metrics(material, mask)
        rates = {} if few[k] else _rates(material, mask)
        rows.append(
            Measured(
                group=f"{grouping.name}: {name}",
                n=None if hide_n[k] else int(n[k]),
                events=None if hide_events[k] else int(events[k]),
                auroc=told.get("auroc"),
                calibration=told.get("calibration_intercept"),
                missed=None if hide_missed[k] else rates.get("missed"),
                false=None if hide_false[k] else rates.get("false"),
            )
        )
    return rows


def _metrics(material: Material, mask: np.ndarray) -> dict[str, Estimate]:
    found = evaluate_classification(
        material.observed[mask],
        material.predicted[mask],
        subjects=material.units[mask],
        n_resamples=min(N_RESAMPLES, material.n_resamples),
        seed=SEED,
    )
    return found.metrics


def _rates(material: Material, mask: np.ndarray) -> dict[str, Estimate]:
    found = at_threshold(
        material.observed[mask],
        material.predicted[mask],
        material.threshold[0],
        subjects=material.units[mask],
        n_resamples=min(N_RESAMPLES, material.n_resamples),
        seed=SEED,
    )
    return {"missed": _rest(found["sensitivity"]), "false": _rest(found["specificity"])}


def _rest(share: Estimate) -> Estimate:
    return Estimate(1 - share.value, 1 - share.high, 1 - share.low, share.verdict)


def _table(name: str, rows: list[Measured]) -> Table:
    def told(estimate: Estimate | None, digits: int = 2) -> str:
        return NOT_SHOWN if estimate is None else interval(estimate, digits=digits)

    return Table(
        f"{name}. Value [95 % interval over subjects]",
        [
            "Group",
            "Subjects",
            "With the outcome",
            "AUROC",
            "Calibration in the large",
            "Missed (FNR)",
            "False alerts (FPR)",
        ],
        [
            [
                row.group.partition(": ")[2],
                NOT_SHOWN if row.n is None else f"{row.n:,}",
                NOT_SHOWN if row.events is None else f"{row.events:,}",
                told(row.auroc),
                told(row.calibration),
                told(row.missed),
                told(row.false),
            ]
            for row in rows
        ],
        (1, 2),
    )


def _chart(rows: list[Measured]):
    shown = [row for row in rows if row.auroc is not None]
    if not shown:
        return None

    kinds = ("AUROC", "auroc", (0.4, 1.0), (0.5,)), ("Missed outcomes", "missed", (0.0, 1.0), ())
    kinds += (("False alerts", "false", (0.0, 1.0), ()),)
    told = [kind for kind in kinds if any(getattr(row, kind[1]) is not None for row in shown)]

    def dots(title: str, name: str, within: tuple[float, float], rules: tuple[float, ...]) -> Dots:
        found = [getattr(row, name) or Estimate.undefined("") for row in shown]
        return Dots(
            title=title,
            unit="",
            value=[e.value for e in found],
            low=[e.low for e in found],
            high=[e.high for e in found],
            rules=rules,
            within=within,
        )

    return dot_chart(
        "groups",
        ", ".join(title for title, *_ in told) + " by group",
        f"{len(shown)} groups, each a dot with its 95 % interval. The numbers stand in the tables.",
        [row.group for row in shown],
        [dots(*kind) for kind in told],
    )


def _missing_tables(material: Material, groupings: list[Grouping]) -> list[Table]:
    """Share of the subjects of each group in whom a variable was not measured."""
    cohort = material.cohort
    arrays = arrays_until(cohort, seen_until(cohort, material.run.schema, material.run.task))
    names = [variable.name for variable in cohort.schema.variables]
    has = np.zeros((len(names), len(cohort)), dtype=bool)
    has[arrays.variable_index, arrays.subject_index] = True
    tables = []
    for grouping in groupings:
        sizes = grouping.sizes
        hide_n = hide_small(sizes)
        rows, spread = [], []
        for name, measured in zip(names, has, strict=True):
            lacking = np.bincount(grouping.level[~measured], minlength=len(sizes))
            hidden = hide_small(lacking, sizes, unknown=hide_n)
            share = lacking / np.maximum(sizes, 1)
            rows.append(
                [
                    material.label(name),
                    *(
                        NOT_SHOWN if gone else _shaded(part)
                        for part, gone in zip(share, hidden, strict=True)
                    ),
                ]
            )
            seen = share[~hidden]
            spread.append(seen.max() - seen.min() if len(seen) > 1 else -1.0)
        order = np.argsort(-np.array(spread), kind="stable")[:MOST_VARIABLES]
        tables.append(
            Table(
                f"{grouping.name}: subjects without a value up to the prediction time; the "
                f"{len(order)} variables that differ most",
                ["Variable", *grouping.levels],
                [rows[k] for k in order],
                range(1, len(sizes) + 1),
            )
        )
    return tables


def _shaded(share: float) -> Cell:
    return Cell(f"{100 * share:.0f} %", f"h{min(int(5.999 * share), 5)}")


def _attribution_tables(material: Material, groupings: list[Grouping]) -> list[Table]:
    """Mean absolute contribution of the leading variables in each group."""
    attributions = material.attributions
    top = attributions.by_variable(n_resamples=2).head(MOST_VARIABLES)["variable"].astype(str)
    is_kept = ~attributions.gates["withheld"].to_numpy(dtype=bool)
    subjects = pd.Index(attributions.gates.loc[is_kept, "subject_id"]).unique()
    if not len(subjects) or not len(top):
        return []
    events = attributions.events.astype({"variable": str})
    sums = events.pivot_table(
        index="subject_id", columns="variable", values="attribution", aggfunc="sum", observed=True
    )
    size = sums.reindex(index=subjects, columns=list(top)).abs().fillna(0.0).to_numpy()
    place = pd.Index(material.cohort.subjects).get_indexer(subjects)
    tables = []
    for grouping in groupings:
        level = grouping.level[place]
        counts = np.bincount(level, minlength=len(grouping.levels))
        cells = [
            _means(size[level == k], material.n_resamples)
            if counts[k] >= SMALLEST_CELL
            else [NOT_SHOWN] * len(top)
            for k in range(len(grouping.levels))
        ]
        if (counts >= SMALLEST_CELL).any():
            tables.append(
                Table(
                    f"{grouping.name}: mean absolute contribution in log-odds [95 % interval over "
                    "subjects]",
                    ["Variable", *grouping.levels],
                    [
                        [material.label(name), *(cell[row] for cell in cells)]
                        for row, name in enumerate(top)
                    ],
                    range(1, len(grouping.levels) + 1),
                )
            )
    return tables


def _means(size: np.ndarray, n_resamples: int) -> list[str]:
    statistics = {
        str(k): (lambda weights, own=own: weights @ own / weights.sum(axis=1))
        for k, own in enumerate(size.T)
    }
    sample = bootstrap(
        statistics, np.arange(len(size)), n_resamples=min(N_RESAMPLES, n_resamples), seed=SEED
    )
    found = [sample.estimate(name) for name in statistics]
    return [
        f"{significant(e.value)} [{significant(e.low)}, {significant(e.high)}]"
        if np.isfinite(e.low)
        else DASH
        for e in found
    ]


def _order(level: str) -> tuple[int, str]:
    """Bands of age from below upwards, what is pooled or missing last."""
    last = level == "missing" or level.startswith("other levels (")
    return (2 if last else 0 if level.startswith("below ") else 1, level)
