"""Options that several commands share, each group a frozen dataclass.

A command asks for a group by a parameter of its type; `spread_out` gives the command line one
option a field, under the group's `panel` in the help, and hands the command the group.
"""

import inspect
import sys
import time
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_type_hints

import typer
from typer.models import OptionInfo

from clinode.cli.answers import as_json, as_text, say

if TYPE_CHECKING:
    from clinode.cohort import Cohort
    from clinode.cohort.definition import DefinedTask


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a command says what it found."""

    panel: ClassVar[str] = "How it answers"
    json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of what went wrong."),
    ] = False

    def tell(self, result: dict[str, Any], lines: list[str]) -> None:
        """Print the result: the object, or the lines for a person."""
        say(sys.stdout, as_json(result) if self.json else as_text(lines))

    def progress(self, line: str) -> None:
        """Tell a person what happens now, beside the answer."""
        if not self.json:
            say(sys.stderr, as_text([line]))

    def counter(self, done_word: str, noun: str) -> Callable[[int, int], None]:
        """Tells a person now and then how many are done, and how long the rest will take."""
        return Counted(self.progress, done_word, noun)


class Counted:
    """Turns (done, all) into a line every few seconds, with the time that is left.

    Args:
        tell: Is given each line.
        done_word: What was done, such as "explained".
        noun: To what, such as "subjects".
        every: Seconds between two lines.
        clock: Seconds, rising.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        done_word: str,
        noun: str,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._tell, self._words, self._every, self._clock = tell, (done_word, noun), every, clock
        self._begin = self._last = clock()

    def __call__(self, done: int, total: int) -> None:
        """So many of all are done."""
        from clinode.training.time_left import duration

        now = self._clock()
        if not 0 < done < total or now - self._last < self._every:
            return
        self._last = now
        left = duration((now - self._begin) * (total - done) / done)
        word, noun = self._words
        self._tell(f"{word} {done:,} of {total:,} {noun}, about {left} left")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How data are read: layout, columns, and what is done about rows."""

    panel: ClassVar[str] = "How the data are read"
    format: Annotated[
        str | None,
        typer.Option(help="Layout of DATA where it is not found by itself."),
    ] = None
    subject: Annotated[str | None, typer.Option(help="Column that names the subject.")] = None
    time: Annotated[str | None, typer.Option(help="Column with the time.")] = None
    variable: Annotated[str | None, typer.Option(help="Column that names the variable.")] = None
    value: Annotated[str | None, typer.Option(help="Column with the value.")] = None
    statics: Annotated[Path | None, typer.Option(help="Table with one row a subject.")] = None
    outcomes: Annotated[Path | None, typer.Option(help="Table of outcomes.")] = None
    inputs: Annotated[Path | None, typer.Option(help="Table of treatments.")] = None
    prediction_time: Annotated[
        str | None, typer.Option(help="Outcome column: up to then data may be used.")
    ] = None
    group: Annotated[
        str | None, typer.Option(help="Static that a split keeps together, such as the person.")
    ] = None
    time_unit: Annotated[
        str | None, typer.Option(help="Unit of the times: h, min, s, ms, d or hh:mm.")
    ] = None
    index: Annotated[
        str | None, typer.Option(help="MEDS: code of the event that is time zero.")
    ] = None
    until: Annotated[str | None, typer.Option(help="MEDS: code of the event that ends a stay.")] = (
        None
    )
    mapping: Annotated[
        Path | None, typer.Option(help="MEDS, MIMIC-IV: table from codes to variables.")
    ] = None
    policy: Annotated[
        Path | None, typer.Option(help="YAML file: what is done about rows that break the schema.")
    ] = None
    strict: Annotated[
        bool, typer.Option("--strict", help="Make every row that breaks the schema an error.")
    ] = False

    task_file: Annotated[
        Path | None,
        typer.Option(help="YAML file: what is predicted, when, and of whom; makes the outcomes."),
    ] = None

    def told(self) -> dict[str, Any]:
        """What was said about the data, without what was not."""
        said = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {
            name: value
            for name, value in said.items()
            if name not in ("data", "task_file") and value not in (None, False)
        }


@dataclass(frozen=True, kw_only=True)
class Data(Reading):
    """Where a cohort is, and how it is read."""

    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A table, or a folder in a layout we know.")
    ]

    def read(self) -> "Cohort":
        """Read the cohort, with the outcomes of the task file where one was given."""
        defined = self.defined()
        return self._read_as_it_is() if defined is None else defined.cohort

    def defined(self) -> "DefinedTask | None":
        """What the task file makes of the cohort; None without one."""
        from clinode.cohort.definition_yaml import read_task

        if self.task_file is None:
            return None
        definition = read_task(self.task_file)  # first, since reading a cohort may take long
        return definition.define(self._read_as_it_is())

    def _read_as_it_is(self) -> "Cohort":
        from clinode.cohort import read_cohort

        return read_cohort(self.data, **self.told())


@dataclass(frozen=True)
class Call:
    """What a command may store of how it was called: masked, and not an option of its own."""

    text: str | None = None


def spread_out(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every parameter that is a dataclass spread out into its fields.

    One that asks for the `Call` gets it from the context.
    """
    hints = get_type_hints(command, include_extras=True)
    calls = [name for name, hint in hints.items() if hint is Call]
    hints |= dict.fromkeys(calls, typer.Context)
    groups: dict[str, type] = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        types = get_type_hints(groups[name], include_extras=True)
        for entry in fields(groups[name]):
            for said in types[entry.name].__metadata__:
                if isinstance(said, OptionInfo):
                    said.rich_help_panel = groups[name].panel
            default = inspect.Parameter.empty if entry.default is MISSING else entry.default
            parameters.append(
                inspect.Parameter(
                    entry.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=default,
                    annotation=types[entry.name],
                )
            )

    @wraps(command)
    def spread(**given: Any) -> None:
        for name in calls:
            given[name] = given[name].obj or Call()
        for name, group in groups.items():
            given[name] = group(**{entry.name: given.pop(entry.name) for entry in fields(group)})
        command(**given)

    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    spread.__signature__ = inspect.Signature(keyword_only)  # pyright: ignore[reportAttributeAccessIssue]  # functions have one, the stubs do not
    spread.__annotations__ = {p.name: p.annotation for p in keyword_only}
    del spread.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]  # or the old one is seen
    return spread
