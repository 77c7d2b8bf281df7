"""`clinode explain` and `report`: what moved the output of a run, as tables and as pages."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from clinode.cli.fit import Device, Part, RunFolder, take_part
from clinode.cli.options import Answer, Data
from clinode.errors import ArgumentError

if TYPE_CHECKING:
    from clinode.attribution import Attributions, KindAttributions
    from clinode.cohort import Cohort
    from clinode.cohort.definition import DefinedTask
    from clinode.report import ModelFacts
    from clinode.training import Run


@dataclass(frozen=True, kw_only=True)
class Explaining:
    """Whose output is explained, how, and where the answer goes."""

    panel: ClassVar[str] = "What is explained"
    out: Annotated[Path, typer.Option(help="Folder for what is found.")]
    method: Annotated[str, typer.Option(help="A method of `clinode list`.")] = (
        "integrated_gradients"
    )
    baseline: Annotated[
        str, typer.Option(help="What it is measured from: cohort_mean, normal, carry, delete.")
    ] = "cohort_mean"
    output: Annotated[
        str | None, typer.Option(help="Label, forecast variable, or number of the cause.")
    ] = None
    hours: Annotated[
        float | None, typer.Option(help="Of a forecast how far ahead; of survival by when.")
    ] = None
    players: Annotated[
        str | None, typer.Option(help="Of shapley and kernel_shap: variable or event.")
    ] = None
    at: Annotated[
        float | None, typer.Option(help="Prediction time in hours, other than the task's.")
    ] = None
    tolerance: Annotated[
        float, typer.Option(help="Largest completeness gap; above it no map is shown.")
    ] = 0.01
    part: Part = "held-out"
    subjects: Annotated[
        int | None, typer.Option(min=1, help="Explain only so many, the first ones.")
    ] = None
    replace: Annotated[bool, typer.Option("--replace", help="Write over an earlier one.")] = False
    device: Device = "auto"

    def explained(
        self,
        run_folder: Path,
        data: Data,
        answer: Answer,
        *,
        kind: str,
        kinds: bool = False,
        defined: "DefinedTask | None" = None,
    ) -> "tuple[Run, Cohort, Attributions]":
        """The run, the cohort, and its attributions, after the place of the answer was checked."""
        import clinode
        from clinode.folder import check_writable

        check_writable(self.out, kind=kind, replace=self.replace)
        if kinds and self.baseline == "delete":
            raise ArgumentError(
                "--kinds compares values with other values, and the baseline 'delete' has none",
                fix="leave --kinds out, or take another --baseline",
            )
        run = clinode.load_run(run_folder, device=self.device)
        whole = data.read() if defined is None else defined.cohort
        cohort = take_part(run, whole, self.part)
        chosen = None if self.subjects is None else cohort.subjects[: self.subjects]
        n_subjects = len(cohort) if chosen is None else len(chosen)
        if n_subjects == 0:
            raise ArgumentError("there is no subject to explain")
        answer.progress(f"explaining {n_subjects:,} of {len(cohort):,} subjects")
        found = clinode.explain(
            run,
            cohort,
            self.method,
            self.baseline,
            at=self.at,
            output=self.output,
            hours=self.hours,
            players=self.players,
            tolerance=self.tolerance,
            subjects=chosen,
        )
        return run, cohort, found

    def split(self, run: "Run", cohort: "Cohort", answer: Answer) -> "KindAttributions":
        """The outputs of the same subjects, by kind of cause."""
        from clinode.attribution import explain_kinds

        answer.progress("splitting the outputs into values, ordering and timing")
        return explain_kinds(
            run,
            cohort,
            self.baseline,
            at=self.at,
            subjects=None if self.subjects is None else cohort.subjects[: self.subjects],
            output=self.output,
            hours=self.hours,
        )


Kinds = Annotated[
    bool,
    typer.Option("--kinds", help="Also split each output into values, ordering and timing."),
]


def explain(
    run: RunFolder, data: Data, answer: Answer, how: Explaining, kinds: Kinds = False
) -> None:
    """Attribute the output of a run to what was measured, event by event."""
    from clinode.cli.tables import write_table
    from clinode.folder import write_folder, write_json

    fitted, cohort, found = how.explained(run, data, answer, kind="attributions", kinds=kinds)
    about = _about(found)
    split = how.split(fitted, cohort, answer) if kinds else None
    told: list[str] = []
    if split is not None:
        about["kinds"] = {
            name: {key: one.to_dict() for key, one in both.items()}
            for name, both in split.cohort().items()
        }
        told.append(_kinds_words(about["kinds"]))

    def write(folder: Path) -> None:
        write_table(found.to_pandas(), folder / "attributions.parquet")
        write_table(found.gates, folder / "gates.parquet")
        if split is not None:
            write_table(split.to_pandas(), folder / "kinds.parquet")
        write_json(folder / "about.json", about)

    write_folder(how.out, write, kind="attributions", replace=how.replace)
    answer.tell(
        {**about, "out": how.out},
        [
            f"Wrote {about['events']:,} events of {about['subjects']:,} subjects to {how.out}",
            _gate_words(about),
            *told,
        ],
    )


def report(
    run: RunFolder,
    data: Data,
    answer: Answer,
    how: Explaining,
    kinds: Kinds = False,
    facts: Annotated[
        Path | None, typer.Option(help="YAML of what only the developer knows: intended use, ...")
    ] = None,
) -> None:
    """Write pages that can be read offline: on the model and its cohort, and one a subject.

    `--facts` holds names and texts such as `intended_use: ...`; what is missing is printed as not
    provided. With `--task-file` the pages show how the cohort came to be.
    """
    import clinode

    said = None if facts is None else _facts(facts)  # first: explaining takes long
    defined = data.defined()
    fitted, cohort, found = how.explained(
        run, data, answer, kind="report", kinds=kinds, defined=defined
    )
    index = clinode.write_report(
        fitted,
        cohort,
        found,
        how.out,
        facts=said,
        kinds=how.split(fitted, cohort, answer) if kinds else None,
        flow=None if defined is None else defined.flow,
        replace=how.replace,
    )
    about = _about(found)
    answer.tell(
        {**about, "index": index},
        [f"Wrote {about['subjects']:,} pages; open {index}", _gate_words(about)],
    )


def _facts(path: Path) -> "ModelFacts":
    """What the developer says of the model.

    Raises:
        ArgumentError: The file is no strict YAML, or names something that no page asks for.
    """
    from clinode.cli.settings import fill
    from clinode.cohort.strict_yaml import read_yaml
    from clinode.report import ModelFacts

    return fill(ModelFacts, read_yaml(path), where=path.name)


def _about(found: "Attributions") -> dict[str, Any]:
    withheld = found.gates["withheld"].to_numpy(dtype=bool)
    gaps = found.gates["gap"].to_numpy(dtype=float)[~withheld]
    gaps = gaps[gaps == gaps]  # a method without a baseline has none
    return {
        "method": found.method,
        "baseline": found.baseline,
        "outcome": found.outcome,
        "tolerance": found.tolerance,
        "players": found.players,
        "scale": found.scale,
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


def _kinds_words(cohort: dict[str, dict[str, dict[str, Any]]]) -> str:
    shares = {name: both["share"]["value"] for name, both in cohort.items()}
    if None in shares.values():
        return "No output moved from its reference, so it has no kinds"
    told = (
        f"{100 * share:.0f} % {words}" for words, share in zip(_KINDS, shares.values(), strict=True)
    )
    return "Of all contributions, " + ", ".join(told)


_KINDS = ("values", "which tests were ordered", "when")
