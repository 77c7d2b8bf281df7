"""How long a fit will still train, from what its rows have cost so far.

A step costs in proportion to the rows of its records, and an epoch ends with an evaluation and a
checkpoint, which cost the same every time. The pace is that of the last epoch's worth of rows: a
field that grows stiffer while it is learned takes more substeps than it did at first. The first
steps of a process are not counted as soon as there are others: libraries warm up in them.
"""

import time
from collections import deque
from collections.abc import Callable

_WARM_UP = 2  # steps
_FEWEST = 5  # steps after them before anything is said within a first epoch


class TimeLeft:
    """The seconds that training will still take if every epoch of the schedule runs.

    Args:
        rows_per_epoch: Rows of all records that are trained on.
        epochs: That are still to be done, the one under way included.
        rows_done: Of the epoch under way, before this process.
        clock: Seconds, rising.
    """

    def __init__(
        self,
        rows_per_epoch: int,
        epochs: int,
        rows_done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._clock, self._mark = clock, clock()
        self._rows_per_epoch = rows_per_epoch
        self._rows_left = epochs * rows_per_epoch - rows_done
        self._epochs_left = epochs
        self._steps: deque[tuple[int, float]] = deque()  # rows and seconds
        self._rows, self._seconds, self._n_steps = 0, 0.0, 0
        self._closing, self._n_closed = 0.0, 0

    def stepped(self, rows: int) -> None:
        """A step over so many rows was made."""
        took = self._lap()
        self._rows_left -= rows
        self._n_steps += 1
        if self._n_steps == _WARM_UP + 1:
            self._steps.clear()
            self._rows, self._seconds = 0, 0.0
        self._steps.append((rows, took))
        self._rows, self._seconds = self._rows + rows, self._seconds + took
        while self._rows - self._steps[0][0] >= self._rows_per_epoch:
            old_rows, old_seconds = self._steps.popleft()
            self._rows, self._seconds = self._rows - old_rows, self._seconds - old_seconds

    def closed(self) -> None:
        """An epoch was evaluated and saved."""
        self._closing += self._lap()
        self._n_closed += 1
        self._epochs_left -= 1

    @property
    def seconds(self) -> float | None:
        """What is left; None while nothing can be said, or where nothing is left."""
        if self._n_steps < _WARM_UP + _FEWEST and not self._n_closed:
            return None
        if self._rows_left <= 0 or not self._rows:
            return None
        closing = self._closing / max(self._n_closed, 1)
        return self._rows_left * self._seconds / self._rows + self._epochs_left * closing

    def _lap(self) -> float:
        before, self._mark = self._mark, self._clock()
        return self._mark - before


def duration(seconds: float | int) -> str:
    """A duration in two units at most, as precise as an estimate is.

    Example:
        >>> [duration(s) for s in (0.2, 8.4, 75, 3700, 100000)]
        ['1 s', '9 s', '1 min 15 s', '1 h 2 min', '27 h 47 min']
    """
    whole = max(1, -int(-seconds // 1))
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
