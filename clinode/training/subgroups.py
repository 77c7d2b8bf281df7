"""Metrics of a classification by age, sex and other groups that the statics name.

A count from 1 to 10 is neither shown nor derivable from the others.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from clinode.cohort import Cohort
from clinode.cohort.names import shown_levels
from clinode.cohort.variables import STATICS
from clinode.evaluation import ClassificationEvaluation, evaluate_classification
from clinode.evaluation import hide_small as hidden_counts
from clinode.evaluation.disclosure import SMALLEST_CELL
from clinode.training.task_work import Resampling

AGE_BANDS = (45.0, 65.0, 80.0)  # years at which one band ends and the next begins
_SHOWN_OF_SUBGROUPS = ("auroc", "auprc", "brier", "ece")


def evaluate_subgroups(
    cohort: Cohort,
    subject: np.ndarray,
    outcome: np.ndarray,
    probability: np.ndarray,
    units: np.ndarray,
    options: Resampling,
) -> tuple[dict[str, Any], ...]:
    """One row a subgroup: `group`, `n`, `n_events` and metrics; None where a cell is too small.

    Counts are of subjects, so that many prediction times of few do not make a group look large: `n`
    has a known outcome at one of them, and `n_events` had the outcome at one.

    Args:
        cohort: Whose statics name the groups.
        subject: (record,) position of its subject.
        outcome: (record,) 0, 1 or NaN where unknown.
        probability: (record,) predicted.
        units: (record,) what is resampled.
        options: Of the intervals.
    """
    rows = []
    for name, levels in subgroup_levels(cohort).items():
        level_of_record = levels[subject]
        known = ~np.isnan(outcome)
        own = []
        for level in sorted(set(level_of_record[known])):
            held = known & (level_of_record == level)
            part = evaluate_classification(
                outcome[held], probability[held], subjects=units[held], **options
            )
            had_it = np.unique(units[held & (outcome == 1)])
            own.append(_subgroup_row(f"{name}: {level}", part, len(had_it)))
        rows.extend(hide_small(own))
    return tuple(rows)


def _subgroup_row(group: str, part: ClassificationEvaluation, n_events: int) -> dict[str, Any]:
    metrics = {name: part.metrics[name] for name in _SHOWN_OF_SUBGROUPS}
    return {"group": group, "n": part.n_subjects, "n_events": n_events, **metrics}


def hide_small(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Levels of one subgroup without any count from 1 to 10, shown or derivable from the others.

    Where positives or negatives are few the metrics go too: they are noise, and tell the count.
    Where the others would give a hidden count away, the next smallest is hidden as well
    (`clinode.evaluation.hide_small`); its metrics stay.
    """
    n = np.array([row["n"] for row in rows])
    events = np.array([row["n_events"] for row in rows])
    few = np.minimum(events, n - events) < SMALLEST_CELL
    hide_n = hidden_counts(n)
    hide_events = hidden_counts(events, n, unknown=hide_n | few)
    hidden = []
    for position, row in enumerate(rows):
        shown = dict(row)
        if hide_n[position]:
            shown["n"] = None
        if hide_events[position]:
            shown["n_events"] = None
        if few[position]:
            shown |= dict.fromkeys(_SHOWN_OF_SUBGROUPS)
        hidden.append(shown)
    return hidden


def subgroup_levels(cohort: Cohort) -> dict[str, np.ndarray]:
    """By label, the level of each subject: bands of age, those of binary and categorical statics.

    Subjects of whom it is not known are "missing".
    """
    found = {}
    for variable in cohort.schema.statics:
        if cohort.statics is None or variable.name not in cohort.statics.columns:
            continue
        column = cohort.statics[variable.name]
        if variable.name.lower() == "age":
            levels = _age_bands(column.to_numpy(dtype=np.float64, na_value=np.nan))
        elif variable.kind in ("binary", "categorical"):
            words = {number: word for word, number in reversed(variable.words)}  # the first word
            levels = _pooled(np.array([_level(value, words) for value in column], dtype=object))
        else:
            continue
        label = variable.label or variable.name
        if variable.words:
            label = label.partition(" (")[0]  # what the numbers mean is said by the words
        found[label] = levels.astype(object)
    return found


def _pooled(levels: np.ndarray) -> np.ndarray:
    """The levels, those that few subjects have as one: their texts may be of one subject alone."""
    known = ("missing", *(level for static in STATICS.values() for level in static.levels))
    words = tuple(word for static in STATICS.values() for word, _ in static.words)
    names, counts = np.unique(levels.astype(str), return_counts=True)
    shown = shown_levels(dict(zip(names.tolist(), counts.tolist(), strict=True)), (*known, *words))
    return np.array([shown[str(level)] for level in levels], dtype=object)


def _age_bands(age: np.ndarray) -> np.ndarray:
    words = [f"below {AGE_BANDS[0]:g}"]
    words += [f"{a:g} to {b - 1:g}" for a, b in pairwise(AGE_BANDS)]
    words += [f"{AGE_BANDS[-1]:g} and above", "missing"]
    band = np.searchsorted(AGE_BANDS, age, side="right")
    return np.array(words, dtype=object)[np.where(np.isnan(age), len(words) - 1, band)]


def _level(value: Any, words: Mapping[float, str]) -> str:
    if pd.isna(value):
        return "missing"
    if isinstance(value, int | float):
        return words.get(float(value), f"{value:g}")
    return str(value)
