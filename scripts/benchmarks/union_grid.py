"""The published way to train an ODE-RNN and a Latent ODE, written anew and vectorised.

After Rubanova et al. 2019 (arXiv:1907.03907) and their settings for PhysioNet-2012: all records of
a batch are integrated together over the union of their time stamps, one small Euler step from stamp
to stamp, and updated where they were observed; the Latent ODE decodes three samples of every
record at every stamp of the union by an adaptive solver. What their code computes in loops over
samples, records and channels (the likelihood) is one masked sum here, so that a ratio measures the
way of integrating and nothing else. Time runs from 0 to 1 in a window.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchdiffeq import odeint

SPREAD = 0.01  # of an observation
UNITS, GATE_UNITS, LAYERS, CLASSIFIER = 50, 50, 3, 300
EULER_STEPS = 50  # in a window; a gap between stamps that is shorter is one step


class UnionGrid(NamedTuple):
    """Records on the union of their stamps.

    Args:
        time: (stamp,), share of the window.
        value, mask: (batch, stamp, channel).
        outcome: (batch,).
    """

    time: Tensor
    value: Tensor
    mask: Tensor
    outcome: Tensor


def network(n_in: int, n_out: int, n_layers: int = LAYERS, units: int = UNITS) -> nn.Sequential:
    """tanh layers, drawn as published: weights of deviation .1, no offsets."""
    widths = [n_in, *[units] * (n_layers + 1)]
    made: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        made += [nn.Linear(a, b), nn.Tanh()]
    made.append(nn.Linear(units, n_out))
    for layer in made:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.1)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*made)


class GatedMoments(nn.Module):
    """The published update of a state and of its spread by values and mask."""

    def __init__(self, n_states: int, n_channels: int):
        super().__init__()
        n_in = 2 * n_states + 2 * n_channels
        self.update = network(n_in, n_states, 0, GATE_UNITS)
        self.reset = network(n_in, n_states, 0, GATE_UNITS)
        self.propose = network(n_in, 2 * n_states, 0, GATE_UNITS)

    def forward(
        self, y: Tensor, spread: Tensor, x: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        told = torch.cat([y, spread, x], dim=1)
        update, reset = torch.sigmoid(self.update(told)), torch.sigmoid(self.reset(told))
        proposed = self.propose(torch.cat([y * reset, spread * reset, x], dim=1))
        mean, deviation = proposed.chunk(2, dim=1)
        new = (1 - update) * mean + update * y
        new_spread = (1 - update) * deviation.abs() + update * spread
        new = observed * new + (1 - observed) * y
        return new, (observed * new_spread + (1 - observed) * spread).abs()


class UnionODERNN(nn.Module):
    """ODE-RNN with a decoder of the next observation and a classifier."""

    def __init__(self, n_states: int, n_channels: int):
        super().__init__()
        self.n_states = n_states
        self.field = network(n_states, n_states)
        self.unit = GatedMoments(n_states, n_channels)
        self.decoder = network(n_states, n_channels, 0)
        self.classifier = classifier(n_states)

    def run(self, grid: UnionGrid, *, reverse: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """(stamp, batch, state) before the observations of each; state and spread at the end."""
        n_batch, n_stamps, _ = grid.value.shape
        observed = grid.mask.any(dim=2).to(grid.value.dtype)
        y = grid.value.new_zeros(n_batch, self.n_states)
        spread = torch.zeros_like(y)
        order = range(n_stamps - 1, -1, -1) if reverse else range(n_stamps)
        at, before = grid.time[order[0]], []
        for k in order:
            gap = (grid.time[k] - at).abs()
            n_steps = max(1, int(gap * EULER_STEPS))
            for _ in range(n_steps):
                y = y + self.field(y) * (gap / n_steps)
            before.append(y)
            x = torch.cat([grid.value[:, k], grid.mask[:, k].to(y.dtype)], dim=1)
            y, spread = self.unit(y, spread, x, observed[:, k].unsqueeze(1))
            at = grid.time[k]
        return torch.stack(before), y, spread

    def loss(self, grid: UnionGrid) -> Tensor:
        """Negative log likelihood of the next observation, and of the outcome."""
        before, y, _ = self.run(grid)
        expected = self.decoder(before).transpose(0, 1)
        outcome = nn.functional.binary_cross_entropy_with_logits(
            self.classifier(y).squeeze(1), grid.outcome
        )
        return negative_log_likelihood(grid, expected.unsqueeze(0)).mean() + outcome


class UnionLatentODE(nn.Module):
    """An ODE-RNN read backwards gives the start of a path, which is decoded at every stamp."""

    def __init__(
        self,
        n_states: int,
        n_read: int,
        n_channels: int,
        n_samples: int = 3,
        n_stamps: int = 64,
    ):
        super().__init__()
        self.n_samples, self.n_stamps = n_samples, n_stamps
        self.encoder = UnionODERNN(n_read, n_channels)
        del self.encoder.decoder, self.encoder.classifier
        self.start = network(2 * n_read, 2 * n_states, 0, 100)
        self.field = network(n_states, n_states)
        self.decoder = nn.Linear(n_states, n_channels)
        self.classifier = classifier(n_states)

    def path(self, z: Tensor, time: Tensor) -> Tensor:
        """States at all stamps, solved a stretch of them at a time.

        The solver writes each stamp into one tensor, and going back through each write costs a pass
        over all of it: in one piece the way back takes five times as long, for no reason of the
        method's own.
        """
        parts, n = [z.unsqueeze(0)], len(time)
        for first in range(0, n - 1, self.n_stamps):
            here = time[first : first + self.n_stamps + 1]
            part = odeint(
                lambda t, x: self.field(x),
                parts[-1][-1],
                here,
                rtol=1e-3,
                atol=1e-4,
                method="dopri5",
            )
            parts.append(part[1:])  # type: ignore[index]
        return torch.cat(parts)

    def loss(self, grid: UnionGrid, generator: torch.Generator) -> Tensor:
        """The negative bound of the likelihood, and that of the outcome."""
        _, y, spread = self.encoder.run(grid, reverse=True)
        mean, deviation = self.start(torch.cat([y, spread], dim=1)).chunk(2, dim=1)
        deviation = deviation.abs() + 1e-6
        drawn = torch.randn(self.n_samples, *mean.shape, generator=generator, dtype=mean.dtype)
        z = mean + deviation * drawn
        expected = self.decoder(self.path(z, grid.time)).permute(1, 2, 0, 3)
        likelihood = -negative_log_likelihood(grid, expected)
        apart = torch.distributions.kl_divergence(
            torch.distributions.Normal(mean, deviation), torch.distributions.Normal(0.0, 1.0)
        ).mean()
        outcome = nn.functional.binary_cross_entropy_with_logits(
            self.classifier(mean).squeeze(1), grid.outcome
        )
        return -torch.logsumexp(likelihood - apart, dim=0).mean() + outcome


def classifier(n_states: int) -> nn.Sequential:
    """As published: two layers of 300."""
    return nn.Sequential(
        nn.Linear(n_states, CLASSIFIER),
        nn.ReLU(),
        nn.Linear(CLASSIFIER, CLASSIFIER),
        nn.ReLU(),
        nn.Linear(CLASSIFIER, 1),
    )


def negative_log_likelihood(grid: UnionGrid, expected: Tensor) -> Tensor:
    """(sample, batch): of what was measured, each channel of a record by its mean."""
    mask = grid.mask.to(expected.dtype)
    error = ((grid.value - expected) / SPREAD) ** 2 / 2 * mask
    count = mask.sum(dim=1)
    by_channel = error.sum(dim=2) / count.clamp(min=1)
    return by_channel.sum(dim=2) / (count > 0).sum(dim=1).clamp(min=1)
