"""What a fit says while it runs: a log for machines, a display for people.

The log is `log.jsonl`, always. The display is a bar with loss, time left and evaluations on a
terminal, a plain line an epoch otherwise; both go to the standard error. Neither says anything
about a subject.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from clinode.training.time_left import duration
from clinode.training.trackers import Tracker

Value = str | int | float | bool | None
_OPENING = ("start", "resume")  # lines with what a tracker knows from the settings


class FitLog:
    """`log.jsonl`: one JSON object a line, flushed line by line.

    Args:
        path: The file; what it holds up to `step` is kept, so a resumed run tells each step once.
        step: The step that the fit goes on from.
        trackers: Are told the numbers of every line between the first and the last.
    """

    def __init__(self, path: Path, step: int = 0, trackers: Sequence[Tracker] = ()):
        self._path = path
        self._trackers = trackers
        lines = _lines_up_to(path, step) if path.exists() else []
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def write(self, event: str, step: int, **fields: Value) -> None:
        """Adds a line; what is not finite becomes null."""
        record = {"event": event, "step": step, **{k: _finite(v) for k, v in fields.items()}}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
        if event not in _OPENING:
            self._tell(event, step, fields)

    def _tell(self, event: str, step: int, fields: Mapping[str, Value]) -> None:
        told = {
            f"{event}/{name}": float(value)
            for name, value in fields.items()
            if isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
        }
        for tracker in self._trackers:
            tracker.log(step, told)


def _lines_up_to(path: Path, step: int) -> list[str]:
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the line that a kill cut short
            continue
        if isinstance(record, dict) and record.get("step", step + 1) <= step:
            kept.append(line)
    return kept


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def left_in_words(seconds: float | None, *, may_stop_early: bool) -> str:
    """What is left to train, as "about 40 s left", or "at most" where patience may end it sooner.

    Args:
        seconds: If every epoch of the schedule runs; None gives no word.
        may_stop_early: Whether patience can run out before the last epoch.
    """
    if seconds is None:
        return ""
    return f"{'at most' if may_stop_early else 'about'} {duration(seconds)} left"


@runtime_checkable
class FitDisplay(Protocol):
    """Where a fit tells a person how far it is."""

    def step(self, step: int, loss: float, left: str) -> None:
        """A training step was made; `left` as `left_in_words` says it."""
        ...

    def epoch(self, epoch: int, text: str, left: str) -> None:
        """An epoch, from 1, was finished and evaluated."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...


class _Silent:
    def step(self, step: int, loss: float, left: str) -> None:
        pass

    def epoch(self, epoch: int, text: str, left: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _Plain:
    def step(self, step: int, loss: float, left: str) -> None:
        pass

    def epoch(self, epoch: int, text: str, left: str) -> None:
        self.note(f"epoch {epoch}: {text}{left and f', {left} to train'}")

    def note(self, text: str) -> None:
        sys.stderr.write(f"fit: {text}\n")
        sys.stderr.flush()


class _Bar:
    def __init__(self, progress: Progress, n_steps: int):
        self._progress = progress
        self._task = progress.add_task("fit", total=n_steps, loss="", left="", evaluation="")

    def step(self, step: int, loss: float, left: str) -> None:
        self._progress.update(self._task, completed=step, loss=f"loss {loss:.4f}", left=left)

    def epoch(self, epoch: int, text: str, left: str) -> None:
        self._progress.update(self._task, evaluation=f"epoch {epoch}: {text}", left=left)

    def note(self, text: str) -> None:
        self._progress.console.print(f"fit: {text}", markup=False, highlight=False)


@contextmanager
def display(n_steps: int, *, shown: bool = True) -> Iterator[FitDisplay]:
    """The display that suits the standard error, for the time of a `with`.

    Args:
        n_steps: Steps of the entire fit.
        shown: False for silence.
    """
    console = Console(stderr=True)
    if not shown:
        yield _Silent()
    elif not console.is_terminal or console.is_jupyter:
        yield _Plain()
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[evaluation]}"),
        )
        with Progress(*columns, console=console) as progress:
            yield _Bar(progress, n_steps)
