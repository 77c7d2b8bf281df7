"""Ctrl-C and SIGTERM, taken at a safe place.

The handler only sets a flag. Long loops ask `stop_requested` between two steps, save what they have
and raise `Interrupted`. A second signal does not wait: it raises KeyboardInterrupt at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """Whether somebody asked to stop; looked at between two steps."""

    def __init__(self):
        self.stop_requested = False

    def __call__(self, signal_number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self.stop_requested:
            raise KeyboardInterrupt
        self.stop_requested = True


@contextmanager
def stopping_gently() -> Iterator[StopFlag]:
    """Takes SIGINT and SIGTERM as a flag while inside; earlier handlers return afterwards.

    Python delivers signals to the main thread only, and only there can handlers be set: elsewhere
    the flag stays down, and whoever owns the main thread decides.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    earlier = {number: signal.signal(number, flag) for number in signals}
    try:
        yield flag
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
