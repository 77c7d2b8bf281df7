"""The page on a model's own dynamics: where it rests, how fast, and what treatments move in it.

It describes the model. A treatment is recorded for those who are ill, so what the model ties to it
is an association; the page says so first, and its words keep to it.
"""

import math
from typing import Any

from matplotlib.text import Text

from clinode.cohort.names import shown_name, trained_names
from clinode.control.portrait import Portrait, portrait
from clinode.errors import ArgumentError, SolverError, printable
from clinode.figures.picture import data_uri
from clinode.figures.portrait import COLUMNS, ROWS, portrait_figure
from clinode.report.wording import measured, significant
from clinode.training import Run

FILE = "dynamics.html"
SHOWN_MODES = 20
SHOWN_HANKEL = 8

WARNINGS = (
    "This page describes the fitted model, not a patient and not a disease. In records, treatment "
    "goes to those who are ill; a response on this page is what the model associates with a "
    "recorded treatment, confounded by who received it. It says nothing about what the treatment "
    "does.",
)


def dynamics_page(run: Run, found: Portrait | None = None) -> dict[str, Any] | str:
    """What the template prints, or in words why there is no such page."""
    if found is None:
        try:
            found = portrait(run.model.latent_system)
        except (ArgumentError, SolverError) as refusal:
            return printable(refusal.problem)
    page = _told(run, found)
    for name, shown in _hidden(run, found).items():
        page = _called(page, name, shown)
    return page


def _hidden(run: Run, found: Portrait) -> dict[str, str]:
    """Names that may be a note on one subject, and what stands in their place."""
    trained = trained_names(run.fingerprint)
    names = [name for quantity in (*found.inputs, *found.outputs) for name in quantity.names]
    hidden = [name for name in names if shown_name(name, trained) != name]
    return {name: shown_name(name, trained) for name in sorted(hidden, key=len, reverse=True)}


def _called(value: Any, name: str, shown: str) -> Any:
    """A part of the page with a name replaced wherever it stands."""
    if isinstance(value, dict):
        return {key: _called(part, name, shown) for key, part in value.items()}
    if isinstance(value, list):
        return [_called(part, name, shown) for part in value]
    return value.replace(printable(name), shown) if isinstance(value, str) else value


def _told(run: Run, found: Portrait) -> dict[str, Any]:
    unit = found.time_unit
    stays = (
        "It stays there." if found.equilibrium.is_stable else "Left alone, it drifts away again."
    )
    return {
        "model": type(run.model).__name__,
        "warnings": WARNINGS,
        "verdict": printable(found.verdict[0].upper() + found.verdict[1:] + "."),
        "rest_words": "The state at which the model stands still when no treatment is recorded and "
        f"nothing is measured any more. {stays} Of such states: {found.equilibria.verdict}.",
        "rest": [_rest(row) for row in found.rest.to_dict("records")],
        "modes": [_mode(row, unit) for row in found.modes.head(SHOWN_MODES).to_dict("records")],
        "n_modes": len(found.modes),
        "mode_words": "A mode is a pattern that the outputs show and that fades, or grows, by one "
        "rate. Its gain is its part in the answer of the outputs to the treatments, outputs in "
        "widths of their measured range, treatments in the levels above. Modes that no treatment "
        "moves are the model's memory of each last value: measurements set them.",
        "control": printable(found.controllability.verdict),
        "hankel": _hankel(found),
        "reach": _reach(found),
        "response": _response(found, _hidden(run, found)),
    }


def _rest(row: dict[str, Any]) -> dict[str, str]:
    unit = "" if row["unit"] == "1" else f" {row['unit']}"
    within = {None: "–", True: "yes", False: "no"}[row["is_within"]]
    return {
        "name": printable(row["output"]),
        "value": f"{measured(row['value'])}{unit}",
        "range": f"{measured(row['low'])} to {measured(row['high'])}",
        "within": within,
    }


def _mode(row: dict[str, Any], unit: str) -> dict[str, str]:
    period = f"{measured(1 / row['frequency'])} {unit}" if row["frequency"] else "none"
    fate = {True: "fades", False: "grows", None: "undecided"}[row["is_stable"]]
    return {
        "time": f"{measured(row['time_constant'])} {unit}",
        "fate": fate,
        "period": period,
        "moved": {True: "yes", False: "no", None: "undecided"}[row["is_moved"]],
        "gain": significant(row["gain"]) if math.isfinite(row["gain"]) else "undefined",
        "outputs": printable(row["outputs"]),
    }


def _hankel(found: Portrait) -> str:
    if found.hankel is None:
        return "The linearization is not stable, so it has no Hankel singular values."
    values = ", ".join(significant(float(v)) for v in found.hankel[:SHOWN_HANKEL])
    above = int((found.hankel > 0.01 * found.hankel[0]).sum()) if len(found.hankel) else 0
    return (
        f"Hankel singular values {values}, ...: {above} of {len(found.hankel)} lie above a "
        "hundredth of the largest, so that treatments and outputs see a system of about that size."
    )


def _reach(found: Portrait) -> list[dict[str, str]]:
    units = {n: q.unit for q in found.inputs for n in q.names}
    rows = []
    for row in found.reach.to_dict("records"):
        name = row["input"]
        unit = "" if units[name] == "1" else f" {units[name]}"
        rows.append(
            {
                "name": printable(name),
                "level": f"{measured(found.levels[name])}{unit}",
                "reach": significant(row["reach"]),
            }
        )
    return rows


def _response(found: Portrait, hidden: dict[str, str]) -> dict[str, Any]:
    figure = portrait_figure(found)
    for text in figure.findobj(Text):
        for name, shown in hidden.items():
            text.set_text(text.get_text().replace(name, shown))
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    last = {(row["input"], row["output"]): row for row in found.at_horizon}
    units = {name: q.unit for q in found.outputs for name in q.names}
    rows = []
    for name, outputs in found.widest_responses(ROWS, COLUMNS).items():
        for output in outputs:
            own = last[name, output]
            unit = "" if units[output] == "1" else f" {printable(units[output])}"
            rows.append(
                {
                    "input": printable(name),
                    "output": printable(output),
                    "change": _change(float(own["change"])) + unit,
                    "linear": _change(float(own["linear"])) + unit,
                }
            )
    return {
        "image": data_uri(figure),
        "width": width,
        "height": height,
        "alt": "Change of the outputs that the model moves most while each treatment is held, in "
        "the model and in its linearization; the ends are in the table below.",
        "caption": f"Each treatment held alone for {measured(found.horizon)} {found.time_unit} at "
        "its level (a dose: so much an hour), from the equilibrium. Solid: the model; dashed: its "
        "linearization. A gap between them is where linear answers on this page stop holding.",
        "rows": rows,
    }


def _change(value: float) -> str:
    return f"{'+' if value >= 0 else '−'}{measured(abs(value))}"
