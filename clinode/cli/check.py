"""`clinode check`: what is in a cohort, and what became of every row of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinode.cli.answers import called
from clinode.cli.options import Answer, Data

if TYPE_CHECKING:
    from clinode.cohort.definition import DefinedTask


def check(
    data: Data,
    answer: Answer,
    out: Annotated[
        Path, typer.Option(help="JSON file that says what the cohort looks like.")
    ] = Path("fingerprint.json"),
    suggest: Annotated[
        Path | None, typer.Option(help="YAML file for rules about doubtful rows, to be edited.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run: how far the cohort has moved from its training part.")
    ] = None,
) -> None:
    """Read a cohort, account for every row, and look for what is suspicious.

    Nothing is changed. With `--task-file` it is the cohort of that task, and how it came to be is
    counted. `--suggest` writes what a person should decide as a policy to edit, which
    every command then follows with `--policy`. `--run` compares the cohort, up to its prediction
    times, with what the run read of its training part.
    """
    from clinode.cli.verdicts import drift_lines
    from clinode.cohort import check as look_over
    from clinode.folder import atomic_write, check_place, write_json
    from clinode.training import load_run
    from clinode.training.drift import find_drift

    for path in (out, suggest):
        if path is not None:
            check_place(path)
    defined = data.defined()
    cohort = data.read() if defined is None else defined.cohort
    found = look_over(cohort)
    if defined is not None:
        found["flow"] = defined.flow.to_dict()
    moved: list[str] = []
    if run is not None:
        drift = find_drift(load_run(run), cohort)
        found["drift"], moved = drift.to_dict(), [*drift_lines(drift), ""]
    write_json(out, found["fingerprint"])
    if suggest is not None:
        atomic_write(suggest, found["suggested_policy"])
    lines = [*_what_there_is(found), "", *_ledger(found), "", *_suspicions(found), ""]
    if defined is not None:
        lines += [*flow_lines(defined), ""]
    lines += moved
    also = "" if suggest is None else f" and {called(suggest)}; edit it"
    lines.append(f"Wrote {called(out)}{also}")
    answer.tell({**found, "out": out, "suggest": suggest}, lines)


def flow_lines(defined: "DefinedTask") -> list[str]:
    """How the cohort of a task came to be, a line a rule."""
    from clinode.cli.answers import table

    rows = [
        (
            step.rule + (" (looks beyond the prediction time)" if step.looks_ahead else ""),
            step.n_subjects_out,
            step.n_subjects_left,
            step.n_left,
        )
        for step in defined.flow.steps
    ]
    flow = defined.flow
    return [
        *table(["rule", "subjects out", "subjects left", "prediction times left"], rows),
        f"Labels: {flow.n_positive:,} positive, {flow.n_negative:,} negative, "
        f"{flow.n_unknown:,} unknown",
    ]


def _what_there_is(found: dict[str, Any]) -> list[str]:
    from clinode.cli.answers import table

    fingerprint = found["fingerprint"]
    measured = [
        (variable["name"], _unit(variable), variable["n"], variable["n_subjects"])
        for variable in fingerprint["variables"]
    ]
    return [
        f"{found['n_subjects']:,} subjects, {found['n_observations']:,} observations, "
        f"{fingerprint['n_inputs']:,} treatments, format {found['source']['format']}",
        "",
        *table(["variable", "unit", "observations", "subjects"], measured),
    ]


def _unit(variable: dict[str, Any]) -> str:
    return "" if variable["unit"] == "1" else variable["unit"]  # dimensionless, or nobody said


def _ledger(found: dict[str, Any]) -> list[str]:
    from clinode.cli.answers import table

    rows: dict[tuple[str, str, str], int] = {}
    for entry in found["ledger"]:
        key = (entry["table"], entry["action"], entry["reason"])
        rows[key] = rows.get(key, 0) + entry["rows"]
    words = "balance" if found["balanced"] else "DO NOT BALANCE: please report it"
    drawn = table(["table", "action", "reason", "rows"], [(*key, n) for key, n in rows.items()])
    return [*drawn, f"Rows read and rows kept, dropped, merged and moved {words}."]


def _suspicions(found: dict[str, Any]) -> list[str]:
    from clinode.cli.answers import table

    if not found["findings"]:
        return ["Nothing suspicious was found."]
    rows = [(one["kind"], one["table"], one["variable"], one["text"]) for one in found["findings"]]
    return ["To look at:", *table(["kind", "table", "variable", "what"], rows)]
