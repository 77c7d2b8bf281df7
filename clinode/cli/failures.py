"""What a person is told when something went wrong, and the exit code that programs get.

Expected failures say their own words. Of an unexpected one only its kind and its place in our code
are shown, since its text may hold a value of a patient; `--debug` shows the way there, with lines
of code and without texts of others. Words that were typed come back without paths, and without
what picks a subject.
"""

import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import typer
from typer.exceptions import TyperException

import clinode
from clinode.cli.answers import as_json, as_text, say
from clinode.cli.masking import without_values, without_words
from clinode.errors import ArgumentError, ClinodeError, ResourceError, masked_text
from clinode.folder import is_disk_full

INTERRUPTED = 130
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


class told_to_a_person:
    """Ends the program on any failure inside: one line, or one JSON object, and an exit code.

    Args:
        given: The words after `clinode`; `--json` and `--debug` among them say how to tell.
        examples: A call that works, by name of command.
    """

    def __init__(self, given: Sequence[str], examples: Mapping[str, str]):
        self.given = given
        self.as_json = "--json" in given
        self.debug = "--debug" in given
        self.example = next((examples[word] for word in given if word in examples), "")

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, SystemExit):
            return
        if self.debug:
            say(sys.stderr, self._safe(as_text(_way_to(error))))
        if isinstance(error, KeyboardInterrupt | typer.Abort):
            self._tell({"code": "CLN-R03", "problem": "interrupted"}, "interrupted", INTERRUPTED)
        ours = _as_ours(error, self.given, self.example)
        told = {key: self._safe(text) for key, text in ours.to_dict().items()}
        line = self._safe(f"error {ours.code}: {ours}")
        self._tell(told, line, ours.exit_code)

    def _safe(self, text: str) -> str:
        """Without what was typed of whom, and whatever else looks like an identifier or a date."""
        return masked_text(without_words(text, self.given))

    def _tell(self, told: dict[str, str], line: str, exit_code: int) -> None:
        if self.as_json:
            say(sys.stdout, as_json({"error": told, "exit_code": exit_code}))
        else:
            say(sys.stderr, f"{line}\n")
        raise SystemExit(exit_code) from None


def _as_ours(error: BaseException, given: Sequence[str], example: str) -> ClinodeError:
    """The failure as an error of ours."""
    if isinstance(error, ClinodeError):
        return error
    if isinstance(error, TyperException):
        problem = without_values(error.format_message().rstrip("."), given)
        return ArgumentError(problem, fix=f"Try: {example}" if example else "see clinode --help")
    if is_disk_full(error):
        return ResourceError("the disk is full", fix="free some space and run it again")
    if isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
        return ResourceError("memory ran out", fix="close other programs, or read less at once")
    return ClinodeError(
        f"unexpected {type(error).__name__}{_place(error)}",
        fix="this is a fault of clinode; --debug shows where, without it nothing of the data is "
        "shown",
    )


def _way_to(error: BaseException) -> Iterator[str]:
    """A traceback, causes first: places and lines of code, and of errors that are not ours no text.

    A line of code holds no value of the data, the text of an exception may.
    """
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _way_to(cause)
        yield "which led to"
    yield "Traceback (most recent call last):"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {_code_name(frame.filename)}, line {frame.lineno}, in {frame.name}"
        yield f"    {frame.line}"
    withheld = "its text is withheld, it may hold data"
    yield f"{type(error).__name__}: {error if isinstance(error, ClinodeError) else withheld}"


def _code_name(file: str) -> str:
    """A file of code from its package on, without where that is installed."""
    parts = re.split(r"[/\\]", file)
    for root in ("site-packages", "clinode"):
        if root in parts[:-1]:
            start = len(parts) - 1 - parts[::-1].index(root)
            return "/".join(parts[start + (root == "site-packages") :])
    return parts[-1]


def _place(error: BaseException) -> str:
    """Where in our code an exception passed last."""
    home = Path(clinode.__file__).parent
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(home)
    ]
    if not own:
        return ""
    name = Path(own[-1].filename).relative_to(home.parent).as_posix()
    return f" in {name}, line {own[-1].lineno}"
