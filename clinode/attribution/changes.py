"""Which single measured value, had it been another, would have taken the output over a threshold.

A statement on the model alone: everything else of the record stays as it was, which no patient's
body does. Values are searched within what the training part held; times and what was ordered stay.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from clinode.attribution.attributions import Attributions
from clinode.attribution.explain import last_of_each
from clinode.attribution.explained import LOG_ODDS, explained_of
from clinode.attribution.rows import RecordRows
from clinode.cohort import Cohort, PackedRecords, Survive
from clinode.errors import ArgumentError
from clinode.evaluation import Recalibration
from clinode.training import Ensemble, Run

N_GRID = 17  # values tried for each measurement, over the training range
N_HALVINGS = 10  # of the interval in which the threshold is crossed
SEARCHED = 12  # measurements of each subject: those with the largest contributions
COLUMNS = ("subject_id", "time", "variable", "value", "changed", "distance", "logit")


def nearest_changes(
    run: Run | Ensemble,
    cohort: Cohort,
    attributions: Attributions,
    risk: float,
    *,
    most: int = 3,
    batch_size: int = 1024,
) -> pd.DataFrame:
    """The nearest changes of one measured value that take a subject's output over a risk.

    Of each subject whose map is not withheld the twelve measurements with the largest
    contributions are searched, each alone, over the range of the training part; of a measurement
    the nearest value counts at which the output has crossed. A crossing between two of the values
    tried that turns back before the next is not seen.

    Args:
        run: That was explained.
        cohort: That it was asked about.
        attributions: Of `explain(run, cohort)`, a row an event, of a label or of survival.
        risk: The threshold, within (0, 1); crossed from whichever side the subject is on.
        most: Changes of a subject, the nearest first.
        batch_size: Versions of records evaluated at once.

    Returns:
        subject_id, time (h), variable, value (as measured), changed (the value at which the output
        has crossed), distance (training standard deviations from what the model read, which is
        clipped to the range of the training part), logit (recalibrated, there). A subject without
        a row has no such change among those searched.

    Raises:
        ArgumentError: The risk is not within (0, 1); the attributions are of a forecast, or of
            variables or windows instead of events.
    """
    if not 0 < risk < 1:
        raise ArgumentError(f"the risk to cross must lie within (0, 1), got {risk}")
    if attributions.players != "event" or attributions.scale != LOG_ODDS:
        raise ArgumentError(
            f"a risk can be crossed by single values, and these attributions credit every "
            f"{attributions.players} in {attributions.scale}"
        )
    members = run.members
    schema = members[0].schema
    records, positions = explained_records(run, cohort, attributions)
    explained = explained_of(run.task, schema, *_asked(run, attributions))
    longest_first = np.argsort(-records.lengths[positions], kind="stable")
    positions = positions[longest_first]
    rows = RecordRows([one.model for one in members], records, positions, explained)
    found = run.calibration
    threshold = float(np.log(risk / (1 - risk)))

    def beyond(versions: Tensor, which: Tensor) -> Float[np.ndarray, " version"]:
        """How far each version lies above the threshold, in recalibrated log odds."""
        with torch.no_grad():
            logit = torch.cat(
                [
                    rows(versions[k : k + batch_size], which[k : k + batch_size])
                    for k in range(0, len(which), batch_size)
                ]
            ).numpy()
        shown = found.apply(logit) if isinstance(found, Recalibration) else logit
        return shown - threshold

    table = _searched(rows, attributions, cohort, positions)
    if not len(table):
        return pd.DataFrame(columns=list(COLUMNS))
    row = torch.tensor(table["row"].to_numpy())
    column = torch.tensor(table["column"].to_numpy())
    here = rows.x[row, column]
    low, high = (
        (np.asarray(bound) - schema.center) / schema.scale for bound in (schema.low, schema.high)
    )
    variable = table["code"].to_numpy()
    grid = torch.from_numpy(np.linspace(low[variable], high[variable], N_GRID, axis=1))
    above_now = torch.from_numpy(beyond(rows.x, torch.arange(len(rows))) > 0)[row]

    def crossed(value: Tensor, chosen: Tensor) -> Bool[Tensor, " version"]:
        versions = rows.x[row[chosen]].clone()
        versions[torch.arange(len(chosen)), column[chosen]] = value
        return torch.from_numpy(beyond(versions, row[chosen]) > 0) != above_now[chosen]

    every = torch.arange(len(table)).repeat_interleave(N_GRID)
    is_crossed = crossed(grid.reshape(-1), every).reshape(grid.shape)
    chosen, near, far = _brackets(grid, here, is_crossed)
    if not len(chosen):
        return pd.DataFrame(columns=list(COLUMNS))
    for _ in range(N_HALVINGS):
        middle = (near + far) / 2
        over = crossed(middle, chosen)
        near, far = torch.where(over, near, middle), torch.where(over, middle, far)
    versions = rows.x[row[chosen]].clone()
    versions[torch.arange(len(chosen)), column[chosen]] = far
    told = table.iloc[chosen.numpy()].assign(
        changed=schema.restore(variable[chosen.numpy()], far.numpy()),
        distance=(far - here[chosen]).abs().numpy(),
        logit=beyond(versions, row[chosen]) + threshold,
    )
    told = told.sort_values(["order", "distance"], kind="stable")
    return told.groupby("order").head(most)[list(COLUMNS)].reset_index(drop=True)


def explained_records(
    run: Run | Ensemble, cohort: Cohort, attributions: Attributions
) -> tuple[PackedRecords, Int64[np.ndarray, " subject"]]:
    """The records that were explained, and which of them belongs to each row of `gates`.

    Raises:
        ArgumentError: The cohort has no such subject, or another prediction time of it.
    """
    gates = attributions.gates
    schema, wanted = run.members[0].schema, gates["subject_id"].to_numpy()
    times = gates["prediction_time"].to_numpy(dtype=float)
    ats = [None, *np.unique(times).tolist()[:1]]  # the subjects' own times, or one for all
    for at in ats:
        records = PackedRecords.build(cohort, schema, run.task, with_targets=False, at=at)
        positions = last_of_each(records, cohort, wanted)
        if len(positions) != len(wanted):
            continue
        subject = pd.Index(np.asarray(records.instances["subject_id"])[positions])
        positions = positions[subject.get_indexer(pd.Index(wanted))]
        if np.array_equal(records.prediction_time[positions], times):
            return records, positions
    raise ArgumentError(
        "the subjects were explained at other prediction times than the cohort gives them",
        fix="pass the cohort that was given to explain",
    )


def _asked(run: Run | Ensemble, attributions: Attributions) -> tuple[str | None, float | None]:
    """Label or cause, and hours, as `explain` was given them."""
    name = attributions.outcome
    if isinstance(run.task, Survive):
        return name.removeprefix(f"{run.task.event}, cause "), attributions.hours
    return name, attributions.hours


def _searched(
    rows: RecordRows, attributions: Attributions, cohort: Cohort, positions: np.ndarray
) -> pd.DataFrame:
    """The measurements to try: row and column of each in `rows`, and what was measured there."""
    schema = rows.records.schema
    events = attributions.events
    code = pd.Index(schema.variables).get_indexer(pd.Index(events["variable"].astype(str)))
    kept = (events["kind"].to_numpy() == "observation") & (code >= 0)
    events = pd.DataFrame(events.assign(code=code)[kept])
    subjects = np.asarray(rows.records.instances["subject_id"])[positions]
    entries = rows.measured
    own = pd.DataFrame(
        {
            "row": entries.row,
            "column": entries.column,
            "subject_id": subjects[entries.row],
            "number": np.arange(len(entries.row)) - np.searchsorted(entries.row, entries.row),
        }
    )
    events = events.sort_values(by=["subject_id", "time", "code"])
    events["number"] = events.groupby("subject_id").cumcount()
    size = events["attribution"].abs()
    largest = size.groupby(events["subject_id"]).rank(ascending=False, method="first") <= SEARCHED
    order = pd.Series(np.arange(len(attributions.gates)), index=attributions.gates["subject_id"])
    table = events[largest].merge(own, on=["subject_id", "number"], how="inner")
    varies = np.less(schema.low, schema.high)[table["code"].to_numpy()]
    table = table[varies].assign(order=lambda found: order.loc[found["subject_id"]].to_numpy())
    return table.astype({"variable": str}).reset_index(drop=True)


def _brackets(grid: Tensor, here: Tensor, is_crossed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each measurement with a crossing, its position, and the ends between which it lies.

    The far end has crossed; the near one, the value itself or the grid's next, has not.
    """
    chosen = is_crossed.any(dim=1).nonzero().squeeze(1)
    grid, start = grid[chosen], here[chosen].unsqueeze(1)
    distance = torch.where(is_crossed[chosen], (grid - start).abs(), torch.inf)
    far = grid.gather(1, distance.argmin(dim=1, keepdim=True))
    toward = torch.where(far >= start, 1.0, -1.0)
    is_between = ((grid - start) * toward > 0) & ((far - grid) * toward > 0)
    near = (torch.where(is_between, grid, start) * toward).amax(dim=1) * toward.squeeze(1)
    return chosen, near, far.squeeze(1)
