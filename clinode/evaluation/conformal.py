"""Forecast intervals that hold what they promise: split conformal, and adaptive along time.

An interval is mean ± factor x spread. The factor of a variable is a rank statistic of the scores
|observed - mean| / spread on records that the forecaster was not fitted on (Lei et al. 2018, JASA
113:1094), so the forecaster's own idea of its spread only decides where intervals are wide, not how
often they hold. Adaptive conformal inference (Gibbs & Candes 2021, NeurIPS 34) moves the level as
observations come in, and keeps the long-run coverage whatever the drift.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from clinode.errors import ArgumentError, CheckpointError

FEWEST = 100  # scores of a variable; with fewer its factor is that of all variables together
STEP = 0.005  # of the adaptive level, an observation


@dataclass(frozen=True, eq=False, kw_only=True)
class SplitConformal:
    """The scores of held-out queries, by variable; any level can be asked of them.

    For a new query that is exchangeable with the n held-out ones of its variable, the interval at
    `level` holds with a probability between `level` and `level` + 1 / (n + 1) (the upper bound
    where scores have no ties). Queries of one subject resemble each other, so n counts for less
    than it says; the interval is meant for queries as they come, and a subject with many counts
    more.

    Attributes:
        score: Rising within each variable.
        start: Where each variable begins in `score`, and at last its length.

    Raises:
        CheckpointError: The arrays do not fit together, or the scores do not rise.
    """

    score: Float[np.ndarray, " query"]
    start: Int[np.ndarray, " variable_plus_one"]

    def __post_init__(self):
        ends = (self.start[0], self.start[-1]) if len(self.start) else (-1, -1)
        if ends != (0, len(self.score)) or (np.diff(self.start) < 0).any():
            raise CheckpointError("the stored scores are not divided into variables")
        falls = np.diff(self.score) < 0
        falls[self.start[(0 < self.start) & (self.start < len(self.score))] - 1] = False
        if falls.any() or not (np.isfinite(self.score) & (self.score >= 0)).all():
            raise CheckpointError("the stored scores are not those of calibrated intervals")

    @property
    def n_variables(self) -> int:
        """How many variables there are, with scores or without."""
        return len(self.start) - 1

    @property
    def n_queries(self) -> Int[np.ndarray, " variable"]:
        """Held-out queries of each variable."""
        return np.diff(self.start)

    @property
    def is_pooled(self) -> Bool[np.ndarray, " variable"]:
        """Variables with fewer than 100 scores: their factor is that of all of them together."""
        return self.n_queries < FEWEST

    def factors(self, level: float = 0.9) -> Float[np.ndarray, " variable"]:
        """What to multiply the spread by, for each variable.

        The score of rank ceil((n + 1) level); infinite where n is too small for that rank.

        Raises:
            ArgumentError: The level is not within (0, 1).
        """
        if not 0 < level < 1:
            raise ArgumentError(f"level must lie in (0, 1), got {level!r}")
        return np.array([factor(held, level) for held in self._held()])

    def interval(
        self,
        variable: Integer[np.ndarray, " query"],
        mean: Float[np.ndarray, " query"],
        spread: Float[np.ndarray, " query"],
        *,
        level: float = 0.9,
    ) -> tuple[Float[np.ndarray, " query"], Float[np.ndarray, " query"]]:
        """Lower and upper ends.

        Raises:
            ArgumentError: The level is not within (0, 1), or a variable is out of range.
        """
        _check_variables(variable, self.n_variables)
        half = self.factors(level)[variable] * spread
        return mean - half, mean + half

    def adaptive_factors(
        self,
        variable: Integer[np.ndarray, " query"],
        score: Float[np.ndarray, " query"],
        *,
        record: Integer[np.ndarray, " query"] | None = None,
        level: float = 0.9,
        step: float = STEP,
    ) -> Float[np.ndarray, " query"]:
        """The factor of each query, where those of the records before it have been observed.

        Each variable has a level of its own, which moves by `step` times the difference between
        what was missed and what may be missed: up after a miss, down a little after a hit. Over n
        queries of a variable, of which a record has at most m, the share of misses is then within
        (max(level, 1 - level) + m step) / (n step) of 1 - level, whatever the scores are.

        Args:
            variable: Position of the variable of each query, in the order of observation.
            score: |observed - mean| / spread of each query, known only after it.
            record: Whose query it is; those of one record stand together and are forecast at one
                time, so they share the factor that held before the first of them. By default each
                query is a record of its own.
            level: Share of observations to hold.
            step: Larger follows a drift faster, with intervals that change more.

        Returns:
            0 where the level has fallen to nothing, infinite where it has risen to one.

        Raises:
            ArgumentError: Lengths disagree, a level or the step is not within (0, 1), a variable is
                out of range, a score is negative or not finite, or a record comes twice.
        """
        for name, value in (("level", level), ("step", step)):
            if not 0 < value < 1:
                raise ArgumentError(f"{name} must lie in (0, 1), got {value!r}")
        _check_variables(variable, self.n_variables)
        if len(score) != len(variable):
            raise ArgumentError(f"{len(variable)} queries, but {len(score)} scores")
        _check_scores(score)
        held = self._held()
        moving = np.full(self.n_variables, level)
        found = np.empty(len(score))
        for queries in _by_record(record, len(score)):
            asked, place = np.unique(variable[queries], return_inverse=True)
            own = np.array([_moved_factor(held[v], float(moving[v])) for v in asked])
            found[queries] = own[place]
            excess = (score[queries] > found[queries]) - (1 - level)
            moving[asked] += step * np.bincount(place, excess, minlength=len(asked))
        return np.maximum(found, 0.0)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything there is to store, by name."""
        return {"score": self.score, "start": self.start}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "SplitConformal":
        """The inverse of `to_arrays`.

        Raises:
            CheckpointError: An array is missing, or they do not fit together.
        """
        try:
            return cls(score=arrays["score"], start=arrays["start"])
        except KeyError as error:
            raise CheckpointError(f"the stored scores are incomplete: {error}") from None

    def _held(self) -> list[np.ndarray]:
        everything = np.sort(self.score)
        own = np.split(self.score, self.start[1:-1])
        return [
            everything if pooled else scores
            for scores, pooled in zip(own, self.is_pooled, strict=True)
        ]


def factor(score: Float[np.ndarray, " query"], level: float) -> float:
    """The rising score of rank ceil((n + 1) level); infinite where there is none.

    Example:
        >>> factor(np.arange(1.0, 10.0), 0.9), factor(np.arange(1.0, 9.0), 0.9)
        (9.0, inf)
    """
    # the product may come out a rounding error above a whole number, which must not cost a rank
    rank = math.ceil((len(score) + 1) * level * (1 - 1e-12))
    return math.inf if rank > len(score) else float(score[max(rank, 1) - 1])


def _moved_factor(score: np.ndarray, level: float) -> float:
    # every score is finite, so an interval without an end holds and brings the level down
    if level >= 1:
        return math.inf
    return -math.inf if level <= 0 else factor(score, level)


def _by_record(record: np.ndarray | None, n: int) -> list[slice]:
    """The queries of each record, in order."""
    if record is None:
        return [slice(k, k + 1) for k in range(n)]
    if len(record) != n:
        raise ArgumentError(f"{n} queries, but {len(record)} records")
    edges = [0, *(np.flatnonzero(np.diff(record)) + 1).tolist(), n] if n else [0]
    if len(edges) - 1 != len(np.unique(record)):
        raise ArgumentError("the queries of one record must stand together")
    return [slice(low, high) for low, high in pairwise(edges)]


def fit_conformal(
    target: Float[np.ndarray, " query"],
    variable: Integer[np.ndarray, " query"],
    mean: Float[np.ndarray, " query"],
    spread: Float[np.ndarray, " query"],
    *,
    n_variables: int,
) -> SplitConformal:
    """Collect the scores of queries whose observations are known.

    The forecasts must not come from a model that was fitted on these records. They may come from
    several models, each asked about the fold that it was not fitted on (cross-conformal, Vovk 2015,
    Ann. Math. Artif. Intell. 74:9): coverage is then as exact in practice, and guaranteed only at
    1 - 2 (1 - level).

    Args:
        target: Observed values.
        variable: Position of the variable of each query.
        mean, spread: What was forecast, on the scale of the targets.
        n_variables: How many variables there are.

    Raises:
        ArgumentError: There is no query, lengths disagree, a spread is not positive, a number is
            not finite, or a variable is out of range.
    """
    for name, part in (("variable", variable), ("mean", mean), ("spread", spread)):
        if len(part) != len(target):
            raise ArgumentError(f"{len(target)} targets, but {len(part)} of {name!r}")
    if not len(target):
        raise ArgumentError("intervals cannot be calibrated without a query")
    if not (spread > 0).all():
        raise ArgumentError("every spread must be positive")
    _check_variables(variable, n_variables)
    score = np.abs(target - mean) / spread
    _check_scores(score)
    order = np.lexsort((score, variable))
    counts = np.bincount(variable, minlength=n_variables)
    return SplitConformal(score=score[order], start=np.concatenate([[0], np.cumsum(counts)]))


def _check_variables(variable: np.ndarray, n_variables: int) -> None:
    if len(variable) and not (0 <= variable.min() and variable.max() < n_variables):
        raise ArgumentError(f"variable positions must lie in 0..{n_variables - 1}")


def _check_scores(score: np.ndarray) -> None:
    if not (np.isfinite(score) & (score >= 0)).all():
        raise ArgumentError("targets, means and spreads must be finite, and scores not negative")
