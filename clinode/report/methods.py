"""Pages 7 and 8: how the numbers came about, how to get them again, and what a reader may ask for.

Only what the run, the cohort and the developer say; what none of them says is listed as missing.
"""

from typing import Any

import numpy as np

from clinode.attribution import METHODS
from clinode.attribution.baselines import read_normal_ranges
from clinode.errors import printable
from clinode.report.material import Material
from clinode.report.provenance import Provenance
from clinode.report.tables import DASH, Cell, Table
from clinode.report.tripod import Item, tripod_items
from clinode.report.wording import measured
from clinode.training.run import schema_digest

FILE = "methods.html"


def methods_page(material: Material, provenance: Provenance) -> dict[str, Any]:
    """What the template prints, but for the model card."""
    items = tripod_items(material)
    blanks = [item for item in items if item.filled is None]
    return {
        "steps": _steps(material),
        "baseline_words": _baseline_words(material),
        "baseline_table": _baseline(material),
        "settings": _settings(material),
        "versions": _versions(provenance),
        "checksums": _checksums(material, provenance),
        "calls": _calls(material),
        "command": provenance.command or _command(material),
        "tripod": _tripod(items),
        "tripod_blanks": [f"{item.number} {item.asks}" for item in blanks],
        "n_items": len(items),
        "n_filled": len(items) - len(blanks),
    }


def _steps(material: Material) -> list[str]:
    run, attributions = material.run, material.attributions
    schema = run.schema
    n_log = sum(kind == "log" for kind in schema.transform)
    steps = [
        f"Values are clipped to the central 99.8 % of the training part and standardised; {n_log} "
        "of the variables on a logarithmic scale. Nothing is filled in: what was not measured has "
        "no value, and the model sees when something was.",
        f"The model, {type(run.model).__name__} with {run.n_parameters:,} weights, reads each "
        "record row by row at its own times, and answers at the prediction time. "
        "Nothing after that time is read.",
        f"Explained is that output, in {material.unit}: {METHODS[attributions.method]}.",
        "Interpolated are only values that were measured; times, and which tests were ordered, "
        "stay those of the record. So nothing is credited to what was not measured.",
        f"A map whose contributions miss the change of the output by more than "
        f"{100 * attributions.tolerance:g} % is withheld.",
        f"Measures are computed on {len(material.observed):,} predictions with a known outcome; "
        f"intervals are percentiles over {material.n_resamples:,} resamples of subjects, model and "
        "baselines on the same ones.",
        "Counts of subjects from 1 to 10 are not shown, nor anything that gives them away.",
    ]
    if run.metrics.get("is_apparent"):
        steps.insert(2, "The epoch was not chosen on subjects of its own: no part was set aside.")
    return steps


def _baseline_words(material: Material) -> str:
    return (
        f"Contributions are relative to {material.baseline} ({material.attributions.baseline}). "
        "Another baseline gives another picture."
    )


def _baseline(material: Material) -> Table | None:
    """The value that each variable is compared with, in its own unit."""
    run, name = material.run, material.attributions.baseline
    schema = run.schema
    if name == "cohort_mean":
        value = schema.restore(np.arange(len(schema.variables)), schema.cohort_mean())
        rows = [
            [material.label(v), measured(float(x)), "training part"]
            for v, x in zip(schema.variables, value, strict=True)
        ]
    elif name == "normal":
        ranges = read_normal_ranges()
        rows = []
        for variable, unit in zip(schema.variables, schema.units, strict=True):
            is_own = (ranges["variable"] == variable) & (ranges["unit"] == unit)
            own = ranges.loc[is_own]
            rows += [
                [
                    material.label(variable) + (f", {r['sex']}" if r["sex"] else ""),
                    f"{measured(r['low'])} to {measured(r['high'])}",
                    printable(r["source"]),
                ]
                for r in own.to_dict("records")
            ]
    else:
        return None
    caption = {
        "cohort_mean": "Baseline of each variable, on the scale that the model reads",
        "normal": "Shipped reference intervals, whose midpoint is the baseline; a table of the "
        "caller's own takes their place where one was given",
    }[name]
    return Table(caption, ["Variable", "Baseline", "From"], rows, (1,))


def _settings(material: Material) -> Table:
    run = material.run
    parts = {
        "model": run.model.config(),
        "fit": run.config.to_dict(),
        "task": run.task.to_dict(),
    }
    rows = [
        [f"{part}.{name}", printable(DASH if value is None else value)]
        for part, told in parts.items()
        for name, value in sorted(told.items())
    ]
    rows += [
        ["seed of the fit", str(run.seed)],
        ["seed of the resamples", "0"],
        ["attribution.method", material.attributions.method],
        ["attribution.baseline", material.attributions.baseline],
        ["attribution.tolerance", f"{material.attributions.tolerance:g}"],
        ["attribution.players", material.attributions.players],
    ]
    return Table("Settings of the run and of the attribution", ["Setting", "Value"], rows)


def _versions(provenance: Provenance) -> Table:
    told = {"clinode": str(provenance.code["clinode"]), **provenance.versions}
    rows = [[name, number] for name, number in told.items()]
    return Table("Versions with which these pages were written", ["Package", "Version"], rows)


def _checksums(material: Material, provenance: Provenance) -> Table:
    run, reported = material.run, provenance.data["reported"]
    rows = [
        ["weights (model.safetensors)", run.weights_sha256],
        ["schema of the training part", schema_digest(run.schema)],
        ["this cohort, all tables", reported["sha256"]],
        *([f"this cohort, {name}", digest] for name, digest in reported["tables"].items()),
    ]
    rows += [
        [f"cohort of the part {part!r}", str(told["sha256"])]
        for part, told in run.fingerprint.items()
        if part != "seen" and isinstance(told, dict) and "sha256" in told
    ]
    return Table(
        "SHA-256. Those of the pages stand in manifest.json; clinode verify compares them",
        ["Of", "SHA-256"],
        rows,
    )


def _command(material: Material) -> str:
    told = material.attributions
    return (
        f"clinode report RUN DATA --out report --method {told.method} --baseline {told.baseline} "
        f"--tolerance {told.tolerance:g}"
    )


def _calls(material: Material) -> str:
    told = material.attributions
    return "\n".join(
        [
            "import clinode as cn",
            'run = cn.load_run("RUN")',
            'cohort = cn.read_cohort("DATA")',
            f'found = cn.explain(run, cohort, "{told.method}", "{told.baseline}", '
            f"tolerance={told.tolerance:g})",
            'cn.write_report(run, cohort, found, "report")',
        ]
    )


def _tripod(items: list[Item]) -> Table:
    rows = [
        [
            item.number,
            item.asks,
            Cell("not provided: ask the developer", "blank")
            if item.filled is None
            else item.filled,
        ]
        for item in items
    ]
    return Table(
        "The 27 items of TRIPOD+AI in our words, and what this report says to each",
        ["Item", "What is asked", "What this report says"],
        rows,
    )
