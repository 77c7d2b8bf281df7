"""Basins of the decision of Wong & Wang on a grid: seconds, and agreement with long integrations.

    python scripts/benchmarks/basins.py [--n 256] [--every 8] [--coherence 12.8] [--json]

The reference integrates every k-th start along each axis by SciPy's LSODA, one by one, to 40 s at
1e-9, and takes the nearest stable state; its time is what the labels are compared with.
"""

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp

from clinode.dynamics.basins import basins
from clinode.dynamics.cycles import LimitCycle
from clinode.system import Quantity, System


class WongWang(System):
    """Wong & Wang 2006, J. Neurosci. 26:1314, reduced to two gating variables."""

    time_unit = "s"
    states = (Quantity("S1", "1", range=(0.0, 1.0)), Quantity("S2", "1", range=(0.0, 1.0)))
    inputs = (Quantity("mu", "Hz"), Quantity("coherence", "1"))

    def vector_field(self, t: Any, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        S, other = x, x.flip(-1)
        bias = torch.cat([1 + u[..., 1:] / 100, 1 - u[..., 1:] / 100], dim=-1)
        current = 0.2609 * S - 0.0497 * other + 0.3255 + 5.2e-4 * u[..., :1] * bias
        drive = 270 * current - 108
        return -S / 0.1 + (1 - S) * 0.641 * drive / (1 - torch.exp(-0.154 * drive))


def reference(starts: np.ndarray, stable: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, float]:
    """Labels by SciPy, and its seconds."""

    def rate(t: float, x: np.ndarray) -> np.ndarray:
        bias = np.array([1 + u[1] / 100, 1 - u[1] / 100])
        current = 0.2609 * x - 0.0497 * x[::-1] + 0.3255 + 5.2e-4 * u[0] * bias
        drive = 270 * current - 108
        return -x / 0.1 + (1 - x) * 0.641 * drive / (1 - np.exp(-0.154 * drive))

    begin = time.perf_counter()
    ends = [
        solve_ivp(rate, (0, 40), x, method="LSODA", rtol=1e-9, atol=1e-11).y[:, -1] for x in starts
    ]
    seconds = time.perf_counter() - begin
    distance = np.linalg.norm(np.stack(ends)[:, None] - stable, axis=-1)
    return distance.argmin(axis=-1), seconds


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--coherence", type=float, default=12.8)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    u = np.array([30.0, arguments.coherence])
    start = time.perf_counter()
    found = basins(WongWang(), n=arguments.n, u=torch.tensor(u))
    seconds = time.perf_counter() - start
    stable = [one.state.numpy() for one in found.attractors if not isinstance(one, LimitCycle)]
    some = (slice(None, None, arguments.every),) * 2
    expected, slow = reference(found.starts[some].reshape(-1, 2), np.stack(stable), u)
    ours = found.labels[some].reshape(-1)
    result = {
        "starts": found.labels.size,
        "seconds": seconds,
        "verdict": found.verdict,
        "undecided": found.undecided.value,
        "compared": len(ours),
        "agreement": float((ours == expected).mean()),
        "seconds of SciPy for as many": slow * found.labels.size / len(ours),
    }
    if arguments.json:
        json.dump(result, sys.stdout, indent=2)
        return
    for name, value in result.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
