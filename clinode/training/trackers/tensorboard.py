"""Fits in TensorBoard: event files in a local folder, one folder a run."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinode.errors import ArgumentError

if TYPE_CHECKING:
    from clinode.training.trackers.tracker import Status


class TensorBoard:
    """Writes what `tensorboard --logdir FOLDER` shows: a curve for each number of a fit.

    A fit that goes on hides what was told of later steps before it was stopped.

    Args:
        folder: Of all runs; each gets a folder of its name within.

    Raises:
        ArgumentError: The package tensorboard is not installed.
    """

    def __init__(self, folder: Path | str):
        if find_spec("tensorboard") is None:
            raise ArgumentError(
                "TensorBoard cannot follow a fit: the package tensorboard is not installed",
                fix="pip install 'clinode[track]', or leave this tracker out",
            )
        self.folder = Path(folder)
        self.shown_by = f"tensorboard --logdir {self.folder}"
        self._writer: Any = None

    def start(self, name: str, settings: Mapping[str, Any], *, identity: str, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder / name), purge_step=step + 1)
        rows = [f"| {key} | {value} |" for key, value in settings.items()]
        table = "\n".join(["| setting | value |", "|---|---|", *rows, f"| identity | {identity} |"])
        self._writer.add_text("settings", table, global_step=0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, global_step=step)
        self._writer.flush()

    def finish(self, status: "Status") -> None:
        self._writer.add_text("status", status, global_step=0)
        self._writer.close()
