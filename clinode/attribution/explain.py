"""Explain a run on a cohort: how much each measured event moved the output of each subject."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clinode.attribution.attributions import COLUMNS, KINDS, Attributions
from clinode.attribution.baselines import (
    BaselineConfig,
    baseline_named,
    check_ranges,
    read_normal_ranges,
    sex_of,
)
from clinode.attribution.coalitions import Game, against
from clinode.attribution.events import given_events, known_statics, measured_events
from clinode.attribution.explained import explained_of
from clinode.attribution.methods import (
    COALITIONS,
    MethodConfig,
    RowAttributions,
    check_method,
    explain_game,
    explain_rows,
)
from clinode.attribution.rows import RecordRows
from clinode.cohort import Cohort, PackedRecords
from clinode.errors import ArgumentError
from clinode.training import Ensemble, Run
from clinode.training.cross_validate import side_by_side

PLAYERS = {
    "shapley": "variable",
    "kernel_shap": "variable",
    "event_deletion": "event",
    "occlusion": "window",
}
"""What comes and goes together where nothing else is said."""

_RECORDS_AT_ONCE = 1024  # a converged record leaves the batch, so many are needed to keep it full


def explain(
    run: Run | Ensemble,
    cohort: Cohort,
    method: str = "integrated_gradients",
    baseline: str = "cohort_mean",
    *,
    at: float | None = None,
    subjects: Sequence[Any] | np.ndarray | None = None,
    output: str | None = None,
    hours: float | None = None,
    players: str | None = None,
    tolerance: float = 0.01,
    window: float | None = None,
    occluded_hours: float = 6.0,
    normal_ranges: pd.DataFrame | Path | str | None = None,
    n_steps: int = 50,
    n_samples: int = 200,
    n_pairs: int = 16,
    seed: int = 0,
    batch_size: int = 256,
    n_jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Attributions:
    """What moved the output of each subject, compared with a baseline, event by event.

    One row a measured value at or before the prediction time, a treatment begun by then, and a
    static that is known. Nothing that was not measured has a row. A subject whose attributions do
    not sum to the change of the output within the tolerance has no rows: `gates` says why. The
    model is evaluated in float64.

    The output is the log odds of a label, of an event of a cause by some hours, or the forecast of
    a variable in standard deviations of the training part.

    An attribution describes the model and holds for the baseline it was taken against.

    Args:
        run: A run that classifies, forecasts or tells survival, or an ensemble of such: then what
            all members together answer is explained.
        cohort: Its variables must be known to the run.
        method: By gradients: "integrated_gradients" (adaptive, error-controlled),
            "captum_integrated_gradients" (fixed steps), "saliency" (gradient with its sign),
            "input_x_gradient", "gradient_shap" (drawn, with its error). By leaving out: "shapley"
            (exact up to 10 players, else orders drawn in pairs, with their error), "kernel_shap"
            (up to 64 players), "event_deletion" (each event alone), "occlusion" (each variable in
            each stretch of time alone).
        baseline: "cohort_mean" (training mean of each variable), "normal" (midpoint of the
            reference interval), "carry" (last value before the window, which explains change) or
            "delete" (never measured; only for methods that leave out).
        at: Prediction time in hours; None takes each subject's own, its last where it has several.
        output: Label, variable that is forecast, or number of the cause; None takes the first, of a
            forecast it must be named.
        hours: Of a forecast, how far ahead (None: its horizon); of survival, by when (None: the
            middle horizon).
        players: What "shapley" and "kernel_shap" let come and go together: "variable" (all its
            values; a table with one row a variable) or "event". None takes "variable".
        subjects: Whose map is wanted; None for all.
        tolerance: Largest completeness gap relative to max(|change of the logit|, 0.1).
        window: Of "carry", hours before the prediction time; None is half of the training window.
        normal_ranges: Of "normal", rows beside or in place of the shipped ones: a table or a CSV
            file with the columns variable, unit, sex, low, high, source.
        occluded_hours: Of "occlusion", the length of a stretch, counted back from the prediction.
        n_steps: Of "captum_integrated_gradients".
        n_samples: Of "gradient_shap".
        n_pairs: Of "shapley", orders drawn, each with its reverse.
        seed: Of what is drawn.
        batch_size: Records evaluated in one call of the model.
        n_jobs: Parts of the subjects that are explained at the same time, through joblib, on
            whatever back end the caller has set (`joblib.parallel_config("dask")`). More than one
            tell no progress.
        progress: Called with (subjects done, all subjects).

    Raises:
        ArgumentError: The run has no such output; the method or baseline is refused or unknown, or
            they do not go together; a measured variable has no reference interval; a subject is not
            in the cohort.
        SchemaError: The cohort has a variable that the training part did not have, or the table of
            reference intervals is malformed.
    """
    if n_jobs < 1:
        raise ArgumentError(f"n_jobs must be at least 1, got {n_jobs}")
    if n_jobs > 1:
        wanted = pd.Index(cohort.subjects if subjects is None else np.asarray(subjects))
        lacking = ~wanted.isin(pd.Index(cohort.subjects))
        if lacking.any():
            raise ArgumentError(f"{int(lacking.sum())} of the subjects are not in the cohort")
        everyone = [one for one in cohort.subjects if one in wanted]  # in the order of the cohort
        options: dict[str, Any] = {
            **{"method": method, "baseline": baseline, "at": at, "output": output, "hours": hours},
            **{"players": players, "tolerance": tolerance, "window": window, "n_steps": n_steps},
            **{"occluded_hours": occluded_hours, "normal_ranges": normal_ranges, "seed": seed},
            **{"n_samples": n_samples, "n_pairs": n_pairs, "batch_size": batch_size},
        }
        parts_of = [list(part) for part in np.array_split(np.array(everyone, dtype=object), n_jobs)]
        return _joined(
            side_by_side(
                lambda part: explain(run, cohort.select(part), **options),
                [part for part in parts_of if part],
                n_jobs,
            )
        )
    check_method(method)
    choose = baseline_named(baseline, may_delete=method in COALITIONS)
    group = _players_of(method, players)
    config = MethodConfig(
        tolerance=tolerance,
        n_steps=n_steps,
        n_samples=n_samples,
        n_pairs=n_pairs,
        seed=seed,
        batch_size=batch_size,
    )
    members = run.members
    schema = members[0].schema
    explained = explained_of(run.task, schema, output, hours)
    _check_hours(window, at)
    _check_hours(occluded_hours, None)
    records = PackedRecords.build(cohort, schema, run.task, with_targets=False, at=at)
    positions = last_of_each(records, cohort, subjects)
    observed = measured_events(cohort, records, positions)
    given = given_events(cohort, records, positions)
    statics = known_statics(cohort, records, positions)
    needs = BaselineConfig(
        window=schema.window / 2 if window is None else window,
        ranges=read_normal_ranges(normal_ranges),
        sex=sex_of(cohort.statics, len(cohort.subjects))[records.subject_index[positions]],
    )
    if baseline == "normal":
        check_ranges(schema, needs.ranges, set(observed.name[observed.is_read]))
    longest_first = np.argsort(-records.lengths[positions], kind="stable")
    parts: list[pd.DataFrame] = []
    for start in range(0, len(positions), _RECORDS_AT_ONCE):
        chosen = longest_first[start : start + _RECORDS_AT_ONCE]
        rows = RecordRows([one.model for one in members], records, positions[chosen], explained)
        reference = None
        if choose is not None:
            reference = choose(rows, replace(needs, sex=needs.sex[chosen]))
        report = None if progress is None else _shifted(progress, start, len(positions))
        here = replace(config, progress=report)
        if reference is not None and method not in COALITIONS:
            found = explain_rows(rows, rows.x, reference, method, here)
        else:
            value = rows.without if reference is None else against(rows, rows.x, reference)
            found = explain_game(Game(value, rows.players(group, occluded_hours)), method, here)
        observed.receive(found.values.numpy(), rows.measured, chosen)
        given.receive(found.values.numpy(), rows.given, chosen)
        statics.receive(found.values.numpy(), rows, chosen)
        parts.append(_gates(found))
    gates = pd.concat(parts, ignore_index=True).iloc[np.argsort(longest_first)]
    instances = records.instances.iloc[positions].reset_index(drop=True)
    gates = pd.concat([instances, gates.reset_index(drop=True)], axis=1)
    tables = [statics.table(), observed.table("observation"), given.table("input")]
    if group != "event":
        until = records.prediction_time[positions]
        tables = [_together(table, group, until, occluded_hours) for table in tables]
    return Attributions(
        events=_events(tables, gates),
        gates=gates,
        method=method,
        baseline=baseline,
        outcome=explained.name,
        tolerance=tolerance,
        players=group,
        scale=explained.scale,
        hours=explained.hours,
    )


def _joined(parts: list[Attributions]) -> Attributions:
    """What parts of the subjects were told, as of all of them."""
    if not parts:
        raise ArgumentError("there is no subject to explain")
    return replace(
        parts[0],
        events=pd.concat([part.events for part in parts], ignore_index=True),
        gates=pd.concat([part.gates for part in parts], ignore_index=True),
    )


def _players_of(method: str, players: str | None) -> str:
    if method not in PLAYERS:
        if players not in (None, "event"):
            raise ArgumentError(f"{method!r} credits every event by itself: leave players out")
        return "event"
    if players is None or players == PLAYERS[method]:
        return PLAYERS[method]
    if method in ("event_deletion", "occlusion") or players not in ("event", "variable"):
        raise ArgumentError(
            f"players of {method!r} cannot be {players!r}",
            fix=f'leave it out, which means "{PLAYERS[method]}"; shapley and kernel_shap also '
            'take "event"',
        )
    return players


def _together(table: pd.DataFrame, group: str, until: np.ndarray, hours: float) -> pd.DataFrame:
    """One row a player of measurements or treatments: times are the begin of its stretch, or none.

    Values are left out: there is not one.
    """
    if not len(table) or table["kind"].iloc[0] == "static":
        return table
    end = until[table["record"].to_numpy()]
    stretch = np.maximum(np.floor((end - table["time"].to_numpy()) / hours), 0)
    begin = end - (stretch + 1) * hours if group == "window" else np.zeros(len(table))
    keys = ["record", "kind", "time", "variable"]
    groups = table.assign(time=begin).groupby(keys, sort=True, observed=True, as_index=False)
    summed = groups.agg(attribution=("attribution", "sum")).assign(value=np.nan)
    return summed if group == "window" else summed.assign(time=np.nan)


def _check_hours(window: float | None, at: float | None) -> None:
    if window is not None and not (np.isfinite(window) and window > 0):
        raise ArgumentError(f"window must be a positive number of hours, got {window}")
    if at is not None and not np.isfinite(at):
        raise ArgumentError(f"the prediction time must be a finite number of hours, got {at}")


def last_of_each(
    records: PackedRecords, cohort: Cohort, subjects: Sequence[Any] | np.ndarray | None
) -> np.ndarray:
    """Positions of the last record of each subject, in the order of the cohort."""
    last = np.flatnonzero(np.diff(records.subject_index, append=-1) != 0)
    if len(last) == 0 or (subjects is not None and len(subjects) == 0):
        raise ArgumentError("there is no subject to explain")
    if subjects is None:
        return last
    index = pd.Index(cohort.subjects).get_indexer(pd.Index(np.asarray(subjects)))
    if (index < 0).any():
        raise ArgumentError(f"{int((index < 0).sum())} of the subjects are not in the cohort")
    return last[np.isin(records.subject_index[last], index)]


def _shifted(
    progress: Callable[[int, int], None], start: int, n_records: int
) -> Callable[[int, int], None]:
    return lambda done, _: progress(start + done, n_records)


def _gates(found: RowAttributions) -> pd.DataFrame:
    """What is known of each map."""
    names = ("output", "base", "gap", "rows_used", "withheld", "why")
    table = pd.DataFrame({name: getattr(found, name) for name in names})
    if found.error is None:
        return table.assign(standard_error=0.0)
    return table.assign(standard_error=found.error.amax(dim=1).numpy())


def _events(tables: list[pd.DataFrame], gates: pd.DataFrame) -> pd.DataFrame:
    """Rows of the subjects that are not withheld: statics, measurements, treatments of each."""
    filled = [table for table in tables if len(table)] or tables[1:2]
    events = pd.concat(filled, ignore_index=True)
    record = events["record"].to_numpy()
    kind = np.array([KINDS.index(kind) for kind in events["kind"]], dtype=np.int64)
    order = np.lexsort((events["time"].to_numpy(), kind, record))
    order = order[~gates["withheld"].to_numpy(dtype=bool)[record[order]]]
    subject = gates["subject_id"].to_numpy()[record[order]]
    events = events.iloc[order].reset_index(drop=True)
    return events.assign(subject_id=subject).loc[:, list(COLUMNS)]
