"""A learned network as a folder: its weights as safetensors, what was said of it as JSON."""

import math
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from clinode.folder import read_json, verify_folder, write_folder, write_json

from .learn import LearnedNetwork, NetworkConfig, Phase
from .rate_network import WEIGHTS, RateNetwork

KIND = "network"


def save_network(learned: LearnedNetwork, folder: Path | str, *, replace: bool = False) -> None:
    """Write a learned network, whole or not at all.

    Args:
        learned: What `learn_network` returned.
        folder: Where it will be.
        replace: Whether a network that stands there may be replaced.

    Raises:
        OutputError: The place cannot be written to, or is occupied.
        ResourceError: The disk is full or failed.
    """
    system = learned.system
    names = (*WEIGHTS, "center", "spread")
    tensors = {name: getattr(system, name).contiguous() for name in names}
    facts = learned.to_dict() | {
        "stimulated": list(system.inputs[0].labels),
        "unit": system.outputs[0].unit,
        "input_scale": float(system.input_scale),
    }

    def write(place: Path) -> None:
        save_file(tensors, place / "network.safetensors")
        write_json(place / "network.json", facts)

    write_folder(folder, write, kind=KIND, replace=replace)


def load_network(folder: Path | str) -> LearnedNetwork:
    """The network that `save_network` wrote, checked against its manifest.

    Raises:
        CheckpointError: There is none, or a file of it is missing, truncated or altered.
    """
    folder = Path(folder)
    verify_folder(folder, KIND)
    facts = read_json(folder / "network.json")
    tensors = load_file(folder / "network.safetensors")
    system = RateNetwork(
        {name: tensors[name] for name in WEIGHTS},
        center=tensors["center"],
        spread=tensors["spread"],
        input_scale=facts["input_scale"],
        regions=facts["regions"],
        stimulated=facts["stimulated"],
        unit=facts["unit"],
    )
    config = facts["config"]
    phases = tuple(Phase(**phase) for phase in config["phases"])
    return LearnedNetwork(
        system,
        tuple(facts["identified"]),
        np.array(facts["losses"]),
        math.nan if facts["held_out"] is None else facts["held_out"],
        math.nan if facts["linear_share"] is None else facts["linear_share"],
        facts["seconds"],
        NetworkConfig(**{**config, "phases": phases}),
    )
