"""Why, by kind: how much of an output is due to values, to which tests were ordered, and to when.

That a lactate was ordered says something, whatever it showed, and so does an hour without a blood
pressure; but both are the care that was given and not the illness. The three are players of a game
with eight coalitions: each is the subject's own, or stands at its reference (see `patterns`), and
the Shapley values of the three are computed from all of them. They sum to the output less that of
the reference for every subject, whatever was drawn.

Statics and treatments are the subject's own throughout, and get nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from clinode.attribution.baselines import (
    BASELINES,
    check_ranges,
    midpoints,
    read_normal_ranges,
    sex_of,
)
from clinode.attribution.explained import Explained, explained_of
from clinode.attribution.patterns import Measurements, Series, rearranged
from clinode.attribution.rows import RecordRows
from clinode.cohort import Cohort, PackedRecords, Preprocessor
from clinode.errors import ArgumentError, SolverError
from clinode.statistics import Bootstrap, Estimate, bootstrap
from clinode.training import Ensemble, Run

PLAYERS = ("values", "ordering", "timing")
_AT_ONCE = 1024  # records

Coalition = tuple[bool, ...]
Answer = Callable[[Measurements], Float[np.ndarray, " subject"]]
"""What a model says of each subject, had it these measurements."""


@dataclass(frozen=True, eq=False, kw_only=True)
class KindAttributions:
    """How much of each output is due to values, ordering and timing.

    Args:
        table: See `to_pandas`.
        baseline: The word that chose the reference of the values.
        outcome: What the model predicts.
        scale: Unit of the outputs, in words.
        n_draws: Donors drawn for each subject.
    """

    table: pd.DataFrame
    baseline: str
    outcome: str
    scale: str
    n_draws: int

    def to_pandas(self) -> pd.DataFrame:
        """One row a subject: subject_id, prediction_time, output, base, values, ordering, timing.

        Base is the mean output of the references; values + ordering + timing = output - base. Of
        each of the three there is a column with _error, the standard error of the draws.
        """
        return self.table.copy()

    def cohort(self, *, n_resamples: int = 1000, seed: int = 0) -> dict[str, dict[str, Estimate]]:
        """Of each kind its mean absolute contribution, and its share of all three.

        Intervals resample subjects. The draws of donors make absolute values larger: where a
        kind's standard errors are as large as its contributions its share is too high.
        """
        size = {name: np.abs(self.table[name].to_numpy()) for name in PLAYERS}
        total = np.sum(list(size.values()), axis=0)
        drawn = bootstrap(
            {f"size {name}": _mean_of(size[name]) for name in PLAYERS}
            | {f"share {name}": _ratio_of(size[name], total) for name in PLAYERS},
            self.table["subject_id"].to_numpy(),
            n_resamples=n_resamples,
            seed=seed,
        )
        return {name: _told(drawn, name) for name in PLAYERS}

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the cohort's, and one record a subject; None for an error of one draw."""
        rows = self.table.astype(object)
        return {
            "baseline": self.baseline,
            "outcome": self.outcome,
            "scale": self.scale,
            "n_draws": self.n_draws,
            "cohort": {
                name: {key: one.to_dict() for key, one in told.items()}
                for name, told in self.cohort().items()
            },
            "subjects": rows.where(rows.notna(), None).to_dict("records"),
        }


def explain_kinds(
    run: Run | Ensemble,
    cohort: Cohort,
    baseline: str = "cohort_mean",
    *,
    reference: Cohort | None = None,
    at: float | None = None,
    subjects: Sequence[Any] | np.ndarray | None = None,
    output: str | None = None,
    hours: float | None = None,
    window: float | None = None,
    normal_ranges: pd.DataFrame | Path | str | None = None,
    n_draws: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> KindAttributions:
    """How much of each subject's output is due to values, to ordering and to timing.

    The exact Shapley values of three players, from 4 + 4 `n_draws` evaluations of the model for
    each subject: the reference of the ordering is drawn, so the four coalitions without the
    subject's own are means over draws.

    Args:
        run: As of `explain`.
        cohort: Its variables must be known to the run.
        baseline: What values are compared with: "cohort_mean", "normal" or "carry", as of
            `explain`; where a variable has no value before, "carry" takes its first one.
        reference: Who lends the numbers of their measurements, the training part say; None for the
            cohort itself. A subject does not lend to itself.
        at: Prediction time in hours; None takes each subject's own, its last where it has several.
        subjects: Who is told; None for all.
        output: Label, variable that is forecast, or number of the cause; as of `explain`.
        hours: As of `explain`.
        window: Of "carry", hours before the prediction time; None is half of the training window.
        normal_ranges: Of "normal", as of `explain`.
        n_draws: Donors drawn for each subject.
        seed: Of the draws.
        progress: Called with (evaluations done, all evaluations) of all subjects together.

    Raises:
        ArgumentError: As of `explain`; fewer than one draw, nobody who could lend, or the baseline
            "delete", which leaves no value for a test that was ordered.
        SolverError: An output is not a finite number.
    """
    if n_draws < 1:
        raise ArgumentError(f"n_draws must be at least 1, got {n_draws}")
    if baseline not in BASELINES:
        raise ArgumentError(
            f"values cannot be compared with {baseline!r}", fix=f"use one of {', '.join(BASELINES)}"
        )
    members = run.members
    schema = members[0].schema
    explained = explained_of(run.task, schema, output, hours)
    ids, until = _prediction_times(cohort, schema, run, at)
    own = Series.read(cohort, until, schema.variables)
    donors = own
    if reference is not None:
        _, theirs = _prediction_times(reference, schema, run, at)
        donors = Series.read(reference, theirs, schema.variables)
    lenders = ids if reference is None else reference.subjects
    if len(lenders) < 2:
        raise ArgumentError(
            "nobody else could lend the number of tests", fix="pass reference=, the training part"
        )
    resting = _resting(baseline, own, cohort, schema, window, normal_ranges)
    whose = np.arange(len(ids)) if subjects is None else pd.Index(ids).get_indexer(list(subjects))
    if (whose < 0).any() or not len(whose):
        raise ArgumentError(f"{int((whose < 0).sum())} of the subjects are not in the cohort")
    chosen = cohort.take(whose)
    whose = np.sort(whose)
    some = _take(own, whose)
    answer = _answer_of(chosen, schema, run, some.until, explained)
    draws = drawn_donors(ids[whose], np.asarray(lenders), n_draws, seed)
    split = three_players(answer, some, resting[whose], donors, draws, progress)
    keys = pd.DataFrame({"subject_id": ids[whose], "prediction_time": some.until})
    return KindAttributions(
        table=pd.concat([keys, split], axis=1),
        baseline=baseline,
        outcome=explained.name,
        scale=explained.scale,
        n_draws=n_draws,
    )


def three_players(
    answer: Answer,
    own: Series,
    baseline: Float[np.ndarray, "subject variable"],
    donors: Series,
    draws: np.ndarray,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """The split of any answer that is a function of the measurements.

    Args:
        answer: Of the subjects, in their order.
        own: Of the subjects.
        baseline: Value of each variable for each subject, original units.
        donors: Of those who lend.
        draws: (draw, subject), who lends.
        progress: Called with (evaluations done, all evaluations).

    Returns:
        One row a subject: output, base, values, ordering, timing, and the standard errors of the
        three over the draws.

    Raises:
        SolverError: An answer is not finite.
    """
    n_draws, asked = len(draws), 4 + 4 * len(draws)
    done = 0

    def worth(coalition: Coalition, donor: np.ndarray) -> np.ndarray:
        nonlocal done
        values, ordering, timing = coalition
        made = rearranged(
            own, baseline, donors, donor, values=values, ordering=ordering, timing=timing
        )
        found = answer(made)
        if not np.isfinite(found).all():
            raise SolverError("an output of the model is not a finite number")
        done += 1
        if progress is not None:
            progress(done, asked)
        return found

    pairs = [(values, timing) for values in (False, True) for timing in (False, True)]
    ordered = {
        (values, True, timing): worth((values, True, timing), draws[0]) for values, timing in pairs
    }
    shares = np.empty((n_draws, 3, len(own.until)))
    base = np.zeros(len(own.until))
    for k, donor in enumerate(draws):
        game = ordered | {
            (values, False, timing): worth((values, False, timing), donor)
            for values, timing in pairs
        }
        shares[k] = _shapley(game)
        base += game[False, False, False] / n_draws
    error = np.full(shares.shape[1:], np.nan)
    if n_draws > 1:
        error = shares.std(axis=0, ddof=1) / np.sqrt(n_draws)
    columns = {"output": ordered[True, True, True], "base": base}
    columns |= dict(zip(PLAYERS, shares.mean(axis=0), strict=True))
    columns |= {f"{name}_error": row for name, row in zip(PLAYERS, error, strict=True)}
    return pd.DataFrame(columns)


def drawn_donors(ids: np.ndarray, lenders: np.ndarray, n_draws: int, seed: int) -> np.ndarray:
    """Who lends to each subject, (draw, subject): positions in `lenders`, never the subject."""
    generator = np.random.default_rng([seed, 3])
    itself = pd.Index(lenders).get_indexer(pd.Index(ids))
    drawn = generator.integers(len(lenders) - (itself >= 0), size=(n_draws, len(ids)))
    return drawn + ((itself >= 0) & (drawn >= itself))


def _shapley(worth: dict[Coalition, np.ndarray]) -> np.ndarray:
    """Of three players, (player, subject), from the worth of all eight coalitions."""
    found = []
    for player in range(3):
        share = 0.0
        for coalition, without in worth.items():
            if coalition[player]:
                continue
            joined = tuple(held or k == player for k, held in enumerate(coalition))
            weight = (1 / 3, 1 / 6, 1 / 3)[sum(coalition)]
            share = share + weight * (worth[joined] - without)
        found.append(share)
    return np.stack(found)


def _prediction_times(
    cohort: Cohort, schema: Preprocessor, run: Run | Ensemble, at: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """The subjects of a cohort, and the last time at which each of them is asked."""
    schema.check(cohort)
    ids = np.asarray(cohort.subjects)
    if at is not None:
        if not np.isfinite(at):
            raise ArgumentError(f"the prediction time must be a finite number of hours, got {at}")
        return ids, np.full(len(ids), float(at))
    table = run.task.instances(cohort, schema.prediction_time)
    until = np.full(len(ids), -np.inf)
    np.maximum.at(until, table.subject_index, table.prediction_time)
    if np.isinf(until).any():
        raise ArgumentError(
            f"{int(np.isinf(until).sum())} subjects have no prediction time",
            fix="give them one in the outcomes, leave them out, or pass at=",
        )
    return ids, until


def _take(series: Series, whose: np.ndarray) -> Series:
    return replace(
        series,
        until=series.until[whose],
        count=series.count[whose],
        first=series.first[whose],
    )


def _resting(
    name: str,
    own: Series,
    cohort: Cohort,
    schema: Preprocessor,
    window: float | None,
    normal_ranges: pd.DataFrame | Path | str | None,
) -> Float[np.ndarray, "subject variable"]:
    """The baseline value of each variable for each subject, original units."""
    variables = np.arange(len(schema.variables))
    mean = schema.restore(variables, schema.cohort_mean())
    found = np.broadcast_to(mean, own.count.shape).copy()
    if name == "normal":
        ranges = read_normal_ranges(normal_ranges)
        check_ranges(
            schema,
            ranges,
            {v for v, n in zip(schema.variables, own.count.sum(axis=0), strict=True) if n},
        )
        sex = sex_of(cohort.statics, len(cohort.subjects))
        for one in ("", "female", "male"):
            middle = midpoints(schema, ranges, one)
            found[sex == one] = np.where(np.isnan(middle), mean, middle)
    if name == "carry":
        window = schema.window / 2 if window is None else window
        if not (np.isfinite(window) and window > 0):
            raise ArgumentError(f"window must be a positive number of hours, got {window}")
        subject, variable = np.nonzero(own.count)
        for row, column in zip(subject, variable, strict=True):
            first, n = own.first[row, column], own.count[row, column]
            before = np.searchsorted(
                own.time[first : first + n], own.until[row] - window, side="right"
            )
            found[row, column] = own.value[first + max(before - 1, 0)]
    return found


def _answer_of(
    cohort: Cohort,
    schema: Preprocessor,
    run: Run | Ensemble,
    until: np.ndarray,
    explained: Explained,
) -> Answer:
    """What the model says of each subject of a cohort, had it these measurements."""
    names = np.array(schema.variables, dtype=object)
    ids = np.asarray(cohort.subjects)
    outcomes = pd.DataFrame({"subject_id": ids, "prediction_time": until})
    models = [one.model for one in run.members]

    def answer(made: Measurements) -> np.ndarray:
        observations = pd.DataFrame(
            {
                "subject_id": ids[made.subject],
                "time": made.time,
                "variable": names[made.variable],
                "value": made.value,
            }
        )
        other = Cohort.from_tables(
            observations, cohort.statics, cohort.inputs, outcomes, schema=cohort.schema
        )
        records = PackedRecords.build(other, schema, run.task, with_targets=False)
        longest_first = np.argsort(-records.lengths, kind="stable")
        found = np.empty(len(ids))
        for start in range(0, len(ids), _AT_ONCE):
            chosen = longest_first[start : start + _AT_ONCE]
            rows = RecordRows(models, records, chosen, explained)
            with torch.no_grad():
                told = rows(rows.x, torch.arange(len(rows)))
            found[records.subject_index[chosen]] = told.numpy()
        return found

    return answer


def _mean_of(size: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda weights: weights @ size / weights.sum(axis=1)


def _ratio_of(size: np.ndarray, total: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda weights: (weights @ size) / (weights @ total)


def _told(drawn: Bootstrap, name: str) -> dict[str, Estimate]:
    return {
        "mean_absolute": drawn.estimate(f"size {name}"),
        "share": drawn.estimate(f"share {name}", why="no kind moved any output"),
    }
