"""`clinode simulate` and `bifurcate`: what a system we wrote down does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinode.cli.answers import called
from clinode.cli.assignments import (
    constant_inputs,
    initial_state,
    input_signal,
    parse_span,
    with_values,
)
from clinode.cli.options import Answer
from clinode.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from clinode.dynamics import Branch, Onset, SpecialPoint
    from clinode.system import System

SystemName = Annotated[str, typer.Argument(metavar="SYSTEM", help="A system of `clinode list`.")]
Constants = Annotated[
    list[str] | None, typer.Option("--set", help="A constant, as NAME=VALUE or NAME='VALUE UNIT'.")
]
PICTURES = (".svg", ".png")


def simulate(
    system: SystemName,
    answer: Answer,
    until: Annotated[str, typer.Option(help="Last time, such as 500 or '0.5 s'.")],
    changes: Constants = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="NAME=VALUE, or NAME=VALUE@FROM:TO for a pulse."),
    ] = None,
    start: Annotated[
        list[str] | None, typer.Option("--start", help="A state at time 0, as NAME=VALUE.")
    ] = None,
    every: Annotated[str | None, typer.Option(help="Time between two rows.")] = None,
    method: Annotated[
        str | None, typer.Option(help="dopri5, rosenbrock (stiff), rk4, ..., heun (with noise).")
    ] = None,
    step: Annotated[str | None, typer.Option(help="Step of a fixed-step method.")] = None,
    rtol: Annotated[float, typer.Option(help="Relative tolerance of an adaptive method.")] = 1e-6,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    out: Annotated[Path | None, typer.Option(help="A .csv or .parquet file of traces.")] = None,
    figure: Annotated[Path | None, typer.Option(help="A .svg or .png file.")] = None,
) -> None:
    """Simulate a system over time, from its defaults or yours, under steps and pulses."""
    import torch

    import clinode
    from clinode.cli.tables import check_ending, write_table
    from clinode.folder import check_place
    from clinode.units import quantity

    made = with_values(_made(system), changes or [])
    last = quantity(until, made.time_unit)
    if not last > 0:
        raise ArgumentError(f"--until must be above 0, got {until!r}")
    spacing = last / 1000 if every is None else quantity(every, made.time_unit)
    if not 0 < spacing <= last:
        raise ArgumentError(f"--every must lie between 0 and --until, got {every!r}")
    for place in (out, figure):
        if place is not None:
            check_place(place)
    if out is not None:
        check_ending(out)
    if figure is not None:
        _check_picture(figure)
    chosen = method or ("euler" if made.noise is not None else "dopri5")
    width = quantity(step, made.time_unit) if step is not None else None
    if width is None and chosen not in ("dopri5", "rosenbrock"):
        width = spacing / 10
    n_rows = round(last / spacing)
    found = clinode.simulate(
        made,
        initial_state(made, start or []),
        torch.linspace(0, n_rows * spacing, n_rows + 1, dtype=torch.float64),
        input_signal(made, inputs or []),
        method=chosen,
        rtol=rtol,
        step=width,
        generator=torch.Generator().manual_seed(seed) if made.noise is not None else None,
    )
    if out is not None:
        write_table(found.to_pandas(), out)
    if figure is not None:
        from clinode.figures.dynamics import traces_figure

        _save(traces_figure(found), figure)
    counts = found.events["name"].value_counts().to_dict()
    result = {
        "system": system,
        "time_unit": made.time_unit,
        "rows": len(found.times),
        "evaluations": int(found.n_evaluations),
        "events": counts,
        "final": dict(zip(made.state_names, found.states[-1].tolist(), strict=True)),
        "out": out,
        "figure": figure,
    }
    answer.tell(result, _simulated_words(made, found, result))


def bifurcate(
    system: SystemName,
    parameter: Annotated[
        str, typer.Argument(metavar="PARAMETER", help="An input or constant to follow.")
    ],
    answer: Answer,
    span: Annotated[
        str | None, typer.Option(help="LOW:HIGH of the parameter; its own range by default.")
    ] = None,
    changes: Constants = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="Another input, as NAME=VALUE.")
    ] = None,
    cycles: Annotated[
        bool, typer.Option("--cycles/--no-cycles", help="Follow cycles from every Hopf point.")
    ] = True,
    onset: Annotated[
        bool, typer.Option("--onset", help="Say how firing or oscillation begins.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for tables and a diagram.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over an earlier one.")] = False,
) -> None:
    """Follow equilibria and cycles over a parameter: where they turn, and where they lose rest."""
    import clinode
    from clinode.folder import check_writable

    if out is not None:
        check_writable(out, kind="bifurcation", replace=replace)
    made = with_values(_made(system), changes or [])
    u = constant_inputs(made, inputs or [])
    ends = _span(made, parameter, span)
    answer.progress(
        f"following equilibria of {system} over {parameter} from {ends[0]} to {ends[1]}"
    )
    rest = clinode.continue_equilibria(made, parameter, ends, u)
    branches: list[Branch] = []
    for point in rest.points:
        if cycles and point.kind == "hopf" and not _is_reached(point, branches, ends):
            value = float(point.value.detach())
            answer.progress(f"following cycles from the Hopf point at {value:.6g}")
            branches.append(clinode.continue_cycles(made, parameter, point, ends))
    how = clinode.firing_onset(made, parameter, ends) if onset else None
    if out is not None:
        _write(out, rest, branches, how, replace)
    points = [*rest.points, *(point for branch in branches for point in branch.points)]
    result = {
        "system": system,
        "parameter": parameter,
        "unit": rest.unit,
        "span": list(ends),
        "points": [point.to_dict() for point in points],
        "neutral_saddles": [point.to_dict() for point in rest.neutral_saddles],
        "ends": list(rest.ends),
        "cycle_branches": [
            {"ends": list(one.ends), "longest_period": float(one.periods.max())}
            for one in branches
            if one.periods is not None
        ],
        "onset": None if how is None else how.to_dict(),
        "out": out,
    }
    answer.tell(result, _bifurcation_words(rest, branches, how, points, out))


def _is_reached(point: "SpecialPoint", branches: "list[Branch]", span: tuple[float, float]) -> bool:
    """Whether cycles that were followed already end in this Hopf point."""
    value, near = float(point.value.detach()), 0.02 * (span[1] - span[0])
    return any("Hopf" in one.ends[-1] and abs(one.values[-1] - value) < near for one in branches)


def known_systems() -> "dict[str, Callable[[], System]]":
    """Calls that make each system which can be named, at its published constants."""
    from clinode.brain.systems import SYSTEMS
    from clinode.physiology import Circulation, GlucoseMinimalModel

    return {**SYSTEMS, "circulation": Circulation, "glucose": GlucoseMinimalModel}


def _made(name: str) -> "System":
    """The system of this name at its published constants."""
    import difflib

    known = known_systems()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ArgumentError(f"there is no system {name!r}", fix=f"{hint}See: clinode list")
    return known[name]()


def _span(system: "System", parameter: str, text: str | None) -> tuple[float, float]:
    from clinode.dynamics import parameter_quantity

    quantity = parameter_quantity(system, parameter)
    if text is not None:
        return parse_span(text, quantity.unit, "--span")
    if quantity.range is None:
        raise ArgumentError(f"'{parameter}' has no range of its own", fix="--span LOW:HIGH")
    return quantity.range


def _check_picture(path: Path) -> None:
    if path.suffix.lower() not in PICTURES:
        raise ArgumentError(f"expected a name that ends in .svg or .png, got {path.name!r}")


def _save(figure: Any, path: Path) -> None:
    import io

    from clinode.folder import atomic_write

    paper = io.BytesIO()
    kind = path.suffix.lower().lstrip(".")
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(paper, format=kind, dpi=150, metadata=metadata)
    atomic_write(path, paper.getvalue())


def _write(
    out: Path, rest: "Branch", cycles: "list[Branch]", onset: "Onset | None", replace: bool
) -> None:
    from clinode.cli.tables import write_table
    from clinode.figures.bifurcations import bifurcation_figure
    from clinode.folder import write_folder, write_json

    def write(folder: Path) -> None:
        write_table(rest.to_pandas(), folder / "equilibria.csv")
        for number, branch in enumerate(cycles, start=1):
            write_table(branch.to_pandas(), folder / f"cycles-{number}.csv")
        points = [*rest.points, *(point for branch in cycles for point in branch.points)]
        found: dict[str, Any] = {"points": [point.to_dict() for point in points]}
        found["onset"] = None if onset is None else onset.to_dict()
        write_json(folder / "points.json", found)
        _save(bifurcation_figure([rest, *cycles]), folder / "diagram.svg")

    write_folder(out, write, kind="bifurcation", replace=replace)


def _simulated_words(system: "System", found: Any, result: dict[str, Any]) -> list[str]:
    from clinode.cli.answers import count, table
    from clinode.figures.dynamics import frequency_unit

    rows = []
    for quantity in system.states:
        for name in quantity.names:
            values = found.states[:, system.state_names.index(name)]
            rows.append([name, quantity.unit, *(f"{float(v):.5g}" for v in (
                values[0], values.min(), values.max(), values[-1]))])  # fmt: skip
    unit = "" if system.time_unit == "1" else f" {system.time_unit}"
    lines = [
        f"{result['system']}: {float(found.times[-1]):g}{unit} in {count(result['rows'], 'row')}, "
        f"{result['evaluations']:,} evaluations"
    ]
    lines += table(["state", "unit", "first", "lowest", "highest", "last"], rows[:20])
    if len(rows) > 20:
        lines.append(f"... and {len(rows) - 20} more states")
    for name, number in result["events"].items():
        factor, per = frequency_unit(system.time_unit)
        lines.append(f"{count(number, name)}, {factor * number / float(found.times[-1]):.5g} {per}")
    lines += [
        f"Wrote {called(path)}" for path in (result["out"], result["figure"]) if path is not None
    ]
    return lines


def _bifurcation_words(
    rest: "Branch",
    cycles: "list[Branch]",
    onset: "Onset | None",
    points: "list[SpecialPoint]",
    out: Path | None,
) -> list[str]:
    from clinode.cli.answers import count, table
    from clinode.figures.dynamics import frequency_unit

    factor, per = frequency_unit(rest.time_unit)
    rows = [
        (
            point.kind,
            f"{float(point.value.detach()):.7g}",
            "" if point.frequency is None else f"{factor * float(point.frequency.detach()):.5g}",
            point.criticality or "",
        )
        for point in points
    ]
    ends = " and ".join(dict.fromkeys(rest.ends))
    lines = [f"Equilibria followed over {count(len(rest), 'point')} to the {ends}"]
    if rows:
        lines += table(
            ["point", f"{rest.parameter} ({rest.unit})", f"frequency ({per})", "kind"], rows
        )
    else:
        lines.append("No fold, Hopf or branch point on this span.")
    lines += [
        f"Neutral saddle at {float(point.value.detach()):.7g}: two real eigenvalues, no Hopf point."
        for point in rest.neutral_saddles
    ]
    for branch in cycles:
        if branch.periods is not None:
            lines.append(
                f"Cycles from {branch.values[0]:.6g}: {len(branch)} points, longest period "
                f"{branch.periods.max():.5g} {rest.time_unit}; {branch.ends[-1]}"
            )
    if onset is not None:
        lines.append(f"Onset: {onset.verdict}")
    if out is not None:
        lines.append(f"Wrote {called(out)}; open {called(out)}/diagram.svg")
    return lines
