"""A small recurrent network, fitted to dense sequences: what the sets with labels explain.

The recipe is that of the published State benchmark: one GRU of 200 units, Adam with a learning rate
of 1e-4 and an L2 penalty of 1e-3, 50 epochs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from clinode.errors import ArgumentError, SolverError


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """How the network is built and fitted."""

    hidden: int = 200
    epochs: int = 50
    batch_size: int = 32
    learning_rate: float = 1e-4
    l2: float = 1e-3

    def __post_init__(self):
        for name in ("hidden", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name} must be at least 1, got {getattr(self, name)}")


class Recurrent(nn.Module):
    """A GRU with a linear readout at every step.

    Args:
        n_variables: Read at each step.
        n_outputs: Logits a step.
        hidden: Units.
    """

    def __init__(self, n_variables: int, n_outputs: int, hidden: int):
        super().__init__()
        self.gru = nn.GRU(n_variables, hidden, batch_first=True)
        self.readout = nn.Linear(hidden, n_outputs)

    def forward(self, x: Float[Tensor, "batch step variable"]) -> Tensor:
        """Logits (batch, step, output)."""
        return self.readout(self.gru(x)[0])


def fit_recurrent(
    x: Float[Tensor, "batch step variable"],
    label: Tensor,
    config: RecurrentConfig,
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Recurrent:
    """Fit a network to a label at every step, or to one at the last.

    Args:
        x: Sequences of one length.
        label: (batch, step) of 0 and 1; or (batch,) whole numbers, the class told at the end.
        config: The recipe.
        seed: Of the weights and the batches.
        progress: Called with (epochs done, epochs).

    Raises:
        SolverError: The loss is not a number.
    """
    at_end = label.ndim == 1
    n_outputs = int(label.max()) + 1 if at_end else 1
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # layers draw their weights from the global generator
        network = Recurrent(x.shape[2], n_outputs, config.hidden).to(x)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=config.learning_rate, weight_decay=config.l2
    )
    for epoch in range(config.epochs):
        for rows in torch.randperm(len(x), generator=draw).split(config.batch_size):
            logits = network(x[rows])
            if at_end:
                loss = cross_entropy(logits[:, -1], label[rows])
            else:
                loss = binary_cross_entropy_with_logits(logits[..., 0], label[rows])
            if not torch.isfinite(loss):
                raise SolverError("the loss of the network is not a number")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if progress is not None:
            progress(epoch + 1, config.epochs)
    return network.eval().requires_grad_(False)
