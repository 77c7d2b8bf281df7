"""`clinode report`: what moved the output of a run, as pages that can be read offline."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from clinode.cli.answers import called
from clinode.cli.explain import (
    Checking,
    ExplainedFolder,
    Explaining,
    Kinds,
    about_maps,
    check_lines,
    gate_words,
    load,
    of_task,
)
from clinode.cli.options import Answer, Call, Data
from clinode.errors import ArgumentError

if TYPE_CHECKING:
    from clinode.report import ModelFacts
    from clinode.training import Ensemble, Run


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What stands on the pages beside the maps."""

    panel: ClassVar[str] = "What stands beside the maps"
    facts: Annotated[
        Path | None, typer.Option(help="YAML of what only the developer knows: intended use, ...")
    ] = None
    forecasts: Annotated[
        Path | None,
        typer.Option(help="Run or ensemble that forecasts: each variable's hours to come."),
    ] = None
    beside: Annotated[
        list[str] | None,
        typer.Option(
            help="Another way to explain the same, METHOD, METHOD:BASELINE or :BASELINE; may be "
            "repeated. The pages show where they disagree."
        ),
    ] = None
    members: Annotated[
        bool,
        typer.Option("--members", help="Of an ensemble, explain each member: ranges beside."),
    ] = False

    def ways(self, how: Explaining) -> list[tuple[str, str]]:
        """Method and baseline of each other way.

        Raises:
            ArgumentError: One is unknown, does not go together, or is that of the maps themselves.
        """
        from clinode.attribution.baselines import baseline_named
        from clinode.attribution.methods import COALITIONS, check_method

        found = []
        for text in self.beside or []:
            method, _, baseline = text.partition(":")
            way = (method or how.method, baseline or how.baseline)
            check_method(way[0])
            baseline_named(way[1], may_delete=way[0] in COALITIONS)
            if way == (how.method, how.baseline):
                raise ArgumentError(f"{text!r} is how the maps themselves are made",
                                    where="--beside", fix="name another way")  # fmt: skip
            found.append(way)
        return list(dict.fromkeys(found))

    def forecasting(
        self, run: "Run | Ensemble", folder: Path, how: Explaining
    ) -> "Run | Ensemble | None":
        """The run that forecasts: that of `--forecasts`, or the run's own of several tasks.

        Raises:
            ArgumentError: It does not forecast.
        """
        from clinode.cohort import Forecast

        if self.forecasts is None and how.task in (None, "forecast"):
            return None
        found = load(folder if self.forecasts is None else self.forecasts, device=how.device)
        kinds = [part.to_dict()["kind"] for part in found.task.parts]
        if "forecast" in kinds:
            return of_task(found, "forecast")
        if self.forecasts is not None and not isinstance(found.task, Forecast):
            raise ArgumentError("it predicts something else than what will be measured",
                                where="--forecasts", fix="name a run of --horizon")  # fmt: skip
        return None if self.forecasts is None else found


def report(
    call: Call,
    run: ExplainedFolder,
    data: Data,
    answer: Answer,
    how: Explaining,
    trial: Checking,
    beside: Beside,
    kinds: Kinds = False,
) -> None:
    """Write pages that can be read offline: on the model and its cohort, and one a subject.

    `--facts` holds names and texts such as `intended_use: ...`; what is missing is printed as not
    provided. With `--task-file` the pages show how the cohort came to be. What `--kinds`,
    `--checks`, `--beside`, `--members` and `--forecasts` add, the pages else name as not provided.
    """
    import clinode

    how.check(kind="report", kinds=kinds, checks=trial)  # first: explaining takes long
    ways = beside.ways(how)
    said = None if beside.facts is None else _facts(beside.facts)
    fitted = how.loaded(run)
    if beside.members and len(fitted.members) < 2:
        raise ArgumentError("--members are those of an ensemble, and this is one run",
                            fix="leave it out, or name the folder of fit_ensemble")  # fmt: skip
    forecasts = beside.forecasting(fitted, run, how)
    defined = data.defined()
    told = how.explained(fitted, data.read() if defined is None else defined.cohort, answer)
    others = []
    for way in ways:
        answer.progress(f"explaining the same by {way[0]}, compared with {way[1]}")
        others.append(how.maps(fitted, told.cohort, told.chosen, answer, way))
    members = []
    for number, member in enumerate(fitted.members if beside.members else (), start=1):
        answer.progress(f"explaining member {number} of {len(fitted.members)}")
        members.append(how.maps(member, told.cohort, told.chosen, answer))
    split = how.split(told, answer) if kinds else None
    checked = trial.found(told, how, answer)
    answer.progress("writing the pages")
    index = clinode.write_report(
        fitted,
        told.cohort,
        told.found,
        how.out,
        facts=said,
        flow=None if defined is None else defined.flow,
        kinds=split,
        checks=checked,
        forecasts=forecasts,
        members=members,
        others=others,
        whole=told.whole,
        command=call.text,
        replace=how.replace,
    )
    about = about_maps(told.found)
    lines = [] if checked is None else check_lines(checked)
    answer.tell(
        {
            **about,
            "index": index,
            "beside": [{"method": one.method, "baseline": one.baseline} for one in others],
            "members": len(members),
            "forecasts": forecasts is not None,
            "checks": None if checked is None else checked.to_dict(),
        },
        [
            f"Wrote {about['subjects']:,} pages; open {called(how.out)}/{index.name}",
            gate_words(about),
            *lines,
        ],
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
