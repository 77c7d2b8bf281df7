"""Firing rates: of integrate-and-fire neurons in closed form, and of any trajectory with spikes.

`lif_rate` without noise, `siegert_rate` in white noise: tensors broadcast, everything is
differentiable. `spike_rate` counts what a simulation has done.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor

from clinode.dynamics import Trajectory
from clinode.errors import ArgumentError
from clinode.system import Values

NODES = 128  # per part of the integral; 1e-13 of it over the widths that double precision has
DECAY = 45.0  # what lies exp(-45) below the largest part of the integral adds nothing to it


def lif_rate(mu: Values, *, tau: Values, V_th: Values, V_r: Values, t_ref: Values = 0.0) -> Tensor:
    """Rate of a leaky integrate-and-fire neuron without noise: zero up to mu = V_th.

    1 / (t_ref + tau ln((mu - V_r) / (mu - V_th))). Lapicque 1907, J Physiol Pathol Gen 9:620-635.

    Args:
        mu: Voltage that it would rest at without a threshold, E_L + I / g_L; mV.
        tau: Membrane time constant, ms.
        V_th: Threshold, mV.
        V_r: Reset, mV; below V_th.
        t_ref: Refractory time, ms.

    Returns:
        Spikes per ms.

    Raises:
        ArgumentError: V_r not below V_th, tau not positive, t_ref negative.

    Example:
        >>> lif_rate(-40.0, tau=20.0, V_th=-50.0, V_r=-60.0, t_ref=2.0)
        tensor(0.0630, dtype=torch.float64)
    """
    drive, tau, high, low, pause = _checked(mu, tau, V_th, V_r, t_ref)
    fires = drive > high
    above = torch.where(fires, drive - high, torch.ones_like(drive - high))
    # ln(1 + x) keeps the rate of a strong drive, where both distances are nearly equal
    gap = torch.log1p((high - low) / above)
    return torch.where(fires, 1 / (pause + tau * gap), torch.zeros_like(gap))


def siegert_rate(
    mu: Values, sigma: Values, *, tau: Values, V_th: Values, V_r: Values, t_ref: Values = 0.0
) -> Tensor:
    """Rate of a leaky integrate-and-fire neuron in white noise.

    Of tau dV = (mu - V) dt + sigma sqrt(tau) dW with threshold, reset and refractory time:

        1 / rate = t_ref + tau sqrt(pi) integral of exp(y^2) (1 + erf y)
                   from (V_r - mu) / sigma to (V_th - mu) / sigma

    The integrand is erfcx(-y), of order 1 / |y| below 0 and growing as exp(y^2) above. Below 0 it
    is integrated over log(1 + |y|), where it is nearly constant; above 0 the factor exp(y_th^2) is
    taken out, so that a rate of exp(-700) per tau is a number with a gradient, and one too small
    for a double is 0 with gradient 0.

    Siegert 1951, Phys Rev 81:617-623; Ricciardi 1977, Diffusion Processes; Brunel & Hakim 1999,
    Neural Comput 11:1621-1671.

    Args:
        mu: Mean voltage without a threshold, mV.
        sigma: Noise, mV, positive; the voltage without a threshold has variance sigma^2 / 2.
        tau: Membrane time constant, ms.
        V_th: Threshold, mV.
        V_r: Reset, mV; below V_th.
        t_ref: Refractory time, ms.

    Returns:
        Spikes per ms.

    Raises:
        ArgumentError: sigma not positive (`lif_rate` is its limit), or as in `lif_rate`.

    Example:
        >>> siegert_rate(-52.0, 4.0, tau=20.0, V_th=-50.0, V_r=-60.0, t_ref=2.0)
        tensor(0.0163, dtype=torch.float64)
    """
    drive, tau, high, low, pause = _checked(mu, tau, V_th, V_r, t_ref)
    noise = torch.as_tensor(sigma, dtype=torch.float64)
    if not (noise > 0).all():
        raise ArgumentError("sigma must be positive", fix="lif_rate is the rate without noise")
    start, end, width = torch.broadcast_tensors(
        (low - drive) / noise, (high - drive) / noise, (high - low) / noise
    )
    peak = torch.relu(end)
    scale = torch.exp(-peak * peak)
    passage = scale * _below_zero(start, end, width) + _above_zero(start, end, width)
    return scale / (pause * scale + tau * math.sqrt(math.pi) * passage)


def spike_rate(
    trajectory: Trajectory, *, after: float = -math.inf, event: str = "spike"
) -> np.ndarray:
    """Rate of each trajectory from its events: gaps between spikes, over the time they took.

    Args:
        trajectory: What `simulate` returned.
        after: Events before this time are not counted: the transient.
        event: Name of the event that counts as a spike.

    Returns:
        (*batch), per time unit of the trajectory; 0 where there are fewer than two spikes.
    """
    batch = trajectory.states.shape[:-2]
    table = trajectory.events
    counted = table[(table["name"] == event) & (table["time"] >= after)]
    rates = np.zeros(math.prod(batch))
    for row, times in counted.groupby("trajectory")["time"]:
        if len(times) > 1:
            rates[int(row)] = (len(times) - 1) / (times.max() - times.min())  # pyright: ignore
    return rates.reshape(batch)


# Where a limit is exactly 0, both parts touch it and one of them must carry its gradient: the part
# below, whose clamp passes it, while relu, in the part above, does not.


def _below_zero(start: Tensor, end: Tensor, width: Tensor) -> Tensor:
    """Integral of erfcx(s) over s = -y > 0, as (1 + s) erfcx(s) over log(1 + s)."""
    nodes, weights = _quadrature()
    nearest = (-end).clamp(min=0)
    length = torch.where(end <= 0, width, (-start).clamp(min=0))
    span = torch.log1p(length / (1 + nearest)).unsqueeze(-1)
    s = torch.expm1(torch.log1p(nearest).unsqueeze(-1) + span * nodes)
    return (span * weights * (1 + s) * _erfcx(s)).sum(-1)


def _above_zero(start: Tensor, end: Tensor, width: Tensor) -> Tensor:
    """Integral of exp(y^2 - peak^2) (1 + erf y) over y > 0, from its peak = end downward."""
    nodes, weights = _quadrature()
    peak = torch.relu(end)
    length = torch.where(start > 0, width, peak)
    top = peak.detach()
    matters = DECAY / (top + torch.relu(top * top - DECAY).sqrt()).clamp(min=1.0)
    span = torch.minimum(length, matters).unsqueeze(-1)
    down, peak = span * nodes, peak.unsqueeze(-1)
    return (
        span * weights * torch.exp(-down * (2 * peak - down)) * (1 + torch.erf(peak - down))
    ).sum(-1)


def _erfcx(s: Tensor) -> Tensor:
    """exp(s^2) erfc(s) for s >= 0; for large s the series, whose derivative does not cancel."""
    far = s > 20
    inside = torch.special.erfcx(torch.where(far, torch.zeros_like(s), s))
    inverse = 1 / torch.where(far, s, torch.ones_like(s))
    series = torch.ones_like(s)
    for order in range(8, 0, -1):
        series = 1 - (2 * order - 1) / 2 * inverse * inverse * series
    return torch.where(far, inverse / math.sqrt(math.pi) * series, inside)


@functools.cache
def _quadrature() -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss-Legendre on 0 to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return torch.tensor((nodes + 1) / 2), torch.tensor(weights / 2)


def _checked(mu: Values, tau: Values, V_th: Values, V_r: Values, t_ref: Values) -> list[Tensor]:
    drive, tau, high, low, pause = (
        torch.as_tensor(value, dtype=torch.float64) for value in (mu, tau, V_th, V_r, t_ref)
    )
    if not (low < high).all():
        raise ArgumentError("the reset V_r must lie below the threshold V_th")
    if not ((tau > 0).all() and (pause >= 0).all()):
        raise ArgumentError("tau must be positive and t_ref not negative")
    return [drive, tau, high, low, pause]
