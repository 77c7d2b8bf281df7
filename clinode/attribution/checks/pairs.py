"""Two maps of the same events side by side, and how alike they are, subject by subject.

Feature, sign, rank and signed-rank agreement are those of Krishna et al. 2022, "The disagreement
problem in explainable machine learning" (arXiv 2202.01602): shares of the k largest entries.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from clinode.attribution.attributions import Attributions
from clinode.errors import ArgumentError
from clinode.statistics import Bootstrap, bootstrap

FEWEST = 3  # events without which a ranking says nothing


@dataclass(frozen=True)
class SideBySide:
    """Two maps, over all subjects that were explained.

    Every statistic has one number a subject, NaN where it has none.

    Args:
        first, second: Of each subject, the attributions of its events, in one order for both; none
            where one of the maps is withheld.
    """

    first: tuple[np.ndarray, ...]
    second: tuple[np.ndarray, ...]

    def rank_correlation(self) -> Float[np.ndarray, " subject"]:
        """Spearman's correlation of the sizes; NaN for fewer than three events, or equal sizes."""
        return self._each(lambda a, b: spearman(np.abs(a), np.abs(b)))

    def same_sign(self) -> Float[np.ndarray, " subject"]:
        """Share of the events that both say raise, or both say lower, of those with two signs."""
        return self._each(lambda a, b: _share(np.sign(a) == np.sign(b), (a != 0) & (b != 0)))

    def same_sign_by_size(self) -> Float[np.ndarray, " subject"]:
        """The same, each event counted by the smaller of its two sizes, relative to its map.

        Where two maps differ on the sign of what moves nothing, little is lost.
        """
        return self._each(_weighted_sign)

    def relative_size(self) -> Float[np.ndarray, " subject"]:
        """Sum of the sizes of the second map, relative to that of the first."""
        return self._each(lambda a, b: _ratio(float(np.abs(b).sum()), float(np.abs(a).sum())))

    def change(self) -> Float[np.ndarray, " subject"]:
        """Length of the difference, relative to that of the first map."""
        return self._each(lambda a, b: _ratio(_length(b - a), _length(a)))

    def top(self, k: int) -> dict[str, Float[np.ndarray, " subject"]]:
        """Of the k largest of each, the shares that both name: as they are, with the same sign, at
        the same rank, with both; and the share that two orders at random would name."""
        found = [_top(a, b, k) for a, b in zip(self.first, self.second, strict=True)]
        names = ("feature", "sign", "rank", "signed rank", "chance")
        columns = np.array(found, dtype=np.float64).reshape(len(found), len(names))
        return dict(zip(names, columns.T, strict=True))

    def _each(
        self, statistic: Callable[[np.ndarray, np.ndarray], float]
    ) -> Float[np.ndarray, " subject"]:
        pairs = zip(self.first, self.second, strict=True)
        return np.array([statistic(a, b) for a, b in pairs], dtype=np.float64)


def side_by_side(first: Attributions, second: Attributions) -> SideBySide:
    """Two maps of one cohort, event by event.

    Raises:
        ArgumentError: They are not of the same subjects and events.
    """
    subjects = first.gates["subject_id"]
    if not subjects.equals(second.gates["subject_id"]):
        raise ArgumentError(
            "the two attributions are not of the same subjects", fix="explain one cohort twice"
        )
    withheld = first.gates["withheld"].to_numpy(bool) | second.gates["withheld"].to_numpy(bool)
    shown = subjects[~withheld].tolist()
    tables = [one.events.loc[one.events["subject_id"].isin(shown)] for one in (first, second)]
    if not _keys(tables[0]).equals(_keys(tables[1])):
        raise ArgumentError(
            "the two attributions are not of the same events",
            fix="explain the same cohort at the same time, event by event",
        )
    place = pd.Index(subjects).get_indexer(pd.Index(tables[0]["subject_id"]))
    ends = np.searchsorted(place, np.arange(len(subjects) + 1))
    values = [table["attribution"].to_numpy() for table in tables]
    parts = [tuple(one[a:b] for a, b in pairwise(ends)) for one in values]
    return SideBySide(parts[0], parts[1])


def over_subjects(
    columns: Mapping[str, Float[np.ndarray, " subject"]], *, n_resamples: int, seed: int
) -> Bootstrap:
    """The mean of each column over its subjects, leaving out NaN, resampled together."""
    n_subjects = len(next(iter(columns.values())))
    means = {name: _mean_of(column) for name, column in columns.items()}
    return bootstrap(means, np.arange(n_subjects), n_resamples=n_resamples, seed=seed)


def _keys(table: pd.DataFrame) -> pd.DataFrame:
    """Which events they are, told without the order of a categorical's levels."""
    names = {name: table[name].astype(str) for name in ("kind", "variable")}
    keys = table.loc[:, ["subject_id", "time"]].assign(**names)
    return keys.reset_index(drop=True)


def spearman(a: Float[np.ndarray, " entry"], b: Float[np.ndarray, " entry"]) -> float:
    """Spearman's correlation; NaN for fewer than three entries, or where all are equal."""
    if len(a) < FEWEST:
        return np.nan
    first, second = (rankdata(one) - (len(one) + 1) / 2 for one in (a, b))
    return _ratio(float(first @ second), float(np.sqrt((first @ first) * (second @ second))))


def mean_of_known(
    columns: Sequence[Float[np.ndarray, " subject"]],
) -> Float[np.ndarray, " subject"]:
    """Of each subject the mean of the columns that know it."""
    table = np.stack(columns)
    known = np.isfinite(table)
    total, count = np.where(known, table, 0.0).sum(axis=0), known.sum(axis=0)
    return np.divide(total, count, out=np.full(table.shape[1], np.nan), where=count > 0)


def _mean_of(column: np.ndarray):
    known = np.isfinite(column)
    held = np.where(known, column, 0.0)

    def mean(weights: np.ndarray) -> np.ndarray:
        count = weights @ known.astype(np.float64)
        return np.divide(weights @ held, count, out=np.full(len(count), np.nan), where=count > 0)

    return mean


def _share(holds: np.ndarray, counted: np.ndarray) -> float:
    return _ratio(float((holds & counted).sum()), float(counted.sum()))


def _weighted_sign(a: np.ndarray, b: np.ndarray) -> float:
    largest = [np.abs(one).max(initial=0.0) for one in (a, b)]
    if min(largest) == 0:
        return np.nan
    weight = np.minimum(np.abs(a) / largest[0], np.abs(b) / largest[1])
    return _ratio(float(weight[np.sign(a) == np.sign(b)].sum()), float(weight.sum()))


def _length(a: np.ndarray) -> float:
    return float(np.sqrt(a @ a))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else np.nan


def _top(a: np.ndarray, b: np.ndarray, k: int) -> tuple[float, ...]:
    n = len(a)
    k = min(k, n)
    if n < FEWEST:
        return (np.nan,) * 5
    first, second = (np.argsort(-np.abs(one), kind="stable")[:k] for one in (a, b))
    both = np.intersect1d(first, second)
    agree = np.sign(a) == np.sign(b)
    at_rank = first == second
    return (
        len(both) / k,
        float(agree[both].sum()) / k,
        float(at_rank.sum()) / k,
        float((at_rank & agree[first]).sum()) / k,
        k / n,
    )
