"""Several processes that fit one model together, each on its share of every step.

Started by `torchrun`, which tells each its place. Every process holds the whole data and the whole
model, draws the same records for a step and takes its share of them; losses and gradients are
summed over all of them, with every mean taken over the values of the whole step, so the result is
that of one process but for rounding. Only the first one writes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import get_node_local_rank


@dataclass(frozen=True)
class Crew:
    """The processes of a fit, as one of them sees it.

    Args:
        place: Of this process, from 0.
        size: How many there are.
    """

    place: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.place == 0

    def share(self, chosen: np.ndarray) -> np.ndarray:
        """What of a step this process takes: every so many-th record, so that all are as long."""
        return chosen[self.place :: self.size]

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            value = value.detach().clone()
            distributed.all_reduce(value)
        return value

    def sum_gradients(self, model: nn.Module) -> None:
        """Set every gradient to the sum over all processes; one that nobody has stays away."""
        if self.size == 1:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        there = torch.tensor([float(p.grad is not None) for p in parameters])
        there = self.sum(there.to(parameters[0].device)).tolist()
        held = [p for p, n in zip(parameters, there, strict=True) if n]
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in held]
        )
        parts = self.sum(flat).split([p.numel() for p in held])
        for parameter, part in zip(held, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def anyone(self, is_so: bool) -> bool:
        """Whether it is so for any process."""
        if self.size == 1:
            return is_so
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        return bool(self.sum(torch.tensor(float(is_so), device=device)) > 0)

    def told(self, value: Any) -> Any:
        """What the first process has, for all."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def crew_of(device: torch.device) -> Iterator[Crew]:
    """The processes that `torchrun` started with this one; this one alone where it did not.

    A group that the caller has set up is used as it is. On CUDA each process takes the card of its
    place on its machine.
    """
    began = False
    if not distributed.is_initialized() and distributed.is_torchelastic_launched():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        began = True
    try:
        if not distributed.is_initialized():
            yield Crew()
            return
        if device.type == "cuda":
            torch.cuda.set_device(get_node_local_rank())
        yield Crew(distributed.get_rank(), distributed.get_world_size())
    finally:
        if began:
            distributed.destroy_process_group()
