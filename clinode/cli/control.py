"""`clinode control`: from a connectome to a checked stimulus and its page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinode.cli.answers import called
from clinode.cli.assignments import constant_inputs, split_assignment, with_values
from clinode.cli.options import Answer, Call
from clinode.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clinode.brain import Connectome
    from clinode.control import Null, Steering, StimulusLimits
    from clinode.dynamics import Equilibrium
    from clinode.system import System
    from clinode.training import Run

GENERATED = "generated"
DEFAULT_MODEL = "wilson-cowan"
NULLS = ("strength", "degree", "geometry", "none")


def control(
    call: Call,
    connectome: Annotated[
        str,
        typer.Argument(
            metavar="CONNECTOME",
            help="A file (npz, mat, csv, tsv, zip of The Virtual Brain, relmat), 'generated', or "
            "the folder of a run, whose latent system is steered.",
        ),
    ],
    answer: Answer,
    to: Annotated[
        list[str],
        typer.Option(help="What is wanted, as NAME=VALUE or NAME=rest+VALUE; may be repeated."),
    ],
    model: Annotated[
        str | None, typer.Option(help="A network of `clinode list`; wilson-cowan by default.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Names of the regions, one a line, where the file has none.")
    ] = None,
    rows: Annotated[
        str, typer.Option(help="What a row of the weights is: targets (receives) or sources.")
    ] = "targets",
    regions: Annotated[int, typer.Option(help="Of the generated connectome.")] = 68,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="A constant of the model, as NAME=VALUE.")
    ] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="A resting input, as NAME=VALUE.")
    ] = None,
    equilibrium: Annotated[
        int, typer.Option(help="Where to start: number of the equilibrium, stable ones first.")
    ] = 0,
    horizon: Annotated[
        str | None, typer.Option(help="When it is wanted, as '40 ms'; by default the slowest time.")
    ] = None,
    at: Annotated[
        list[str] | None, typer.Option(help="An input or block that may stimulate; all by default.")
    ] = None,
    stimulate: Annotated[
        int, typer.Option(help="How many of the cheapest places the stimulus uses.")
    ] = 3,
    amplitude: Annotated[float | None, typer.Option(help="Largest deviation of an input.")] = None,
    slew: Annotated[float | None, typer.Option(help="Largest rate of change of an input.")] = None,
    charge: Annotated[float | None, typer.Option(help="Largest charge of one phase.")] = None,
    energy: Annotated[float | None, typer.Option(help="Largest energy of the stimulus.")] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="The charge of each input sums to zero.")
    ] = False,
    null: Annotated[
        str, typer.Option(help="What null networks keep: strength, degree, geometry, or none.")
    ] = "strength",
    nulls: Annotated[int, typer.Option(min=0, help="How many null networks.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the nulls and the generated connectome.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the page and the results.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over an earlier one.")] = False,
) -> None:
    """Steer a network or a run: rest, reach, targets beside nulls, energies, a stimulus."""
    import clinode
    from clinode.folder import MANIFEST, check_writable
    from clinode.report.brain import KIND
    from clinode.units import quantity

    if out is not None:
        check_writable(out, kind=KIND, replace=replace)
    if (Path(connectome) / MANIFEST).is_file():
        run = _learned(Path(connectome), model, labels)
        brain, kept = run.model.latent_system, None
        answer.progress("the latent system of a run; looking for equilibria")
    else:
        read = _connectome(connectome, labels, rows, regions, seed)
        run, brain, kept = None, _network(model or DEFAULT_MODEL, read), _null(null, read)
        answer.progress(f"{read.verdict}; looking for equilibria")
    brain = with_values(brain, changes or [])
    u = constant_inputs(brain, inputs or [])
    rest = _chosen(brain, u, equilibrium)
    answer.progress(f"starting from a {rest.kind}; ranking targets and designing a stimulus")
    found = clinode.steer(
        brain,
        _target(brain, rest, to),
        rest,
        horizon=None if horizon is None else quantity(horizon, brain.time_unit),
        candidates=at,
        limits=_limits(amplitude, slew, charge, energy, balanced),
        n_stimulated=stimulate,
        nulls=kept,
        n_nulls=nulls,
        seed=seed,
    )
    page = None
    if out is not None:
        page = clinode.write_brain_report(found, out, run=run, command=call.text, replace=replace)
    answer.tell({**found.to_dict(), "out": page}, _words(found, page))


def _connectome(
    text: str, labels: Path | None, rows: str, n_regions: int, seed: int
) -> "Connectome":
    import clinode

    if text == GENERATED:
        if labels is not None:
            raise ArgumentError("the generated connectome has names of its own: leave out --labels")
        return clinode.simulate_connectome(n_regions, seed)
    return clinode.read_connectome(text, labels, rows=rows)


def _learned(folder: Path, model: str | None, labels: Path | None) -> "Run":
    """A run, whose latent system has no wiring of which nulls could be drawn."""
    import clinode

    if model is not None or labels is not None:
        raise ArgumentError(
            "a run brings its own system and names", fix="leave out --model and --labels"
        )
    return clinode.load_run(folder)


def _network(name: str, connectome: "Connectome") -> "System":
    import difflib

    from clinode.brain.systems import NETWORKS

    if name not in NETWORKS:
        near = difflib.get_close_matches(name.removesuffix("-network"), NETWORKS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ArgumentError(
            f"there is no network {name!r}", fix=f"{hint}There are: {', '.join(NETWORKS)}"
        )
    return NETWORKS[name](connectome)


def _chosen(system: "System", u: "Sequence[float]", number: int) -> "Equilibrium":
    import torch

    import clinode
    from clinode.errors import SolverError

    found = clinode.find_equilibria(system, torch.tensor(u, dtype=torch.float64))
    if not len(found):
        raise SolverError(
            found.verdict,
            where=type(system).__name__,
            fix="other constants (--set), or another --input",
        )
    if not 0 <= number < len(found):
        listed = ", ".join(f"{k}: {one.kind}" for k, one in enumerate(found[:12]))
        raise ArgumentError(
            f"--equilibrium {number}: there are {len(found)}", fix=f"choose one of {listed}"
        )
    return found[number]


def _target(system: "System", rest: "Equilibrium", words: "Sequence[str]") -> dict[str, float]:
    from clinode.system import positions
    from clinode.units import quantity

    wanted: dict[str, float] = {}
    for text in words:
        name, value = split_assignment(text, "--to")
        known = {n: (q, role) for role in ("state", "output") for q in _of(system, role)
                 for n in (q.name, *q.names)}  # fmt: skip
        if name not in known:
            positions(
                (*system.states, *system.outputs), name, "state or output"
            )  # says the nearest
        found, role = known[name]
        names = found.names if name == found.name else (name,)
        for one in names:
            values = rest.state if role == "state" else rest.output
            at_rest = float(values[positions(_of(system, role), one, role)[0]])
            wanted[one] = _value(value, at_rest, found.unit, quantity)
    return wanted


def _of(system: "System", role: str) -> Any:
    return system.states if role == "state" else system.outputs


def _value(text: str, at_rest: float, unit: str, quantity: Any) -> float:
    """A value, or one told from rest: `rest`, `rest+0.05`, `rest-5 mV`."""
    if not text.startswith("rest"):
        return quantity(text, unit)
    moved = text.removeprefix("rest").strip()
    return at_rest + (quantity(moved.removeprefix("+"), unit) if moved else 0.0)


def _limits(
    amplitude: float | None,
    slew: float | None,
    charge: float | None,
    energy: float | None,
    balanced: bool,
) -> "StimulusLimits":
    from clinode.control import StimulusLimits

    return StimulusLimits(
        amplitude=amplitude, slew=slew, charge=charge, energy=energy, balanced=balanced
    )


def _null(name: str, connectome: "Connectome") -> "Null | None":
    from clinode.control import degree_preserving, geometry_preserving, strength_preserving

    if name not in NULLS:
        raise ArgumentError(f"--null must be one of {', '.join(NULLS)}, got {name!r}")
    if name == "none":
        return None
    if name != "geometry":
        return {"strength": strength_preserving, "degree": degree_preserving}[name]
    centers, lengths = connectome.centers, connectome.tract_lengths
    if centers is not None:
        return geometry_preserving((centers[:, None] - centers).norm(dim=-1))
    if lengths is not None:
        return geometry_preserving(lengths)
    raise ArgumentError(
        "--null geometry needs centers or tract lengths, and the connectome has neither",
        fix="--null strength",
    )


def _words(found: "Steering", page: Path | None) -> list[str]:
    ranking, control = found.ranking.to_pandas(), found.controllability
    lines = [
        f"Rest: {found.equilibria.verdict}; starting from a {found.equilibrium.kind}.",
        f"Inputs: {control.verdict}.",
        *(f"  {reason.kind}: {reason.text}" for reason in control.reasons[:5]),
        f"Targets, {found.ranking.statement}:",
    ]
    for row in ranking.head(5).to_dict("records"):
        against = f", p {row['p_value']:.3f} against nulls" if found.n_nulls else ""
        lines.append(
            f"  {row['rank']}. {row['inputs']}: log10 energy {row['log10_energy']:.3f} "
            f"({row['verdict']}){against}"
        )
    lines.append(f"Stimulus at {', '.join(found.stimulus.inputs)}: {found.stimulus.verdict}.")
    if page is not None:
        lines.append(f"Open {called(page.parent)}/{page.name} in a browser.")
    lines.append("This describes the model, not a patient.")
    return lines
