"""`clinode explain` and `report`: what moved the output of a run, as tables and as pages."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinode.cli.fit import Device, Part, RunFolder, take_part
from clinode.cli.options import Answer, Data
from clinode.errors import ArgumentError

if TYPE_CHECKING:
    from clinode.attribution import Attributions
    from clinode.cohort import Cohort
    from clinode.training import Run

Method = Annotated[str, typer.Option(help="A method of `clinode list`.")]
Baseline = Annotated[
    str, typer.Option(help="What it is measured from: cohort_mean, normal, carry.")
]
At = Annotated[float | None, typer.Option(help="Prediction time in hours, other than the task's.")]
Tolerance = Annotated[
    float, typer.Option(help="Largest completeness gap; above it no map is shown.")
]
Subjects = Annotated[int | None, typer.Option(min=1, help="Explain only so many, the first ones.")]
Replace = Annotated[bool, typer.Option("--replace", help="Write over an earlier one.")]


def explain(
    run: RunFolder,
    data: Data,
    answer: Answer,
    out: Annotated[Path, typer.Option(help="Folder for attributions and gates.")],
    method: Method = "integrated_gradients",
    baseline: Baseline = "cohort_mean",
    at: At = None,
    tolerance: Tolerance = 0.01,
    part: Part = "held-out",
    subjects: Subjects = None,
    replace: Replace = False,
    device: Device = "auto",
) -> None:
    """Attribute the output of a run to what was measured, event by event."""
    import clinode
    from clinode.cli.tables import write_table
    from clinode.folder import check_writable, write_folder, write_json

    check_writable(out, kind="attributions", replace=replace)
    fitted = clinode.load_run(run, device=device)
    cohort = take_part(fitted, data.read(), part)
    found = _explained(fitted, cohort, answer, subjects, method, baseline, at, tolerance)
    about = _about(found)

    def write(folder: Path) -> None:
        write_table(found.to_pandas(), folder / "attributions.parquet")
        write_table(found.gates, folder / "gates.parquet")
        write_json(folder / "about.json", about)

    write_folder(out, write, kind="attributions", replace=replace)
    answer.tell(
        {**about, "out": out},
        [
            f"Wrote {about['events']:,} events of {about['subjects']:,} subjects to {out}",
            _gate_words(about),
        ],
    )


def report(
    run: RunFolder,
    data: Data,
    answer: Answer,
    out: Annotated[Path, typer.Option(help="Folder for the pages.")],
    method: Method = "integrated_gradients",
    baseline: Baseline = "cohort_mean",
    at: At = None,
    tolerance: Tolerance = 0.01,
    part: Part = "held-out",
    subjects: Subjects = None,
    replace: Replace = False,
    device: Device = "auto",
) -> None:
    """Write pages that can be read offline: one of the cohort, and one a subject."""
    import clinode
    from clinode.folder import check_writable

    check_writable(out, kind="report", replace=replace)
    fitted = clinode.load_run(run, device=device)
    cohort = take_part(fitted, data.read(), part)
    found = _explained(fitted, cohort, answer, subjects, method, baseline, at, tolerance)
    index = clinode.write_report(fitted, cohort, found, out, replace=replace)
    about = _about(found)
    answer.tell(
        {**about, "index": index},
        [f"Wrote {about['subjects']:,} pages; open {index}", _gate_words(about)],
    )


def _explained(
    run: "Run",
    cohort: "Cohort",
    answer: Answer,
    subjects: int | None,
    method: str,
    baseline: str,
    at: float | None,
    tolerance: float,
) -> "Attributions":
    import clinode

    chosen = None if subjects is None else cohort.subjects[:subjects]
    n_subjects = len(cohort) if chosen is None else len(chosen)
    if n_subjects == 0:
        raise ArgumentError("there is no subject to explain")
    answer.progress(f"explaining {n_subjects:,} of {len(cohort):,} subjects")
    return clinode.explain(
        run, cohort, method, baseline, at=at, tolerance=tolerance, subjects=chosen
    )


def _about(found: "Attributions") -> dict[str, Any]:
    withheld = found.gates["withheld"].to_numpy(dtype=bool)
    gaps = found.gates["gap"].to_numpy(dtype=float)[~withheld]
    gaps = gaps[gaps == gaps]  # a method without a baseline has none
    return {
        "method": found.method,
        "baseline": found.baseline,
        "outcome": found.outcome,
        "tolerance": found.tolerance,
        "subjects": len(found.gates),
        "events": len(found.to_pandas()),
        "withheld": int(withheld.sum()),
        "largest_gap": float(gaps.max()) if len(gaps) else None,
    }


def _gate_words(about: dict[str, Any]) -> str:
    shown = about["subjects"] - about["withheld"]
    gap = (
        "" if about["largest_gap"] is None else f", largest gap {100 * about['largest_gap']:.2f} %"
    )
    return f"Completeness: {shown:,} of {about['subjects']:,} maps shown{gap}"
