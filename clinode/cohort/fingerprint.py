"""What a cohort looks like, told without a value of any one subject.

Counts, missingness, quantiles and units of each variable, and one hash of the whole content, so
that two cohorts can be compared and a run can say what it was trained on. Quantiles are given only
where enough subjects stand behind them; minima and maxima never.
"""

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from clinode.cohort.cleaning import FEWEST_SUBJECTS
from clinode.cohort.content import content_hash
from clinode.cohort.names import shown_levels, shown_names
from clinode.cohort.variables import find_static

if TYPE_CHECKING:
    from clinode.cohort.cohort import Cohort, CohortArrays
    from clinode.cohort.schema import Variable

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def fingerprint(
    cohort: "Cohort", until: Float[np.ndarray, " subject"] | None = None
) -> dict[str, Any]:
    """Describe a cohort in plain numbers and strings.

    Args:
        cohort: What is described.
        until: Hours up to which observations and treatments of each subject count; all by default.

    Returns:
        n_subjects, n_observations, per variable (unit, how many observations and subjects, share of
        the subjects without any, quantiles), statics, inputs, outcomes, quantiles of the gaps
        between a subject's times and of its last time in hours, and the SHA-256 of the content
        (of all of it, whatever `until` is).
    """
    arrays = arrays_until(cohort, until)
    n_subjects = len(cohort)
    last = arrays.time[arrays.row_start[1:][np.diff(arrays.row_start) > 0] - 1]
    return {
        "n_subjects": _count(n_subjects),
        "n_observations": len(arrays.time),
        "n_inputs": len(arrays.input_value),
        "time_unit": cohort.time_unit,
        "variables": _describe(
            cohort.schema.variables,
            arrays.variable_index,
            arrays.subject_index,
            arrays.value,
            n_subjects,
        ),
        "inputs": _describe(
            cohort.schema.inputs,
            arrays.input_variable_index,
            arrays.input_subject_index,
            arrays.input_value,
            n_subjects,
        ),
        "statics": _describe_statics(cohort),
        "outcomes": _describe_outcomes(cohort),
        "gaps": _quantiles(*_gaps(arrays)),
        "last_time": _quantiles(last, np.arange(len(last))),
        "sha256": content_hash(cohort),
    }


def arrays_until(cohort: "Cohort", until: Float[np.ndarray, " subject"] | None) -> "CohortArrays":
    """The cohort's arrays without what was observed, or began to be given, after these hours."""
    arrays = cohort.arrays()
    if until is None:
        return arrays
    seen = arrays.time <= until[arrays.subject_index]
    given = arrays.input_start <= until[arrays.input_subject_index]
    counts = np.bincount(arrays.subject_index[seen], minlength=len(cohort))
    held = {
        name: part[given if name.startswith("input_") else seen]
        for name, part in vars(arrays).items()
        if name != "row_start"
    }
    return replace(arrays, **held, row_start=np.concatenate([[0], np.cumsum(counts)]))


def _describe(
    variables: "tuple[Variable, ...]",
    index: np.ndarray,
    subject: np.ndarray,
    value: np.ndarray,
    n_subjects: int,
) -> list[dict[str, Any]]:
    order = np.argsort(index, kind="stable")
    ends = np.searchsorted(index[order], np.arange(len(variables) + 1))
    described = []
    whose = [len(np.unique(subject[order[start:end]])) for start, end in pairwise(ends)]
    shown = shown_names({v.name: n for v, n in zip(variables, whose, strict=True)})
    for position, variable in enumerate(variables):
        rows = order[ends[position] : ends[position + 1]]
        n_with = whose[position]
        described.append(
            {
                "name": shown[variable.name],
                "unit": variable.unit,
                "n": len(rows),
                "n_subjects": _count(n_with),
                "missing": _share(n_subjects - n_with, n_subjects),
                "quantiles": _quantiles(value[rows], subject[rows]),
            }
        )
    return described


def _describe_statics(cohort: "Cohort") -> list[dict[str, Any]]:
    described = []
    for variable in cohort.schema.statics:
        column = cohort.statics[variable.name]
        known = column.notna().to_numpy()
        entry: dict[str, Any] = {
            "name": variable.name,
            "unit": variable.unit,
            "missing": _share(int((~known).sum()), len(known)),
        }
        if variable.kind in ("categorical", "binary"):
            held = column[known].tolist()
            counts = {str(level): held.count(level) for level in sorted(set(held))}
            shown = shown_levels(counts, find_static(variable.name).levels)
            pooled: dict[str, int] = {}
            for level, n in counts.items():
                pooled[shown[level]] = pooled.get(shown[level], 0) + n
            entry["levels"] = {level: _count(n) for level, n in pooled.items()}
        else:
            entry["quantiles"] = _quantiles(
                column.to_numpy(dtype=np.float64)[known], np.flatnonzero(known)
            )
        described.append(entry)
    return described


def _describe_outcomes(cohort: "Cohort") -> list[dict[str, Any]]:
    described = []
    outcomes = cohort.outcomes
    for name in cohort.schema.outcomes:
        value = outcomes[name].to_numpy(dtype=np.float64)
        value = value[~np.isnan(value)]
        entry: dict[str, Any] = {"name": name, "n": _count(len(value))}
        if np.isin(value, (0.0, 1.0)).all():
            entry["n_positive"] = _count(int(value.sum()))
        described.append(entry)
    return described


def _gaps(arrays: "CohortArrays") -> tuple[np.ndarray, np.ndarray]:
    """Hours between neighbouring different times of a subject, and whose they are."""
    gap = np.diff(arrays.time)
    same = (np.diff(arrays.subject_index) == 0) & (gap > 0)
    return gap[same], arrays.subject_index[1:][same]


def _quantiles(value: np.ndarray, subject: np.ndarray) -> dict[str, float] | None:
    """Quantiles, each only where at least `FEWEST_SUBJECTS` subjects lie on either side of it."""
    if len(np.unique(subject)) < FEWEST_SUBJECTS:
        return None
    shown = {}
    for share, edge in zip(QUANTILES, np.quantile(value, QUANTILES), strict=True):
        sides = (subject[value <= edge], subject[value >= edge])
        if all(len(np.unique(side)) >= FEWEST_SUBJECTS for side in sides):
            shown[f"{share:g}"] = float(edge)
    return shown or None


def _count(number: int) -> int | str:
    return number if number == 0 or number >= FEWEST_SUBJECTS else f"1-{FEWEST_SUBJECTS - 1}"


def _share(part: int, whole: int) -> float | None:
    """A share, unless it would give a small count away."""
    is_small = 0 < part < FEWEST_SUBJECTS or 0 < whole - part < FEWEST_SUBJECTS
    return None if whole == 0 or is_small else part / whole
