"""The report of a steering study: one page, its results as files, and a manifest over all.

The page says what was asked, where the system rests, what can be reached and why not, which places
to stimulate, at what cost, and what the stimulus does in the nonlinear model. It describes a model,
and says so.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from clinode import __version__
from clinode.control.stimulation.stimulus import course_of
from clinode.control.targets.steering import Steering
from clinode.errors import printable
from clinode.figures.networks import connectome_figure
from clinode.figures.picture import data_uri
from clinode.figures.stimulation import stimulus_figure
from clinode.folder import write_folder, write_json
from clinode.report import provenance as block
from clinode.report.brain_map import brain_map
from clinode.report.rendering import page_environment, page_style
from clinode.report.wording import BRAIN_LIMITS, measured, significant
from clinode.spreadsheet import csv_text
from clinode.training import Run

KIND = "brain report"
SHOWN = 20  # candidates of the ranking on the page; all are in ranking.csv
SHOWN_MODES = 15
NAMED_REGIONS = 3  # of a mode
MOST_TARGETS = 8  # in words


def write_brain_report(
    steering: Steering,
    folder: str | Path,
    *,
    run: Run | None = None,
    command: str | None = None,
    replace: bool = False,
) -> Path:
    """Write what `steer` found as a folder that can be handed over.

    `index.html` is the page; `steering.json` holds every answer, `ranking.csv`, `reach.csv` and
    `stimulus.csv` the tables, `arrays.safetensors` the linearization, the equilibrium, the weights
    and the stimulus; `provenance.json` from what it was made; `manifest.json` their sizes and
    SHA-256.

    Args:
        steering: What `steer` returned.
        folder: Where to; must not exist or be empty, unless `replace`.
        run: Whose latent system was steered, for the provenance.
        command: The call that asked for it, fit to be read by others; printed as it is.
        replace: Write over an earlier brain report in the same folder.

    Returns:
        The path of `index.html`.

    Raises:
        OutputError: The folder is occupied or cannot be written.
    """
    provenance = study_provenance(steering, run, command)
    html = brain_page(steering, provenance)

    def write(target: Path) -> None:
        (target / "index.html").write_text(html, encoding="utf-8", newline="\n")
        write_json(target / "steering.json", {"clinode": __version__, **steering.to_dict()})
        tables = {
            "ranking": steering.ranking.to_pandas(),
            "reach": steering.reach,
            "stimulus": steering.stimulus.to_pandas(),
        }
        for name, table in tables.items():
            path = target / f"{name}.csv"
            path.write_text(csv_text(table), encoding="utf-8", newline="")
        write_json(target / block.FILE, provenance.to_dict())
        save_file(_arrays(steering), target / "arrays.safetensors")

    write_folder(Path(folder), write, kind=KIND, replace=replace)
    return Path(folder) / "index.html"


def study_provenance(
    steering: Steering, run: Run | None = None, command: str | None = None
) -> block.Provenance:
    """From what a study was made; arguments as of `write_brain_report`."""
    settings = {
        "system": steering.system,
        "constants": steering.constants,
        "equilibrium": steering.which,
        "target": steering.target,
        "horizon": steering.horizon,
        "stimulated": steering.stimulus.inputs,
        "n_nulls": steering.n_nulls,
        "seed": steering.seed,
    }
    return block.of_study(_arrays(steering), steering.network, run, settings, command)


def brain_page(steering: Steering, provenance: block.Provenance | None = None) -> str:
    """The page as HTML: self-contained, no script, the same bytes for the same study.

    Args:
        steering: What `steer` returned.
        provenance: From what it was made; gathered here when absent.
    """
    provenance = provenance or study_provenance(steering)
    template = page_environment().get_template("brain.html")
    return template.render(
        style=page_style(),
        limits=BRAIN_LIMITS,
        provenance=provenance.table(),
        system=printable(steering.system),
        summary=_summary(steering),
        warnings=_warnings(steering),
        facts=_facts(steering),
        rest=_rest(steering),
        place="output's input" if steering.linear.latent else "region",
        reach=_reach(steering),
        map=_map(steering),
        matrix=_matrix(steering),
        control=_control(steering),
        targets=_targets(steering),
        energies=_energies(steering),
        stimulus=_stimulus(steering),
    )


def _arrays(steering: Steering) -> dict[str, Any]:
    linear, signal = steering.linear, steering.stimulus.signal
    arrays = {
        "A": linear.A,
        "B": linear.B,
        "C": linear.C,
        "equilibrium": steering.equilibrium.state,
        "input": steering.equilibrium.u,
        "stimulus_knots": signal.knots,
        "stimulus_values": signal.values,
    }
    if steering.network is not None:
        arrays["weights"] = steering.network.weights
    return {name: array.detach().double().contiguous().clone() for name, array in arrays.items()}


def _summary(steering: Steering) -> str:
    linear = steering.linear
    return (
        f"{linear.n_states} states, {linear.n_inputs} places to stimulate, "
        f"{len(steering.target)} value(s) aimed at."
    )


def _warnings(steering: Steering) -> list[str]:
    told = []
    if not steering.equilibrium.is_stable:
        told.append(
            "The equilibrium is not stable: without feedback the system leaves it by itself, and "
            "what the linearization says holds only while it is near."
        )
    if not steering.stimulus.is_reached:
        told.append("The stimulus does not reach the target: " + steering.stimulus.verdict + ".")
    elif "misleads" in steering.stimulus.verdict:
        told.append(
            "Here the linear theory misleads: its own design fails in the nonlinear model, and the "
            "stimulus shown was found in the model itself. Rankings and energies are linear."
        )
    if steering.network is not None:
        told += [f"The connectome has {one.message}." for one in steering.network.findings]
    return told


def _facts(steering: Steering) -> list[tuple[str, str]]:
    unit = steering.linear.time_unit
    aimed = [f"{printable(name)} = {measured(value)}" for name, value in steering.target.items()]
    more = f" and {len(aimed) - MOST_TARGETS} more" if len(aimed) > MOST_TARGETS else ""
    facts = [
        ("Model", printable(steering.system)),
        ("Target", ", ".join(aimed[:MOST_TARGETS]) + more),
        ("Horizon", f"{measured(steering.horizon)} {unit}"),
    ]
    if steering.constants:
        told = [f"{printable(name)} = {value}" for name, value in steering.constants.items()]
        facts.append(("Constants", ", ".join(told)))
    if steering.network is not None:
        facts.append(("Connectome", steering.network.verdict))
    if steering.n_nulls:
        facts.append(("Null networks", f"{steering.n_nulls}, each at an equilibrium of its own"))
    return facts


def _rest(steering: Steering) -> dict[str, Any]:
    unit = steering.linear.time_unit
    rows = []
    for k, one in enumerate(steering.equilibria):
        rate = float(one.eigenvalues.real.abs().min())
        rows.append(
            {
                "number": k,
                "kind": one.kind,
                "stable": "yes" if one.is_stable else "no",
                "slowest": f"{measured(1 / rate)} {unit}" if rate > 0 else "none",
                "residual": f"{one.residual:.1e}",
                "used": "here" if k == steering.which else "",
            }
        )
    used = steering.equilibrium
    where = f"no. {steering.which}" if steering.which >= 0 else "one that was given"
    return {
        "words": f"Everything below starts from equilibrium {where}, a {used.kind}. The Jacobian "
        "there is exact.",
        "caption": steering.equilibria.verdict,
        "rows": rows,
    }


def _reach(steering: Steering) -> dict[str, str]:
    what = "the outputs" if steering.linear.latent else "the states"
    best = steering.reach.nlargest(3, "reach")["input"]
    return {
        "words": f"Stimulated alone, with one unit of energy spread evenly over directions and "
        f"{measured(steering.horizon)} {steering.linear.time_unit} of time, each place moves "
        f"{what} by the trace of its Gramian (average controllability). Largest: "
        + ", ".join(printable(name) for name in best)
        + ". This measure follows the strength of a region closely; the ranking below compares "
        "with networks that have the same strengths."
    }


def _by_region(steering: Steering, regions: Sequence[str]) -> np.ndarray:
    own = {
        name.split(":", 1)[-1]: value
        for name, value in zip(steering.reach["input"], steering.reach["reach"], strict=True)
    }
    return np.array([own.get(region, math.nan) for region in regions], dtype=float)


def _map(steering: Steering) -> Any:
    network = steering.network
    if network is None or network.centers is None:
        return None
    ranked = [names[0].split(":", 1)[-1] for names in steering.ranking.candidates]
    told = zip(ranked, steering.ranking.verdicts, strict=True)
    ranks = {name: k + 1 for k, (name, verdict) in enumerate(told) if verdict == "reliable"}
    return brain_map(
        network.labels,
        network.centers.numpy(),
        network.weights.numpy(),
        _by_region(steering, network.labels),
        {name: rank for name, rank in ranks.items() if rank <= 8},
        {name.split(":", 1)[-1] for name in steering.target},
    )


def _matrix(steering: Steering) -> str | None:
    network = steering.network
    if network is None or network.centers is not None:
        return None
    return data_uri(connectome_figure(network))


def _control(steering: Steering) -> dict[str, Any]:
    found, unit = steering.controllability, steering.linear.time_unit
    words = "All candidates together. "
    if found.dimension is not None:
        words += f"The inputs reach {found.dimension} of {found.n_states} dimensions. "
    if found.margin is not None:
        words += (
            f"PBH margin {significant(found.margin)}: the smallest change of the linearization "
            "that would put a mode out of reach. "
        )
    words += "That a mode can be reached does not say at what cost."
    modes = [
        {
            "time_constant": f"{measured(one.time_constant)} {unit}",
            "frequency": f"{measured(one.frequency)} /{unit}" if one.frequency else "none",
            "moved": {True: "yes", False: "no", None: "undecided"}[one.is_controllable],
            "regions": ", ".join(printable(name) for name in list(one.regions)[:NAMED_REGIONS]),
        }
        for one in found.modes[:SHOWN_MODES]
    ]
    reasons = [{"kind": one.kind, "message": printable(one.text)} for one in found.reasons]
    verdict = found.verdict[0].upper() + found.verdict[1:]
    return {"verdict": printable(verdict), "words": words, "modes": modes, "reasons": reasons}


def _targets(steering: Steering) -> dict[str, Any]:
    table = steering.ranking.to_pandas()
    rows = [
        {
            "rank": row["rank"],
            "name": printable(row["inputs"]),
            "energy": _log10(row["log10_energy"]),
            "verdict": row["verdict"],
            "median": _log10(row["null_median"]),
            "p": _share(row["p_value"]),
            "q": _share(row["q_value"]),
        }
        for row in table.head(SHOWN).to_dict("records")
    ]
    words = printable(steering.ranking.statement[0].upper() + steering.ranking.statement[1:]) + ". "
    if steering.n_nulls:
        words += (
            "p is the share of null networks in which the place is at least as cheap, q the same "
            "corrected for the number of candidates. "
        )
        clear = int((steering.ranking.q_values < 0.05).sum())
        words += (
            f"{clear} candidate(s) stand out of the nulls at q < .05."
            if clear
            else "None stands out of the nulls at q < .05: by this measure the ranking says no "
            "more than what the nulls keep."
        )
    left = len(table) - SHOWN
    return {
        "words": words,
        "rows": rows,
        "has_nulls": bool(steering.n_nulls),
        "more": f"{left} more in ranking.csv beside this page." if left > 0 else "",
    }


def _energies(steering: Steering) -> dict[str, Any]:
    rows = [
        {
            "inputs": printable(row["inputs"]),
            "energy": _log10(row["log10_energy"]),
            "verdict": row["verdict"],
            "bound": f"{row['bound']:.0e}" if math.isfinite(row["bound"]) else "none",
            "route": row["route"],
        }
        for row in steering.energies.to_dict("records")
    ]
    words = (
        "The integral of the squared stimulus over time, at its least. A reliable value is right "
        "within the error beside it; a lower bound is certainly exceeded; unreachable means that "
        "no stimulus of any size does it."
    )
    return {"words": words, "rows": rows}


def _stimulus(steering: Steering) -> dict[str, Any]:
    stimulus = steering.stimulus
    figure = stimulus_figure(stimulus)
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    ends = [
        {
            "name": printable(name),
            "rest": measured(float(course_of(stimulus.simulated, name)[0])),
            "wanted": measured(wanted),
            "predicted": measured(float(course_of(stimulus.predicted, name)[-1])),
            "simulated": measured(float(course_of(stimulus.simulated, name)[-1])),
        }
        for name, wanted in list(stimulus.target.items())[:SHOWN]
    ]
    limits = [
        {
            "limit": row.limit,
            "input": printable(row.input),
            "allowed": measured(row.allowed),
            "value": measured(row.value),
            "kept": row.is_kept,
        }
        for row in stimulus.limits.rows
    ]
    return {
        "verdict": printable(stimulus.verdict[0].upper() + stimulus.verdict[1:]),
        "image": data_uri(figure),
        "alt": "The stimulus over time, and the values aimed at as linear theory predicts them and "
        "as the nonlinear model shows them; the ends are in the table below.",
        "caption": f"Stimulated: {', '.join(printable(name) for name in stimulus.inputs)}. "
        f"Energy {measured(stimulus.energy)}.",
        "width": width,
        "height": height,
        "ends": ends,
        "limits": limits,
    }


def _log10(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if math.isfinite(value) else ("infinite" if value > 0 else "0 energy")


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
