"""The call that made a run: everything that decides its bytes.

Two calls with the same identity give the same run; a folder that holds one refuses the other, and
says in what they differ.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from typing import Any

import torch

from clinode import __version__
from clinode.cohort import Task
from clinode.errors import OutputError
from clinode.sequence import SequenceModel
from clinode.training.config import FitConfig
from clinode.training.run import RUN_FORMAT, plain


def describe_call(
    model: SequenceModel,
    fingerprints: Mapping[str, Mapping[str, Any] | None],
    task: Task,
    seed: int,
    config: FitConfig,
    start_from: str | None = None,
) -> dict[str, Any]:
    """Everything that decides the result, plain; also the head of `config.yaml`.

    Args:
        model: What is trained.
        fingerprints: Of the part "train", and of "tune" where there is one.
        task: What is predicted.
        seed: Of every draw.
        config: The schedule.
        start_from: Digest of the weights that it starts from; None for none.
    """
    started = {} if start_from is None else {"start_from": start_from}
    return plain(
        started
        | {
            "format": RUN_FORMAT,
            "clinode": __version__,
            "model": model.config(),
            "task": task.to_dict(),
            "fit": config.to_dict(),
            "seed": seed,
            "data": {
                part: None if found is None else found["sha256"]
                for part, found in fingerprints.items()
            },
        }
    )


def _decisive(call: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: call[key] for key in ("format", "model", "task", "seed", "data")},
        "fit": FitConfig.from_dict(call["fit"]).decisive(),
        "start_from": call.get("start_from"),
    }


def identity(call: dict[str, Any]) -> str:
    """SHA-256 of what decides the result of a call."""
    return hashlib.sha256(json.dumps(_decisive(call), sort_keys=True).encode()).hexdigest()


def refuse_other_call(name: str, stored: dict[str, Any], call: dict[str, Any]) -> None:
    """Lets only the stored call itself pass.

    Raises:
        OutputError: Names the folder and up to five differences.
    """
    there, here = flat(_decisive(stored)), flat(_decisive(call))
    different = sorted(key for key in {*there, *here} if there.get(key) != here.get(key))
    if not different:
        return
    told = [
        key if key.startswith("data.") else f"{key} is {there.get(key)} there, {here.get(key)} here"
        for key in different[:5]
    ]
    raise OutputError(
        f"it holds the run of another call ({'; '.join(told)})",
        where=name,
        fix="choose another out=, or remove that folder",
    )


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names, as "fit.epochs"."""
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def environment(device: torch.device | None) -> dict[str, Any]:
    """What the last digits depend on besides the call."""
    found = {
        "clinode": __version__,
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
    return found if device is None else {**found, "device": device.type}
