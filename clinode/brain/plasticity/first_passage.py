"""Memories followed one by one: how long until a readout of stored synapses fails.

The SNR says when the mean fades into the noise. A readout fails at the first event at which the
sum over synapses falls below its threshold, which is a question about paths, not about means
(Elliott 2014, Neural Comput. 26:1924-1972).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError

from .markov import MarkovSynapse


@dataclass(frozen=True)
class FirstPassage:
    """Lifetimes of simulated memories.

    Attributes:
        mean: Events until the readout falls to its threshold, mean over memories; a lower bound
            where some were still readable at the end.
        standard_error: Of the mean.
        n_memories: How many were followed.
        n_surviving: How many were still readable at the end.
        verdict: "ok", or "lower bound: ...".
    """

    mean: float
    standard_error: float
    n_memories: int
    n_surviving: int
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


def first_passage_lifetime(
    synapse: MarkovSynapse,
    N: int,
    *,
    threshold: float = 0.0,
    n_memories: int = 200,
    max_events: int = 10_000,
    generator: torch.Generator,
) -> FirstPassage:
    """Mean number of events until the mean of stored strengths times pattern reaches a threshold.

    Args:
        synapse: All N are alike and independent.
        N: Synapses.
        threshold: Of (1/N) sum of pattern times strength, below 1; 0 is chance at f = 1/2.
        n_memories: Memories to follow, each in synapses of its own.
        max_events: After which a memory is called surviving.
        generator: Draws states, patterns and events.

    Raises:
        ArgumentError: Numbers that are not positive, or a threshold of 1 or more.
    """
    if threshold >= 1:
        raise ArgumentError(f"the readout is at most 1, got a threshold of {threshold}")
    readable = torch.full((n_memories,), max_events, dtype=torch.float64)
    alive = torch.ones(n_memories, dtype=torch.bool)
    for event, readout in enumerate(_readouts(synapse, N, n_memories, max_events, generator)):
        failed = alive & (readout <= threshold)
        readable[failed] = event
        alive &= ~failed
        if not bool(alive.any()):
            break
    surviving = int(alive.sum())
    verdict = "ok"
    if surviving:
        verdict = f"lower bound: {surviving} of {n_memories} outlived {max_events} events"
    error = float(readable.std() / math.sqrt(n_memories)) if n_memories > 1 else math.nan
    return FirstPassage(float(readable.mean()), error, n_memories, surviving, verdict)


def simulate_memory(
    synapse: MarkovSynapse,
    N: int,
    n_events: int,
    *,
    n_memories: int = 1,
    generator: torch.Generator,
) -> Float[Tensor, "memory event"]:
    """(1/N) sum of pattern times strength right after a memory is stored, and after each event.

    Args:
        synapse: All N are alike and independent.
        N: Synapses.
        n_events: Events after the memory's own.
        n_memories: Memories, each in synapses of its own.
        generator: Draws states, patterns and events.

    Returns:
        (memory, n_events + 1), float64.

    Raises:
        ArgumentError: Numbers that are not positive.
    """
    return torch.stack(list(_readouts(synapse, N, n_memories, n_events, generator)), dim=1)


def _readouts(
    synapse: MarkovSynapse, N: int, n_memories: int, n_events: int, generator: torch.Generator
):
    """The readout of each memory, from its own event on."""
    if N < 1 or n_memories < 1 or n_events < 0:
        raise ArgumentError("N and the number of memories are at least 1, that of events not below")
    device = generator.device
    steps = torch.stack([synapse.M_minus, synapse.M_plus]).to(device)
    cumulative = steps.cumsum(dim=1).transpose(1, 2).contiguous()  # (event, from, to)
    strength = synapse.strength.to(device)
    share = synapse.equilibrium().clamp(min=0).to(device)
    shape = (n_memories, N)
    state = torch.multinomial(share, n_memories * N, replacement=True, generator=generator)
    state = state.reshape(shape)

    def drawn() -> Tensor:
        return torch.rand(shape, generator=generator, device=device, dtype=torch.float64)

    def after(state: Tensor, potentiates: Tensor) -> Tensor:
        rows = cumulative[potentiates.long(), state]
        entered = (rows < drawn().unsqueeze(-1)).sum(dim=-1)
        return entered.clamp(max=synapse.n_states - 1)

    pattern = drawn() < synapse.potentiation
    sign = 2.0 * pattern.double() - 1
    state = after(state, pattern)
    yield (sign * strength[state]).mean(dim=1)
    for _ in range(n_events):
        state = after(state, drawn() < synapse.potentiation)
        yield (sign * strength[state]).mean(dim=1)
