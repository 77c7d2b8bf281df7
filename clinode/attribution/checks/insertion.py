"""Insertion and deletion: does the output follow when events come and go in the map's order.

Petsiuk et al. 2018 (arXiv 1806.07421), for events and on the scale of the attributions (log odds),
where areas add. An area alone says more of the fill than of the map, so it is told between two
marks: 0 is a random order, 1 is the greedy one, which at each step takes the events that move the
output most, one asked at a time. Greedy is no bound: a map can reach beyond 1. And what fills the
place of an event is part of the question, so there are at least two, side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from clinode.attribution.baselines import (
    BASELINES,
    BaselineConfig,
    baseline_named,
    check_ranges,
    read_normal_ranges,
    sex_of,
)
from clinode.attribution.checks.asked import Asked
from clinode.attribution.coalitions import Game, against
from clinode.attribution.explain import last_of_each
from clinode.attribution.explained import explained_of
from clinode.attribution.methods import (
    COALITIONS,
    MethodConfig,
    check_method,
    explain_game,
    explain_rows,
)
from clinode.attribution.rows import RecordRows
from clinode.cohort import Cohort, PackedRecords
from clinode.errors import ArgumentError
from clinode.statistics import Estimate, bootstrap
from clinode.training import Ensemble, Run

FILLS = ("delete", "cohort_mean", "carry")
"""What may stand where an event was: nothing, the training mean, the last value before."""

WAYS = ("insertion", "deletion")
_ORDERS = ("map", "random", "greedy")
_WHY = "no order of events moves the output more than another"


@dataclass(frozen=True)
class InsertionDeletion:
    """How well the order of a map raises (insertion) and lowers (deletion) the output early.

    Args:
        scores: By fill and way: 0 is a random order, 1 the greedy one; ratio of sums over subjects,
            bootstrap over subjects.
        curves: By fill, way and order ("map", "random", "greedy"), the mean output over subjects at
            the shares of the events in `shares`.
        bands: By fill and way, the mean output along random orders plus the ends of the 95 %
            interval of how far the map's order lies from it, bootstrap over subjects; NaN of one
            subject.
        shares: From 0 to 1.
        n_subjects: Whose events could be ordered.
        verdict: In words.
    """

    scores: dict[tuple[str, str], Estimate]
    curves: dict[tuple[str, str, str], tuple[float, ...]]
    bands: dict[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]]
    shares: tuple[float, ...]
    n_subjects: int
    verdict: str

    name = "insertion and deletion"

    def estimates(self) -> dict[str, Estimate]:
        """Its scores by fill and way."""
        return {f"{way}, fill {fill}": found for (fill, way), found in self.scores.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words."""
        return {
            "scores": [
                {"fill": fill, "way": way, **found.to_dict()}
                for (fill, way), found in self.scores.items()
            ],
            "curves": [
                {"fill": fill, "way": way, "order": order, "output": list(curve)}
                for (fill, way, order), curve in self.curves.items()
            ],
            "bands": [
                {"fill": fill, "way": way, "low": _known(low), "high": _known(high)}
                for (fill, way), (low, high) in self.bands.items()
            ],
            "shares": list(self.shares),
            "n_subjects": self.n_subjects,
            "verdict": self.verdict,
        }


def insertion_deletion(
    run: Run | Ensemble,
    cohort: Cohort,
    asked: Asked | None = None,
    *,
    fills: Sequence[str] = ("delete", "cohort_mean"),
    n_steps: int = 10,
    n_orders: int = 8,
    batch_size: int = 256,
    n_resamples: int = 1000,
    seed: int = 0,
) -> InsertionDeletion:
    """Let events come (from none) and go (from all) in the order of their attributions.

    The event that raises the output most comes first, and goes first. Statics, measurements and
    treatments each are events. A subject whose map is withheld is left out.

    Args:
        run: Whose output is explained.
        cohort: Whose subjects. For n events a subject costs about 2 n_steps n evaluations a fill.
        asked: Method, baseline and output.
        fills: Two at least of "delete" (the event was never there), "cohort_mean" and "carry".
        n_steps: At how many shares of the events the output is looked at, beside none.
        n_orders: Random orders of each subject.
        batch_size: Records evaluated in one call of the model.
        n_resamples: Bootstrap resamples of subjects.
        seed: Of the random orders and the resamples.

    Raises:
        ArgumentError: Fewer than two fills, an unknown one, or no step or order.
    """
    asked = Asked() if asked is None else asked
    fills = tuple(dict.fromkeys(fills))
    if len(fills) < 2 or not set(fills) <= set(FILLS):
        raise ArgumentError(
            f"at least two different fills are compared, of {', '.join(FILLS)}; got {fills}",
            fix="one fill says as much of itself as of the map",
        )
    if n_steps < 1 or n_orders < 1:
        raise ArgumentError("n_steps and n_orders must be at least 1")
    rows, references = _rows_of(run, cohort, asked, fills)
    values, withheld = _values(rows, asked, references.get(asked.baseline), batch_size)
    players = rows.players("event", 1.0)
    generator = np.random.default_rng(seed)
    areas = np.full((len(fills), len(WAYS), len(_ORDERS), len(rows)), np.nan)
    shares = np.linspace(0, 1, n_steps + 1)
    kept: list[np.ndarray] = []
    for row in np.flatnonzero(~withheld):
        held = players[row] >= 0
        size = np.bincount(players[row][held], weights=values[row][held])
        if len(size) < 2:
            continue
        looks = np.empty((len(fills), len(WAYS), len(_ORDERS), len(shares)))
        kept.append(looks)
        orders = [np.argsort(-size, kind="stable")]
        orders += [generator.permutation(len(size)) for _ in range(n_orders)]
        for k, fill in enumerate(fills):
            reference = references[fill]
            value = rows.without if reference is None else against(rows, rows.x, reference)
            course = _Course(Game(value, players), int(row), len(size), n_steps, batch_size)
            for w, way in enumerate(WAYS):
                own, *random = course.along(orders, way)
                curves = [own, np.mean(random, axis=0), course.greedy(way)]
                for o, curve in enumerate(curves):
                    areas[k, w, o, row] = np.trapezoid(curve, course.shares)
                    looks[k, w, o] = np.interp(shares, course.shares, curve)
    keys = [(fill, way) for fill in fills for way in WAYS]
    scores = _scores(
        dict(zip(keys, areas.reshape(-1, len(_ORDERS), len(rows)), strict=True)), n_resamples, seed
    )
    every = np.array(kept).reshape(-1, len(fills), len(WAYS), len(_ORDERS), len(shares))
    mean = every.sum(axis=0) / max(len(every), 1)
    curves = {
        (fill, way, order): tuple(mean[k, w, o].tolist())
        for k, fill in enumerate(fills)
        for w, way in enumerate(WAYS)
        for o, order in enumerate(_ORDERS)
    }
    bands = {
        (fill, way): _band(every[:, k, w, 0], every[:, k, w, 1], n_resamples, seed)
        for k, fill in enumerate(fills)
        for w, way in enumerate(WAYS)
    }
    return InsertionDeletion(
        scores, curves, bands, tuple(shares.tolist()), len(every), _verdict(scores)
    )


@dataclass(frozen=True)
class _Course:
    """The output of one record while its events come or go."""

    game: Game
    row: int
    n_events: int
    n_steps: int
    batch_size: int

    @property
    def sizes(self) -> np.ndarray:
        """How many events have come or gone, at each look."""
        steps = min(self.n_steps, self.n_events)
        return np.unique(np.round(np.linspace(0, self.n_events, steps + 1)).astype(np.int64))

    @property
    def shares(self) -> np.ndarray:
        """The same as shares of all."""
        return self.sizes / self.n_events

    def along(self, orders: Sequence[np.ndarray], way: str) -> Float[np.ndarray, "order look"]:
        """The output along each of some orders."""
        moved = np.zeros((len(orders), len(self.sizes), self.n_events), dtype=bool)
        for order, places in zip(orders, moved, strict=True):
            for size, place in zip(self.sizes, places, strict=True):
                place[order[:size]] = True
        present = (moved if way == "insertion" else ~moved).reshape(-1, self.n_events)
        worth = self.game.worth(self.row, present, self.batch_size)
        return worth.reshape(len(orders), -1)

    def greedy(self, way: str) -> Float[np.ndarray, " look"]:
        """The output where at each look those came or went that alone would move it most."""
        inserts = way == "insertion"
        present = np.full(self.n_events, not inserts)
        curve = [self.game.worth(self.row, present[None], self.batch_size)[0]]
        for count in np.diff(self.sizes):
            waiting = np.flatnonzero(present != inserts)
            trials = np.repeat(present[None], len(waiting), axis=0)
            trials[np.arange(len(waiting)), waiting] = inserts
            worth = self.game.worth(self.row, trials, self.batch_size)
            best = np.argsort(-worth if inserts else worth, kind="stable")[:count]
            present[waiting[best]] = inserts
            curve.append(self.game.worth(self.row, present[None], self.batch_size)[0])
        return np.array(curve)


def _rows_of(
    run: Run | Ensemble, cohort: Cohort, asked: Asked, fills: tuple[str, ...]
) -> tuple[RecordRows, dict[str, Tensor | None]]:
    """The records as rows, and what stands in each where an event was, by fill and baseline."""
    members = run.members
    schema = members[0].schema
    explained = explained_of(run.task, schema, asked.output, asked.hours)
    records = PackedRecords.build(cohort, schema, run.task, with_targets=False, at=asked.at)
    positions = last_of_each(records, cohort, None)
    positions = positions[np.argsort(-records.lengths[positions], kind="stable")]
    rows = RecordRows([one.model for one in members], records, positions, explained)
    check_method(asked.method)
    baseline_named(asked.baseline, may_delete=asked.method in COALITIONS)
    ranges = read_normal_ranges()
    if asked.baseline == "normal":
        check_ranges(schema, ranges, {schema.variables[k] for k in set(rows.measured.variable)})
    needs = BaselineConfig(
        window=schema.window / 2,
        ranges=ranges,
        sex=sex_of(cohort.statics, len(cohort.subjects))[records.subject_index[positions]],
    )
    return rows, {
        name: None if name == "delete" else BASELINES[name](rows, needs)
        for name in dict.fromkeys((*fills, asked.baseline))
    }


def _values(
    rows: RecordRows, asked: Asked, reference: Tensor | None, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Attributions of the entries of each row, and whether they are withheld."""
    config = MethodConfig(tolerance=asked.tolerance, seed=asked.seed, batch_size=batch_size)
    if asked.method in COALITIONS:
        value = rows.without if reference is None else against(rows, rows.x, reference)
        found = explain_game(Game(value, rows.players("event", 1.0)), asked.method, config)
    else:
        assert reference is not None  # `baseline_named` refuses it with such a method
        found = explain_rows(rows, rows.x, reference, asked.method, config)
    return found.values.numpy(), found.withheld


def _scores(
    areas: dict[tuple[str, str], Float[np.ndarray, "order subject"]], n_resamples: int, seed: int
) -> dict[tuple[str, str], Estimate]:
    statistics = {}
    for (fill, way), (own, random, greedy) in areas.items():
        sign = 1.0 if way == "insertion" else -1.0
        known = np.isfinite(own)
        gain = np.where(known, sign * (own - random), 0.0)
        most = np.where(known, sign * (greedy - random), 0.0)
        statistics[f"{fill} {way}"] = _ratio_of(gain, most)
    n_subjects = len(next(iter(areas.values()))[0])
    drawn = bootstrap(statistics, np.arange(n_subjects), n_resamples=n_resamples, seed=seed)
    return {key: drawn.estimate(f"{key[0]} {key[1]}", why=_WHY) for key in areas}


def _band(
    own: Float[np.ndarray, "subject look"],
    random: Float[np.ndarray, "subject look"],
    n_resamples: int,
    seed: int,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Ends of the interval of the distance from random orders, laid on their mean."""
    n, n_looks = own.shape
    if n < 2:
        return (np.nan,) * n_looks, (np.nan,) * n_looks
    ahead = own - random
    drawn = bootstrap(
        {str(look): _mean_of(ahead[:, look]) for look in range(n_looks)},
        np.arange(n),
        n_resamples=n_resamples,
        seed=seed,
    )
    found = [drawn.estimate(str(look)) for look in range(n_looks)]
    middle = random.mean(axis=0)
    low, high = ([getattr(one, end) for one in found] for end in ("low", "high"))
    return tuple((middle + low).tolist()), tuple((middle + high).tolist())


def _mean_of(values: np.ndarray):
    return lambda weights: weights @ values / weights.sum(axis=1)


def _known(values: Sequence[float]) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values]


def _ratio_of(part: np.ndarray, whole: np.ndarray):
    def ratio(weights: np.ndarray) -> np.ndarray:
        total = weights @ whole
        return np.divide(weights @ part, total, out=np.full(len(total), np.nan), where=total > 0)

    return ratio


def _verdict(scores: dict[tuple[str, str], Estimate]) -> str:
    if not all(one.is_defined and np.isfinite(one.low) for one in scores.values()):
        return f"undecided: {_WHY}, or too few subjects"
    told = ", ".join(f"{way} by {fill} {one.value:.2f}" for (fill, way), one in scores.items())
    if all(one.low > 0 for one in scores.values()):
        return f"passed: better than a random order under every fill ({told})"
    return f"failed: not better than a random order under every fill ({told})"
