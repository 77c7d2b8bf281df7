"""Pages of all explained subjects: the model is asked once for all, then each is filled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clinode.attribution import Attributions, KindAttributions
from clinode.attribution.changes import nearest_changes
from clinode.attribution.explained import LOG_ODDS
from clinode.cohort import Cohort, Forecast, Variable
from clinode.cohort.names import names_of, shown_name, trained_names
from clinode.errors import ArgumentError, printable
from clinode.report.answers import forecast_variable, subject_answers
from clinode.report.fan import forecast_fans, subject_fans
from clinode.report.material import Told
from clinode.report.opinions import changes_table, kinds_of_subject
from clinode.report.subject import Beside, subject_page
from clinode.report.wording import BASELINES, contribution_unit, ordinal
from clinode.training import Ensemble, Run

COLUMNS = ["time", "variable", "value"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Asked:
    """What the pages are to hold beside each subject's own map.

    Args:
        forecasts: A run that forecasts, of the same subjects; None asks the explained one.
        members: Attributions of single members of an ensemble.
        others: Attributions of the same output under other baselines or methods.
        kinds: A split by kind; its rows of subjects count where it is `KindAttributions`.
        threshold: The risk that single changes are to cross; None for none.
    """

    forecasts: Run | Ensemble | None = None
    members: Sequence[Attributions] = ()
    others: Sequence[Attributions] = ()
    kinds: Told | None = None
    threshold: float | None = None


def subject_pages(
    run: Run | Ensemble,
    cohort: Cohort,
    attributions: Attributions,
    asked: Asked,
    scored: pd.DataFrame | None,
) -> list[dict[str, Any]]:
    """What the template prints for each explained subject, in the order of `attributions.gates`.

    Args:
        run: That was explained.
        cohort: That it was asked about.
        attributions: Of its subjects.
        asked: What else the pages hold.
        scored: One row a prediction with a known outcome, or None.

    Raises:
        ArgumentError: What stands beside the map is of another output.
    """
    _check(attributions, asked)
    variables = _named(cohort)
    trained = run.members[0]
    shown = names_of(cohort) | trained_names(trained.fingerprint)
    known = [name for name in trained.schema.variables if shown_name(name, shown) == name]
    position = {subject: k for k, subject in enumerate(cohort.subjects)}
    own = _by_subject(_with_ends(attributions.to_pandas(), cohort))
    empty = _with_ends(attributions.to_pandas().head(0), cohort)
    answers = subject_answers(run, cohort, attributions, variables)
    history = _by_subject(_measured(cohort, attributions.gates))
    fans = forecast_fans(asked.forecasts or run, cohort, attributions)
    ahead = _by_subject(fans.ahead)
    first = forecast_variable(attributions) if isinstance(run.task, Forecast) else None
    members = [_by_subject(one.to_pandas()) for one in asked.members]
    others = [(one, _by_subject(one.to_pandas())) for one in asked.others]
    kinds, no_kinds = _kinds(asked.kinds)
    changes, no_changes = _changes(run, cohort, attributions, asked.threshold)
    unit, nothing = contribution_unit(printable(attributions.scale)), pd.DataFrame()
    pages: list[dict[str, Any]] = []
    for gate, answer in zip(attributions.gates.to_dict("records"), answers, strict=True):
        subject = gate["subject_id"]
        time = float(gate["prediction_time"])
        seen = history.get(subject, pd.DataFrame(columns=COLUMNS))
        drawn = subject_fans(fans, ahead[subject], seen, time, variables, first)
        row = kinds.get(subject)
        beside = Beside(
            fans=drawn,
            no_fans="" if drawn else "nothing was measured.",
            kinds=None
            if row is None or asked.kinds is None
            else kinds_of_subject(row, unit, BASELINES[str(getattr(asked.kinds, "baseline", ""))]),
            no_kinds=no_kinds or "this subject was not split.",
            changes=None
            if changes is None or asked.threshold is None or gate["withheld"]
            else changes_table(changes.get(subject, nothing), asked.threshold, variables),
            no_changes=no_changes or "the map of this subject is withheld.",
            members=[one.get(subject, empty) for one in members],
            others=[(one, held.get(subject, empty)) for one, held in others],
        )
        page = subject_page(
            attributions=attributions,
            events=own.get(subject, empty),
            gate=gate,
            answer=answer,
            beside=beside,
            variables=variables,
            known=known,
            seen=list(seen["variable"].astype(str)),
            scored=scored,
        )
        name = ordinal(position[subject])
        top = page.get("by_variable") or [{"name": "–", "contribution": ""}]
        pages.append(
            page
            | {
                "ordinal": name,
                "file": f"subject-{name[1:]}.html",
                "percent": answer.headline,
                "output": float(gate["output"]),
                "events": len(seen),
                "largest": f"{top[0]['name']} {top[0]['contribution']}",
                "map": "withheld" if gate["withheld"] else "shown",
            }
        )
    return pages


def _check(attributions: Attributions, asked: Asked) -> None:
    for word, held in (("members", asked.members), ("others", asked.others)):
        for one in held:
            same = (one.outcome, one.scale, one.hours) == (
                attributions.outcome,
                attributions.scale,
                attributions.hours,
            )
            if not same:
                raise ArgumentError(
                    f"{word} holds attributions of {one.outcome!r} in {one.scale}, and the pages "
                    f"are of {attributions.outcome!r} in {attributions.scale}",
                    fix="explain the same output",
                )
    for one in asked.members:
        if one.players != attributions.players:
            raise ArgumentError(
                f"members credits every {one.players}, and the pages every {attributions.players}",
                fix="explain the members by the same method",
            )


def _kinds(kinds: Told | None) -> tuple[dict[object, dict[str, Any]], str]:
    """The rows of single subjects by subject; why there is none."""
    if kinds is None:
        return {}, "it was not computed for this report."
    if not isinstance(kinds, KindAttributions):
        return {}, "what was handed over does not speak of single subjects."
    rows = kinds.to_pandas().to_dict("records")
    return {row["subject_id"]: {str(k): v for k, v in row.items()} for row in rows}, ""


def _changes(
    run: Run | Ensemble, cohort: Cohort, attributions: Attributions, threshold: float | None
) -> tuple[dict[object, pd.DataFrame] | None, str]:
    if attributions.scale != LOG_ODDS:
        return None, "a forecast has no threshold of risk."
    if threshold is None:
        return None, "no threshold of risk was stated for this model."
    if attributions.players != "event":
        return None, f"the map credits every {attributions.players}, not single values."
    return _by_subject(nearest_changes(run, cohort, attributions, threshold)), ""


def _by_subject(table: pd.DataFrame) -> dict[object, pd.DataFrame]:
    return dict(list(table.groupby("subject_id", sort=False)))


def _named(cohort: Cohort) -> dict[str, Variable]:
    schema = cohort.schema
    return {v.name: v for v in (*schema.inputs, *schema.statics, *schema.variables)}


def _with_ends(events: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """The events with the end of each treatment beside its start."""
    if "input" not in set(events["kind"]) or bool(np.all(events["value"].isna())):
        return events.assign(end=np.nan)
    ends = cohort.inputs.rename(columns={"start": "time"})
    keys = ["subject_id", "kind", "time", "variable", "value"]
    ends = ends.assign(kind="input").astype({"variable": str}).drop_duplicates(keys)
    given = events.query("kind == 'input'")  # the values of other kinds may be texts
    found = given.astype({"variable": str, "value": float})
    found = found.merge(ends[[*keys, "end"]], how="left", on=keys)
    return events.assign(end=pd.Series(found["end"].to_numpy(), index=given.index))


def _measured(cohort: Cohort, gates: pd.DataFrame) -> pd.DataFrame:
    """Every value at or before each explained subject's prediction time."""
    table = cohort.observations[["subject_id", *COLUMNS]].merge(
        gates[["subject_id", "prediction_time"]], on="subject_id"
    )
    table = pd.DataFrame(table[table["time"] <= table["prediction_time"]])
    return table.drop(columns="prediction_time").sort_values(by=["subject_id", "time"])
