"""`clinode decide`: reaction times, and which models could have given them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinode.cli.answers import called
from clinode.cli.options import Answer
from clinode.errors import ArgumentError, SchemaError

if TYPE_CHECKING:
    import pandas as pd

    from clinode.behavior import DecisionComparison, SwivelOrShift


def decide(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="CSV or Parquet, one row a trial.")],
    answer: Answer,
    time: Annotated[str, typer.Option(help="Column with the reaction time.")],
    unit: Annotated[str, typer.Option(help="Its unit: s or ms.")] = "s",
    choice: Annotated[
        str | None, typer.Option(help="Column with the response, 1 or 0; none where all are one.")
    ] = None,
    condition: Annotated[
        str | None, typer.Option(help="Column with the condition; each has its own rates of rise.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Take rows where COLUMN=VALUE; may be repeated.")
    ] = None,
    contaminants: Annotated[
        bool, typer.Option("--contaminants", help="Let a share of the trials be of no model.")
    ] = False,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds; trials without a time were not done by then.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="PNG or SVG file for a plot of the preferred model.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the starts of every search.")] = 0,
) -> None:
    """Fit models of decision times, compare them, and say whether any of them will do.

    With one response LATER and a diffusion to one bound are fitted, with two the diffusion between
    two, the linear accumulators and the race.
    Conditions of one response are also asked whether they swivel or shift.
    """
    from clinode.behavior import DDM, LATER, LBA, Wald, WaldRace, compare, fit, swivel_or_shift
    from clinode.folder import check_place

    if figure is not None:
        if figure.suffix.lower() not in (".png", ".svg"):
            raise ArgumentError(f"expected a name in .png or .svg, got {figure.name!r}")
        check_place(figure)
    trials: Any = _trials(data, time, unit, choice, condition, only or [], deadline is not None)
    told: dict[str, Any] = {
        "condition": None if condition is None else trials["condition"].tolist(),
        "contaminants": contaminants,
        "deadline": deadline,
        "seed": seed,
    }
    is_single = choice is None
    one, two = {"later": LATER, "wald": Wald}, {"ddm": DDM, "lba": LBA, "wald race": WaldRace}
    models = one if is_single else two
    free = {
        "later": ("mean", "spread", "early_spread"),
        "wald": ("drift", "threshold"),
        "ddm": ("drift",),
        "lba": ("drift", "other_drift"),
        "wald race": ("drift", "other_drift"),
    }
    fits = {}
    for name, model in models.items():
        answer.progress(f"fitting {name} to {len(trials):,} trials")
        given = () if is_single else (trials["choice"].to_numpy(copy=True),)
        apart = free[name] if condition is not None else ()
        fits[name] = fit(model, trials["time"].to_numpy(copy=True), *given, free=apart, **told)
    found = compare(fits)
    turned = None
    if is_single and condition is not None and trials["condition"].nunique() > 1:
        known = trials[trials["time"] < float("inf")]
        turned = swivel_or_shift(
            known["time"].to_numpy(copy=True), known["condition"].tolist(), seed=seed
        )
    result = {"n_trials": len(trials), **found.to_dict()}
    result["parameters"] = {name: one.to_pandas().to_dict("records") for name, one in fits.items()}
    if turned is not None:
        result["swivel_or_shift"] = {"preferred": turned.preferred, "accepted": turned.accepted,
                                     "p_values": turned.p_values}  # fmt: skip
    lines = _lines(found, turned)
    if figure is not None:
        shown = found.preferred or min(fits, key=lambda name: fits[name].bic)
        _draw(fits[shown], figure, is_single=is_single)
        lines.append(f"Wrote {called(figure)}, of {shown}")
        result["figure"] = figure
    answer.tell(result, lines)


def _trials(
    data: Path,
    time: str,
    unit: str,
    choice: str | None,
    condition: str | None,
    only: list[str],
    may_lack: bool,
) -> "pd.DataFrame":
    """The trials, times in seconds; a time that is missing is infinite."""
    import numpy as np
    import pandas as pd

    from clinode.cli.tables import read_table

    if unit not in ("s", "ms"):
        raise ArgumentError(f"the unit of a time is s or ms, got {unit!r}")
    table: Any = read_table(data)
    for pair in only:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ArgumentError("--only wants COLUMN=VALUE", fix="such as --only participant=b")
        _need(table, name, data)
        table = table[table[name].astype(str) == value]
    columns = {"time": time, "choice": choice, "condition": condition}
    for name in columns.values():
        if name is not None:
            _need(table, name, data)
    if not len(table):
        raise SchemaError("no trial is left", where=data.name, fix="look at --only")
    times = np.asarray(pd.to_numeric(table[time], errors="coerce"), dtype=np.float64)
    n_lacking = int(np.isnan(times).sum())
    if n_lacking and not may_lack:
        raise SchemaError(
            f"column {time!r}: {n_lacking} of {len(times)} rows hold no number",
            where=data.name,
            fix="leave them out, or say the --deadline by which they were not done",
        )
    times = np.where(np.isnan(times), np.inf, times / (1000 if unit == "ms" else 1))
    found = pd.DataFrame({"time": times})
    if choice is not None:
        chosen = np.asarray(pd.to_numeric(table[choice], errors="coerce"), dtype=np.float64)
        found["choice"] = np.where(np.isfinite(times), chosen, 0.0)  # of a late one none is known
    if condition is not None:
        if table[condition].isna().any():
            n = int(table[condition].isna().sum())
            raise SchemaError(f"column {condition!r}: {n} rows are empty", where=data.name)
        found["condition"] = table[condition].astype(str).to_numpy()
    return found


def _need(table: "pd.DataFrame", name: str, data: Path) -> None:
    from clinode.cli.tables import columns_in_words

    if name not in table.columns:
        raise SchemaError(
            f"no column {name!r}; there are: {columns_in_words(table)}", where=data.name
        )


def _lines(found: "DecisionComparison", turned: "SwivelOrShift | None") -> list[str]:
    from clinode.cli.answers import table

    told = found.to_pandas()
    rows = [
        (
            row["model"],
            f"{row['log_likelihood']:.1f}",
            str(row["n_parameters"]),
            f"{row['aic']:.1f}",
            f"{row['bic']:.1f}",
            f"{row['p_value']:.2g}",
            "rejected" if row["is_rejected"] else "will do",
        )
        for row in told.to_dict("records")
    ]
    head = ["model", "log likelihood", "parameters", "AIC", "BIC", "p of the check", "verdict"]
    lines = [*table(head, rows), "", f"{found.verdict[0].upper()}{found.verdict[1:]}."]
    if turned is not None:
        held = "no worse than" if turned.accepted else "worse than"
        lines.append(
            f"Between conditions the lines {turned.preferred}: {held} each by itself "
            f"(p = {turned.p_values[turned.preferred]:.2g})."
        )
    return lines


def _draw(fitted: Any, path: Path, *, is_single: bool) -> None:
    import io

    from clinode.figures.decision import quantile_probability_figure, reciprobit_figure
    from clinode.folder import atomic_write

    drawn = reciprobit_figure(fitted) if is_single else quantile_probability_figure(fitted)
    held = io.BytesIO()
    drawn.savefig(held, format=path.suffix[1:].lower(), dpi=150)
    atomic_write(path, held.getvalue())
