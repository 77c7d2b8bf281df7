"""What a fit tells those who watch it.

A tracker gets the settings of a fit once, then numbers by name and step, and last how it ended.
Nothing else leaves the fit: losses, rates, counts, seconds and metrics of whole parts, never a
value, an identifier or a date of a subject. `clinode.fit(..., trackers=[...])` takes anything with
these three methods, so a service that is not here needs a class of a few lines:

    class WeightsAndBiases:
        def start(self, name, settings, *, identity, step):
            self.run = wandb.init(name=name, config=settings, id=identity[:16], resume="allow")

        def log(self, step, values):
            self.run.log(values, step=step)

        def finish(self, status):
            self.run.finish(exit_code=0 if status == "finished" else 1)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, Protocol, runtime_checkable

from clinode.errors import ArgumentError, Interrupted

Status = Literal["finished", "stopped", "failed"]


@runtime_checkable
class Tracker(Protocol):
    """One that watches fits, one at a time.

    What it raises ends the fit, which goes on from its last checkpoint when it is called again.
    """

    def start(self, name: str, settings: Mapping[str, Any], *, identity: str, step: int) -> None:
        """A fit begins, or goes on.

        Args:
            name: Of the run's folder.
            settings: Model, task, schedule and seed, flat: "fit.epochs" and so on.
            identity: SHA-256 of everything that decides the result. A fit that goes on has the
                identity with which it began.
            step: The step that it goes on from; numbers of later steps will be told again.
        """
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after a step, by the event and the name in `log.jsonl`: "epoch/tune_loss"."""
        ...

    def finish(self, status: Status) -> None:
        """The fit is over, was stopped and can go on, or failed."""
        ...


@contextmanager
def tracking(
    trackers: Sequence[Tracker],
    name: str,
    settings: Mapping[str, Any],
    *,
    identity: str,
    step: int,
) -> Iterator[None]:
    """Every tracker started before, and finished after what is done inside; see `Tracker.start`."""
    ended: list[Status] = ["failed"]  # until the end is reached
    with ExitStack() as opened:
        for tracker in trackers:
            tracker.start(name, settings, identity=identity, step=step)
            opened.callback(lambda tracker=tracker: tracker.finish(ended[-1]))
        try:
            yield
        except (Interrupted, KeyboardInterrupt):
            ended.append("stopped")
            raise
        ended.append("finished")


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """Refuse what is no tracker, before anything was computed.

    Raises:
        ArgumentError: Says what was given.
    """
    for tracker in trackers:
        if isinstance(tracker, type) or not isinstance(tracker, Tracker):
            told = tracker.__name__ if isinstance(tracker, type) else type(tracker).__name__
            raise ArgumentError(
                f"{told} cannot follow a fit: expected an object with start, log and finish",
                fix="pass such as clinode.training.TensorBoard('runs/tensorboard')",
            )
