"""The state of a fit in the middle of it, on disk.

A checkpoint is a folder `step-00000120` of safetensors files and `state.json`, written whole or not
at all, with the SHA-256 of each file in its manifest. In it is everything a further step reads:
weights, averaged weights, the moments of AdamW, the best weights so far and the counters. There is
no random state to keep (see `clinode.training.optimise`), and no device.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from clinode.errors import CheckpointError
from clinode.folder import read_json, verify_folder, write_folder, write_json

KEPT = 2  # the last checkpoint may be torn by a dying disk; the one before it is the way back
_FORMAT = 1


@dataclass
class FitState:
    """Where a fit stands between two steps.

    `average`, `best` and `moments` are named tensors on the CPU or the device of the model; `curve`
    has one dictionary an evaluated epoch.
    """

    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    best: dict[str, Tensor]  # empty while nothing was selected
    moments: dict[str, Tensor]  # of AdamW
    step: int = 0
    epochs_done: int = 0
    best_loss: float | None = None
    best_epoch: int | None = None  # from 1
    loss_sum: float = 0.0  # over the batches of the epoch under way
    norm_sum: float = 0.0  # of their gradients
    curve: list[dict[str, float | int | None]] = field(default_factory=list)


_TENSORS = ("weights", "average", "best", "moments")


def save_checkpoint(folder: Path, state: FitState, *, identity: str) -> None:
    """Writes the state as a new checkpoint of `folder` and removes all but the last two.

    Args:
        folder: `checkpoints/` of the run.
        state: What to keep.
        identity: Digest of the call; the checkpoint serves no other one.

    Raises:
        ResourceError: The disk is full; the earlier checkpoints stand.
    """
    numbers = _numbers(state)

    def write(target: Path) -> None:
        for name in _TENSORS:
            save_tensors(target / f"{name}.safetensors", getattr(state, name))
        write_json(
            target / "state.json", {"format": _FORMAT, "identity": identity, "state": numbers}
        )

    name = f"step-{state.step:08d}"
    write_folder(folder / name, write, kind="checkpoint", replace=True)
    for old in list_checkpoints(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def load_latest_checkpoint(folder: Path, *, identity: str) -> tuple[FitState | None, list[str]]:
    """The newest checkpoint that is whole, and a sentence for each newer one that is not.

    Raises:
        CheckpointError: A whole checkpoint belongs to another call or to a newer clinode.
    """
    refused = []
    for path in list_checkpoints(folder):
        try:
            verify_folder(path, "checkpoint")
        except CheckpointError as error:
            refused.append(str(error))
            continue
        return _read_checkpoint(path, identity), refused
    return None, refused


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    return sorted(folder.glob("step-[0-9]*"), reverse=True)


def _read_checkpoint(path: Path, identity: str) -> FitState:
    stored = read_json(path / "state.json")
    if stored["format"] != _FORMAT:
        raise CheckpointError(
            f"checkpoint format {stored['format']}, and this clinode reads format {_FORMAT}",
            where=path.name,
            fix="resume with the version of clinode that wrote it",
        )
    if stored["identity"] != identity:
        raise CheckpointError(
            "the checkpoint was made by another call (configuration, data, schema or seed)",
            where=path.name,
            fix="choose another out=, or remove the unfinished folder",
        )
    tensors = {name: load_tensors(path / f"{name}.safetensors") for name in _TENSORS}
    return FitState(**tensors, **stored["state"])


def _numbers(state: FitState) -> dict[str, Any]:
    """The counters of a state, as JSON takes them."""
    return {name: value for name, value in vars(state).items() if name not in _TENSORS}


def save_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, Any] | None = None):
    """Writes named tensors as safetensors; the bytes depend on nothing but the arguments.

    Args:
        path: The file.
        tensors: By name.
        about: What they are, as JSON takes it; stored in the header.
    """
    plain = {
        name: tensors[name].detach().cpu().clone(memory_format=torch.contiguous_format)
        for name in sorted(tensors)
    }
    # one key only: safetensors writes several in an order that changes from process to process
    metadata = {"clinode": json.dumps(about or {}, sort_keys=True, allow_nan=False)}
    path.write_bytes(safetensors.torch.save(plain, metadata))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Named tensors from a safetensors file, on the CPU.

    Raises:
        CheckpointError: The file is not safetensors.
    """
    try:
        return safetensors.torch.load(path.read_bytes())
    except SafetensorError as error:
        raise CheckpointError(
            f"the file does not hold tensors ({error})",
            where=path.name,
            fix="restore it from a copy, or fit again",
        ) from error
