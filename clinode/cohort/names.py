"""Which names of a cohort may be shown to those who may not see its records.

A name of a variable, a treatment or a category comes from a cell, and a person may have typed
anything there. What many subjects share is a name. What few have is shown only where it reads like
one: three words or more, a date, an address or a long number may be a note on a subject.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from clinode.cohort.cleaning import FEWEST_SUBJECTS
from clinode.cohort.sources import is_number
from clinode.cohort.variables import find_variable
from clinode.errors import masked_text

if TYPE_CHECKING:
    from clinode.cohort.cohort import Cohort

FREE_TEXT = "free text"
OTHER_LEVELS = "other levels"
MOST_WORDS = 2
MOST_LETTERS = 40


def reads_as_name(name: str) -> bool:
    """Whether a text reads as the name of a quantity, and not as a note.

    Example:
        >>> [reads_as_name(text) for text in ("Troponin Q", "seen by Dr Smith", "ring 0171-555-01")]
        [True, False, False]
    """
    is_shipped = bool(find_variable(name).loinc)
    is_code = "//" in name and " " not in name  # such as MEDS has, with long numbers
    is_short = len(name.split()) <= MOST_WORDS and len(name) <= MOST_LETTERS
    return is_shipped or is_code or (is_short and masked_text(name) == name)


def shown_names(n_subjects: Mapping[str, int]) -> dict[str, str]:
    """What each name is shown as: itself, or "free text 1", "free text 2", ... in their order.

    Args:
        n_subjects: How many subjects have each.

    Example:
        >>> shown_names({"HR": 900, "fell, see note of 3 May": 1})
        {'HR': 'HR', 'fell, see note of 3 May': 'free text 1'}
    """
    shown: dict[str, str] = {}
    for name, count in n_subjects.items():
        if count >= FEWEST_SUBJECTS or reads_as_name(name):
            shown[name] = name
        else:
            shown[name] = f"{FREE_TEXT} {1 + len(shown) - sum(k == v for k, v in shown.items())}"
    return shown


def shown_levels(n_subjects: Mapping[str, int], known: Iterable[object] = ()) -> dict[str, str]:
    """What each level of a category is shown as: those of few subjects are pooled.

    Args:
        n_subjects: How many subjects have each.
        known: Levels that are declared, and no text of a subject. Numbers are none either.

    Example:
        >>> shown_levels({"ward A": 40, "by the window": 1, "3": 2})
        {'ward A': 'ward A', 'by the window': 'other levels', '3': '3'}
    """
    declared = {str(level) for level in known}
    return {
        level: level
        if count >= FEWEST_SUBJECTS or level in declared or is_number(level)
        else OTHER_LEVELS
        for level, count in n_subjects.items()
    }


def shown_name(name: str, shown: Mapping[str, str] = MappingProxyType({})) -> str:
    """What a name is shown as: as counted, and without a count itself where it reads as a name."""
    return shown[name] if name in shown else name if reads_as_name(name) else FREE_TEXT


def names_of(cohort: "Cohort") -> dict[str, str]:
    """What each variable and treatment of a cohort is shown as."""
    arrays = cohort.arrays()
    schema = cohort.schema
    measured = _counts(
        (v.name for v in schema.variables), arrays.variable_index, arrays.subject_index
    )
    given = _counts(
        (v.name for v in schema.inputs), arrays.input_variable_index, arrays.input_subject_index
    )
    return {**shown_names(given), **shown_names(measured)}


def trained_names(fingerprint: Mapping[str, Any]) -> dict[str, str]:
    """Names that the fingerprint of a training part shows, each as itself."""
    part = fingerprint.get("train") or {}
    entries = [entry for key in ("variables", "inputs") for entry in part.get(key, ())]
    return {str(entry["name"]): str(entry["name"]) for entry in entries}


def _counts(names: Iterable[str], index: np.ndarray, subject: np.ndarray) -> dict[str, int]:
    """How many subjects have each, in the order of the names."""
    pairs = np.unique(np.stack([index, subject]), axis=1)
    counts = np.bincount(pairs[0].astype(np.int64), minlength=1) if pairs.size else np.zeros(1)
    return {
        name: int(counts[position]) if position < len(counts) else 0
        for position, name in enumerate(names)
    }
