"""`clinode explain`: what moved the output of a run, as tables."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from clinode.cli.answers import called
from clinode.cli.fit import Device, Part, take_part
from clinode.cli.options import Answer, Data
from clinode.errors import ArgumentError

if TYPE_CHECKING:
    from clinode.attribution import Attributions, KindAttributions
    from clinode.attribution.checks import AttributionChecks
    from clinode.cohort import Cohort
    from clinode.training import Ensemble, Run

ExplainedFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a run, or of an ensemble of runs.")
]


@dataclass(frozen=True, eq=False)
class Explanation:
    """What was explained, and the answer.

    Args:
        run: That was asked.
        whole: Everybody who was read.
        cohort: The part that was asked for.
        chosen: Who of the part was explained; None for all.
        found: The maps.
    """

    run: "Run | Ensemble"
    whole: "Cohort"
    cohort: "Cohort"
    chosen: "list[Any] | None"
    found: "Attributions"


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
    normal_ranges: Annotated[
        Path | None,
        typer.Option(help="CSV of reference intervals beside or in place of the shipped ones."),
    ] = None
    task: Annotated[
        str | None,
        typer.Option(help="Of a run of several tasks, which: classify, survive or forecast."),
    ] = None
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
    pick: Annotated[
        list[str] | None, typer.Option(help="Explain only this subject; may be repeated.")
    ] = None
    pick_from: Annotated[
        Path | None, typer.Option(help="Text file: explain only its subjects, one a line.")
    ] = None
    jobs: Annotated[int, typer.Option(min=1, help="Parts explained at the same time.")] = 1
    replace: Annotated[bool, typer.Option("--replace", help="Write over an earlier one.")] = False
    device: Device = "auto"

    def check(self, *, kind: str, kinds: bool, checks: "Checking") -> None:
        """Refuse what cannot work before anything is read.

        Raises:
            ArgumentError: Options do not go together, or name nothing.
            OutputError: The place of the answer is taken.
        """
        from clinode.attribution.baselines import baseline_named
        from clinode.attribution.checks import Asked
        from clinode.attribution.methods import COALITIONS, check_method
        from clinode.folder import check_writable

        check_writable(self.out, kind=kind, replace=self.replace)
        check_method(self.method)
        baseline_named(self.baseline, may_delete=self.method in COALITIONS)
        if kinds and self.baseline == "delete":
            raise ArgumentError(
                "--kinds compares values with other values, and the baseline 'delete' has none",
                fix="leave --kinds out, or take another --baseline",
            )
        if checks.checks:
            Asked(method=self.method, baseline=self.baseline)
        elif checks.permuted_labels:
            raise ArgumentError("--permuted-labels is one of the checks", fix="give --checks too")
        if checks.checks and self.normal_ranges is not None:
            raise ArgumentError("--checks know the shipped reference intervals only",
                                fix="leave --normal-ranges or --checks out")  # fmt: skip
        if self.subjects is not None and (self.pick or self.pick_from):
            raise ArgumentError("--subjects takes the first ones, and others are picked",
                                fix="give one of them")  # fmt: skip

    def loaded(self, folder: Path) -> "Run | Ensemble":
        """The run, of several tasks the run of one.

        Raises:
            ArgumentError: It has several tasks, and which was not said.
        """
        run = load(folder, device=self.device)
        return run if self.task is None else of_task(run, self.task)

    def picked(self, cohort: "Cohort") -> "list[Any] | None":
        """Who of a cohort is to be explained, in its order; None for all.

        Raises:
            ArgumentError: Nobody is left, or somebody was named who is not there.
        """
        if not len(cohort):
            raise ArgumentError("there is no subject to explain")
        named = [*(self.pick or []), *([] if self.pick_from is None else _lines(self.pick_from))]
        if not named and self.pick_from is None:
            return None if self.subjects is None else list(cohort.subjects[: self.subjects])
        wanted = set(named)
        chosen = [subject for subject in cohort.subjects if str(subject) in wanted]
        if len(chosen) < len(wanted) or not chosen:
            raise ArgumentError(
                f"{len(wanted) - len(chosen)} of the {len(wanted)} subjects picked are not among "
                f"the {len(cohort):,} of this part",
                fix="take --part all, if they took part in the fit" if self.part != "all" else "",
            )
        return chosen

    def explained(self, run: "Run | Ensemble", whole: "Cohort", answer: Answer) -> Explanation:
        """The maps of those who were asked for.

        Raises:
            ArgumentError: As of `clinode.explain`.
        """
        cohort = take_part(run.members[0], whole, self.part)
        chosen = self.picked(cohort)
        n_subjects = len(cohort) if chosen is None else len(chosen)
        answer.progress(f"explaining {n_subjects:,} of {len(cohort):,} subjects")
        found = self.maps(run, cohort, chosen, answer)
        return Explanation(run, whole, cohort, chosen, found)

    def maps(
        self,
        run: "Run | Ensemble",
        cohort: "Cohort",
        chosen: "list[Any] | None",
        answer: Answer,
        way: tuple[str, str] | None = None,
    ) -> "Attributions":
        """Maps of those chosen, by another method and baseline where `way` names them."""
        import clinode

        method, baseline = (self.method, self.baseline) if way is None else way
        return clinode.explain(
            run,
            cohort,
            method,
            baseline,
            at=self.at,
            subjects=chosen,
            output=self.output,
            hours=self.hours,
            players=self.players if method == self.method else None,
            tolerance=self.tolerance,
            normal_ranges=self.normal_ranges,
            n_jobs=self.jobs,
            progress=answer.counter("explained", "subjects"),
        )

    def split(self, told: Explanation, answer: Answer) -> "KindAttributions":
        """The outputs of the same subjects, by kind of cause."""
        from clinode.attribution import explain_kinds

        answer.progress("splitting the outputs into values, ordering and timing")
        return explain_kinds(
            told.run,
            told.cohort,
            self.baseline,
            at=self.at,
            subjects=told.chosen,
            output=self.output,
            hours=self.hours,
            normal_ranges=self.normal_ranges,
        )


@dataclass(frozen=True, kw_only=True)
class Checking:
    """Whether the maps of a model are put on trial, and by whom."""

    panel: ClassVar[str] = "Checks of the maps"
    checks: Annotated[
        bool,
        typer.Option("--checks", help="Put the maps on trial: random weights, noise, order, ..."),
    ] = False
    permuted_labels: Annotated[
        bool,
        typer.Option(
            "--permuted-labels",
            help="With --checks: fit twice more, once on permuted labels, to the training part.",
        ),
    ] = False
    check_subjects: Annotated[
        int, typer.Option(min=1, help="With --checks: subjects of the part that are taken.")
    ] = 100

    def found(
        self, told: Explanation, how: Explaining, answer: Answer
    ) -> "AttributionChecks | None":
        """What the checks found of the model on the whole part, whoever was picked from it."""
        from clinode.attribution.checks import check_attributions

        if not self.checks:
            return None
        answer.progress("putting the maps on trial")
        train = None
        if self.permuted_labels:
            train = take_part(told.run.members[0], told.whole, "train")
        return check_attributions(
            told.run,
            told.cohort,
            how.method,
            how.baseline,
            at=how.at,
            output=how.output,
            hours=how.hours,
            train=train,
            n_subjects=self.check_subjects,
            n_ordered=min(20, self.check_subjects),
            progress=answer.counter("made", "checks"),
        )


Kinds = Annotated[
    bool,
    typer.Option("--kinds", help="Also split each output into values, ordering and timing."),
]


def explain(
    run: ExplainedFolder,
    data: Data,
    answer: Answer,
    how: Explaining,
    trial: Checking,
    kinds: Kinds = False,
) -> None:
    """Attribute the output of a run to what was measured, event by event.

    Of an ensemble, what all its members together answer is explained.
    """
    from clinode.cli.tables import write_table
    from clinode.folder import write_folder, write_json

    how.check(kind="attributions", kinds=kinds, checks=trial)
    told = how.explained(how.loaded(run), data.read(), answer)
    found, about = told.found, about_maps(told.found)
    split = how.split(told, answer) if kinds else None
    checked = trial.found(told, how, answer)
    words: list[str] = []
    if split is not None:
        about["kinds"] = {
            name: {key: one.to_dict() for key, one in both.items()}
            for name, both in split.cohort().items()
        }
        words.append(_kinds_words(about["kinds"]))
    if checked is not None:
        about["checks"] = checked.to_dict()
        words += check_lines(checked)

    def write(folder: Path) -> None:
        write_table(found.to_pandas(), folder / "attributions.parquet")
        write_table(found.gates, folder / "gates.parquet")
        if split is not None:
            write_table(split.to_pandas(), folder / "kinds.parquet")
        if checked is not None:
            write_table(checked.to_pandas(), folder / "checks.parquet")
        write_json(folder / "about.json", about)

    write_folder(how.out, write, kind="attributions", replace=how.replace)
    wrote = f"Wrote {about['events']:,} events of {about['subjects']:,} subjects"
    answer.tell(
        {**about, "out": how.out},
        [f"{wrote} to {called(how.out)}", gate_words(about), *words],
    )


def load(folder: Path, *, device: str) -> "Run | Ensemble":
    """The run, or the ensemble, in a folder."""
    from clinode.training import load_ensemble, load_run

    if (folder / "ensemble.json").is_file():
        return load_ensemble(folder, device=device)
    return load_run(folder, device=device)


def of_task(run: "Run | Ensemble", kind: str) -> "Run":
    """Of a run of several tasks, the run of one.

    Raises:
        ArgumentError: It has no such task, or is an ensemble.
    """
    from clinode.training import Run

    if not isinstance(run, Run):
        raise ArgumentError("an ensemble is explained as it is", fix="leave --task out")
    return run.of(kind)


def about_maps(found: "Attributions") -> dict[str, Any]:
    """What was explained, how many maps are withheld, and the largest gap of those that are not."""
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


def gate_words(about: dict[str, Any]) -> str:
    """The gates in a line."""
    shown = about["subjects"] - about["withheld"]
    gap = (
        "" if about["largest_gap"] is None else f", largest gap {100 * about['largest_gap']:.2f} %"
    )
    return f"Completeness: {shown:,} of {about['subjects']:,} maps shown{gap}"


def check_lines(found: "AttributionChecks") -> list[str]:
    """A line a check, also of those that were left out."""
    told = {name: check.verdict for name, check in found.checks.items()}
    told |= {name: f"left out: {why}" for name, why in found.left_out.items()}
    return [f"Check of {name}: {verdict}" for name, verdict in told.items()]


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        ArgumentError: It cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else "cannot be read"
        raise ArgumentError(f"the file of --pick-from {why}", where=path.name) from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _kinds_words(cohort: dict[str, dict[str, dict[str, Any]]]) -> str:
    shares = {name: both["share"]["value"] for name, both in cohort.items()}
    if None in shares.values():
        return "No output moved from its reference, so it has no kinds"
    told = (
        f"{100 * share:.0f} % {words}" for words, share in zip(_KINDS, shares.values(), strict=True)
    )
    return "Of all contributions, " + ", ".join(told)


_KINDS = ("values", "which tests were ordered", "when")
