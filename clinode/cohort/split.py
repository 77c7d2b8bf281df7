"""Splits that depend on a subject's own group and on nothing else.

The share that a group falls into is the first 64 bits of BLAKE2b over salt and group id, so a split
is the same on every machine, and adding or removing subjects moves no other.
"""

import hashlib
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pandas as pd

from clinode.cohort.cohort import Cohort
from clinode.errors import ArgumentError, SchemaError

PUBLISHED_ORDER = ("train", "tuning", "held_out")


def split(
    cohort: Cohort,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    salt: str = "2026",
    *,
    published: bool = False,
) -> tuple[Cohort, ...]:
    """Split a cohort by the hash of its subjects.

    Subjects of one group (the stays of a person) stay together.

    Args:
        cohort: What is split.
        fractions: Expected shares of the groups; they add up to 1.
        salt: Another salt gives another split.
        published: Take the splits that came with the data instead: train, tuning, held_out, then
            others by name.

    Returns:
        One cohort a fraction, in their order; small cohorts may leave one of them empty.

    Raises:
        ArgumentError: Fractions do not add up to 1, or there are no published splits.
        SchemaError: A published split leaves a subject out, or parts a group.
    """
    if published:
        return _published(cohort)
    if not fractions or any(not 0 <= f <= 1 for f in fractions) or abs(sum(fractions) - 1) > 1e-9:
        raise ArgumentError(f"fractions must be at least 0 and add up to 1, got {tuple(fractions)}")
    edges = np.cumsum([float(f) for f in fractions])[:-1]
    share = np.array([_share(group, salt) for group in cohort.groups.tolist()], dtype=np.float64)
    part = np.searchsorted(edges, share, side="right")
    return tuple(cohort.take(np.flatnonzero(part == k)) for k in range(len(fractions)))


def some_subjects(cohort: Cohort, n_subjects: int, salt: str = "some") -> Cohort:
    """A part of a cohort to measure on: about so many subjects, groups whole, drawn by their hash.

    Args:
        cohort: Is returned itself where it has no more.
        n_subjects: At least one group is taken, and then as many as fit.
        salt: Another salt gives others.
    """
    if len(cohort) <= n_subjects:
        return cohort
    group, names = pd.factorize(cohort.groups)
    share = np.array([_share(name, salt) for name in names.tolist()])
    order = np.argsort(share, kind="stable")
    taken = np.cumsum(np.bincount(group, minlength=len(names))[order]) <= n_subjects
    taken[0] = True
    return cohort.take(np.flatnonzero(np.isin(group, order[taken])))


def check_disjoint(*cohorts: Cohort) -> None:
    """Refuse cohorts that share a subject, or a group of subjects.

    Raises:
        SchemaError: Says how many they share, and which cohorts, by position.
    """
    for second in range(len(cohorts)):
        for first in range(second):
            for what in ("subjects", "groups"):
                one, other = getattr(cohorts[first], what), getattr(cohorts[second], what)
                shared = len(set(map(str, one)) & set(map(str, other)))
                if shared:
                    raise SchemaError(
                        f"{what} in two splits: {shared:,} (cohorts {first + 1} and {second + 1})",
                        where="split",
                        fix="split one cohort with clinode.split, which keeps subjects apart",
                    )


def _share(group: object, salt: str) -> float:
    """Where in [0, 1) a group falls.

    The id is written as text, so 17 and "17" fall together.
    """
    digest = hashlib.blake2b(f"{salt}|{group}".encode(), digest_size=8).digest()
    # as a fraction first: a 64-bit number above 2^53 may round up to 1
    return min(float(Fraction(int.from_bytes(digest, "big"), 1 << 64)), np.nextafter(1.0, 0.0))


def _published(cohort: Cohort) -> tuple[Cohort, ...]:
    table = cohort.splits
    if table is None:
        raise ArgumentError(
            "the cohort came without published splits", fix="leave published out to split by hash"
        )
    name_of = dict(zip(table["subject_id"].tolist(), table["split"].tolist(), strict=True))
    names = pd.Series([name_of.get(subject) for subject in cohort.subjects.tolist()], dtype=object)
    if names.isna().any():
        raise SchemaError(
            f"{int(names.isna().sum()):,} subjects are in no published split", where="splits"
        )
    found = sorted(set(names))
    order = [name for name in PUBLISHED_ORDER if name in found]
    order += [name for name in found if name not in order]
    parts = tuple(cohort.take(np.flatnonzero((names == name).to_numpy())) for name in order)
    check_disjoint(*parts)
    return parts
