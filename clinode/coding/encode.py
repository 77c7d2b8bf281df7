"""Spikes of leaky integrate-and-fire neurons under constant drives, from the engine."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from clinode.brain import LIF
from clinode.dynamics import simulate
from clinode.errors import ArgumentError, SolverError
from clinode.system import Values

from .codes import positive


@dataclass(frozen=True)
class Spikes:
    """What neurons did in a window.

    Attributes:
        latencies: (neuron,), seconds of the first spike; NaN where there was none.
        counts: (neuron,), spikes in the window.
        window: Seconds.
    """

    latencies: Float[np.ndarray, " neuron"]
    counts: Int[np.ndarray, " neuron"]
    window: float


def lif_spikes(
    drives: Values,
    window: float,
    *,
    tau: float = 0.02,
    t_ref: float = 0.002,
    jitter: float = 0.0,
    seed: int = 0,
) -> Spikes:
    """Spikes of one neuron a drive, which rests until the window begins and resets to rest.

    Jitter moves a latency after the fact, as of a read-out; counts stay as they are.

    Args:
        drives: (neuron,), in units of the weakest that fires.
        window: Seconds.
        tau: Membrane time constant, seconds.
        t_ref: Refractory time, seconds.
        jitter: Standard deviation added to a latency, seconds.
        seed: Of the jitter.

    Raises:
        ArgumentError: No drive or one that is not finite, times that are not positive.
        SolverError: The engine did not reach the end of the window.

    Example:
        >>> found = lif_spikes([0.5, 2.0], 0.1)
        >>> found.latencies.round(5), found.counts
        (array([    nan, 0.01386]), array([0, 6]))
    """
    given = np.asarray(drives, dtype=np.float64).ravel()
    if not len(given) or not np.isfinite(given).all():
        raise ArgumentError("drives must be one or more finite numbers")
    window, tau, t_ref = positive("window", window), positive("tau", tau), positive("t_ref", t_ref)
    if not (jitter >= 0 and np.isfinite(jitter)):
        raise ArgumentError(f"jitter must not be negative, got {jitter}")
    levels, which = np.unique(given, return_inverse=True)  # equal neurons are simulated once
    cell = LIF(C=10.0 * tau * 1e3, g_L=10.0, E_L=-70.0, V_th=-50.0, V_r=-70.0, t_ref=t_ref * 1e3)
    currents = torch.from_numpy(levels * 200.0).unsqueeze(1)  # 10 nS x 20 mV to the threshold
    trace = simulate(cell, [-70.0], [0.0, window * 1e3], currents, rtol=1e-9, max_steps=1_000_000)
    if (trace.status != "ok").any():
        raise SolverError(
            f"{int((trace.status != 'ok').sum())} neurons ended early: {set(trace.status.ravel())}",
            fix="a shorter window, or weaker drives",
        )
    times = trace.events["time"].to_numpy() / 1e3
    row = trace.events["trajectory"].to_numpy().astype(int)
    first = np.full(len(levels), np.inf)
    np.minimum.at(first, row, times)
    latencies = np.where(np.isinf(first), np.nan, first)[which]
    moved = latencies + jitter * np.random.default_rng(seed).standard_normal(len(given))
    return Spikes(moved, np.bincount(row, minlength=len(levels))[which], window)
