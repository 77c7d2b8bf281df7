"""What no synapse of so many states can exceed."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Values


def memory_envelope(
    t: Values, n_states: int, N: float | int, rate: float = 1.0
) -> Float[Tensor, "*time"]:
    """Largest SNR that any Markov synapse can have at a time, one bound for all of them.

    sqrt(N) exp(-rate t / (M - 1)) up to t = (M - 1) / rate, and sqrt(N) (M - 1) / (e rate t) after
    it, where M is the number of states (Lahiri & Ganguli 2013, NeurIPS 26).

    Args:
        t: Times, or numbers of events at a rate of 1; not negative.
        n_states: M, at least 2.
        N: Synapses.
        rate: Events in a time unit.

    Raises:
        ArgumentError: Fewer than two states, or numbers that are not positive.

    Example:
        >>> memory_envelope([0.0, 3.0, 30.0], n_states=4, N=100.0)
        tensor([10.0000,  3.6788,  0.3679], dtype=torch.float64)
    """
    times = torch.as_tensor(t, dtype=torch.float64)
    if n_states < 2 or not (N > 0 and rate > 0) or bool((times < 0).any()):
        raise ArgumentError("two states or more, and times, N and rate that are not negative")
    passed = rate * times / (n_states - 1)
    late = 1 / (math.e * passed.clamp(min=1.0))
    return math.sqrt(N) * torch.where(passed <= 1, torch.exp(-passed), late)
