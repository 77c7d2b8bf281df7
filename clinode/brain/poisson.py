"""Poisson spikes as an input, and what many small ones amount to."""

import torch
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Signal, Values


def poisson_input(
    rate: Values,
    duration: float,
    generator: torch.Generator,
    *,
    amount: Values = 1.0,
    baseline: Values = 0.0,
    start: float = 0.0,
) -> Signal:
    """An input of impulses at the times of Poisson processes, one process an input.

    The number of impulses is drawn first, then where they lie, uniformly: exact, however high the
    rate. The times are drawn in float64 on the generator's device.

    Args:
        rate: (..., input), impulses per time unit: 0.8 for 800 Hz where time is in ms. 0 where an
            input has none. Batch axes are independent draws.
        duration: How long it lasts, time units.
        generator: Source of randomness.
        amount: Of an impulse, (..., input), in the input's unit x time unit; 1 is a spike.
        baseline: (..., input), the value between and below the impulses, for inputs like V or I.
        start: Time of the beginning.

    Raises:
        ArgumentError: A rate that is negative or not finite, or a duration that is not positive.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> spikes = poisson_input([0.8, 0.0], 1000.0, generator, baseline=[0.0, -70.0])
        >>> len(spikes.impulses[0])  # near 800 times, all of the first of two inputs
        797
    """
    rates = torch.as_tensor(rate, dtype=torch.float64)
    if rates.ndim == 0:
        rates = rates.unsqueeze(0)
    if not (rates.isfinite().all() and (rates >= 0).all()):
        raise ArgumentError("a rate must be finite and not negative")
    if not duration > 0:
        raise ArgumentError(f"duration must be positive, got {duration}")
    rates = rates.to(generator.device)
    counts = torch.poisson(rates * duration, generator=generator)
    most = int(counts.max()) if counts.numel() else 0
    draw = torch.rand(
        *counts.shape, most, generator=generator, dtype=torch.float64, device=rates.device
    )
    order = torch.arange(most, dtype=torch.float64, device=rates.device)
    times = (start + duration * draw).masked_fill(order >= counts.unsqueeze(-1), torch.inf)
    none = torch.zeros_like(rates)
    own = torch.diag_embed(torch.as_tensor(amount).to(rates) + none)  # a process moves one input
    amounts = own.unsqueeze(-2).expand(*own.shape[:-1], most, own.shape[-1]).flatten(-3, -2)
    times, index = times.flatten(-2).sort(dim=-1)
    amounts = amounts.gather(-2, index.unsqueeze(-1).expand(amounts.shape))
    kept = int(times.isfinite().sum(-1).max()) if times.numel() else 0
    level = (torch.as_tensor(baseline).to(rates) + none).unsqueeze(-2)
    return Signal([-torch.inf], level, impulses=(times[..., :kept], amounts[..., :kept, :]))


def diffusion_approximation(rate: Values, jump: Values, tau: Values) -> tuple[Tensor, Tensor]:
    """White noise in place of Poisson spikes that each move the voltage by a jump.

    Many small jumps a tau are, for a leaky membrane, a mean shift of jump rate tau and noise
    sigma = jump sqrt(rate tau), which `NoisyLIF` and `siegert_rate` take; its voltage without a
    threshold then has the mean and the variance, sigma^2 / 2, of the jumps' (Campbell 1909).

    Stein 1965, Biophys J 5:173-194; Brunel 2000, J Comput Neurosci 8:183-208. Several independent
    inputs: add the shifts, and the squares of the noises.

    Args:
        rate: Of the spikes, 1/ms.
        jump: mV; negative for inhibition.
        tau: Membrane time constant, ms.

    Returns:
        Mean shift and sigma, mV.

    Raises:
        ArgumentError: A rate that is negative or a tau that is not positive.

    Example:
        >>> [value.item() for value in diffusion_approximation(rate=5.0, jump=0.2, tau=20.0)]
        [20.0, 2.0]
    """
    r, J, time_constant = (torch.as_tensor(v, dtype=torch.float64) for v in (rate, jump, tau))
    if not ((r >= 0).all() and (time_constant > 0).all()):
        raise ArgumentError("a rate must not be negative, and tau must be positive")
    return J * r * time_constant, J.abs() * torch.sqrt(r * time_constant)
