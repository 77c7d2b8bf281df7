"""Equilibria of a network of Wilson-Cowan regions: how many sets of parameters, how fast.

    python scripts/benchmarks/equilibria.py [--connectome NPZ] [--json]

A network of 80 regions (160 states), 100 sets of coupling 0.2..6 and drive 0..4. Three searches:
with the inhibitory states declared fast; with nothing declared; and where one connection in twenty
is negative, so that no set of states cooperates. Beside them SciPy's fsolve from as many starts,
one by one, in the same run. Without a connectome the network is drawn at random.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import fsolve
from scipy.special import expit

from clinode.dynamics.equilibria import Equilibria, find_equilibria_each
from clinode.system import Quantity, System

N_REGIONS, N_SETS = 80, 100


class Network(System):
    """Wilson & Cowan 1972 in every region; excitation couples the regions through W."""

    inputs = (Quantity("drive", "1"),)
    constants = (Quantity("coupling", "1"),)

    def __init__(self, W: np.ndarray, coupling: torch.Tensor):
        super().__init__()
        labels = tuple(f"r{i}" for i in range(len(W)))
        self.states = tuple(Quantity(name, "1", labels=labels, range=(0.0, 1.0)) for name in "EI")
        self.register_buffer("W", torch.tensor(W))
        self.register_constants(coupling=coupling)

    def vector_field(self, t: Any, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        E, I = self.split(x).values()
        excited = 16 * E - 12 * I + self.coupling * (E @ self.W.T) + u
        return self.join(
            E=torch.sigmoid(1.3 * (excited - 4)) - E,
            I=torch.sigmoid(2 * (15 * E - 3 * I - 3.7)) - I,
        )


def weights(path: str | None) -> np.ndarray:
    """(region, region) with a spectral radius of 1: cortical regions of a file, or drawn."""
    if path is None:
        rng = np.random.default_rng(0)
        W = rng.lognormal(0.0, 1.0, (N_REGIONS, N_REGIONS))
        W = W * (rng.random(W.shape) < 0.3) * (1 - np.eye(N_REGIONS))
    else:
        with np.load(path) as data:
            kept = data["cortical"].astype(bool)
            W = data["weights"][np.ix_(kept, kept)].astype(np.float64)
        if len(W) != N_REGIONS:
            raise SystemExit(f"{path} has {len(W)} cortical regions, expected {N_REGIONS}")
    return W / np.abs(np.linalg.eigvals(W)).max()


def summary(find: Callable[[], tuple[Equilibria, ...]]) -> dict[str, Any]:
    """What one search found, and its seconds."""
    start, cpu_start = time.perf_counter(), time.process_time()
    found = find()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    every = [one for each in found for one in each]
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "sets with an equilibrium": sum(len(each) > 0 for each in found),
        "equilibria": len(every),
        "stable": sum(one.is_stable for one in every),
        "sets with index sum 1": sum(each.index_sum == 1 for each in found if len(each)),
        "largest residual": max((one.residual for one in every), default=float("nan")),
        "kinds": {
            kind: sum(one.kind == kind for one in every)
            for kind in sorted({one.kind for one in every})
        },
    }


def by_fsolve(W: np.ndarray, coupling: np.ndarray, drive: np.ndarray) -> dict[str, Any]:
    """SciPy from E = I = 0, 1/2 and 1, with its own finite differences."""

    def rate(x: np.ndarray, g: float, u: float) -> np.ndarray:
        E, I = x[:N_REGIONS], x[N_REGIONS:]
        excited = 16 * E - 12 * I + g * (W @ E) + u
        return np.concatenate(
            [expit(1.3 * (excited - 4)) - E, expit(2 * (15 * E - 3 * I - 3.7)) - I]
        )

    start, cpu_start, solved = time.perf_counter(), time.process_time(), 0
    for g, u in zip(coupling, drive, strict=True):
        for level in (0.0, 0.5, 1.0):
            root, _, flag, _ = fsolve(
                rate, np.full(2 * N_REGIONS, level), args=(g, u), full_output=True
            )
            if flag == 1 and np.abs(rate(root, g, u)).max() < 1e-9:
                solved += 1
                break
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "sets with an equilibrium": solved,
    }


def agreement(found: tuple[Equilibria, ...], W: np.ndarray, g: np.ndarray, u: np.ndarray) -> float:
    """Largest |f| over all equilibria, by NumPy alone."""
    worst = 0.0
    for each, coupling, drive in zip(found, g, u, strict=True):
        for one in each:
            E, I = np.split(one.state.numpy(), 2)
            excited = 16 * E - 12 * I + coupling * (W @ E) + drive
            worst = max(
                worst,
                float(np.abs(expit(1.3 * (excited - 4)) - E).max()),
                float(np.abs(expit(2 * (15 * E - 3 * I - 3.7)) - I).max()),
            )
    return worst


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connectome", help="npz with weights and cortical (80 regions)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    W = weights(arguments.connectome)
    grid = np.meshgrid(np.linspace(0.2, 6, 10), np.linspace(0, 4, 10))
    g, u = (side.reshape(-1) for side in grid)
    coupling, drive = torch.tensor(g)[:, None], torch.tensor(u)[:, None]
    network = Network(W, coupling)
    signs = np.where(np.random.default_rng(1).random(W.shape) < 0.05, -1.0, 1.0)
    mixed = Network(W * signs, coupling)
    find_equilibria_each(Network(W, coupling[:1]), drive[:1], n_starts=0, fast=["I"])  # imports
    kept: list[tuple[Equilibria, ...]] = []

    def declared() -> tuple[Equilibria, ...]:
        kept.append(find_equilibria_each(network, drive, n_starts=0, fast=["I"]))
        return kept[-1]

    result = {
        "declared fast": summary(declared),
        "nothing declared": summary(lambda: find_equilibria_each(network, drive, n_starts=3)),
        "no cooperation": summary(lambda: find_equilibria_each(mixed, drive, n_starts=3)),
        "fsolve": by_fsolve(W, g, u),
        "fsolve, no cooperation": by_fsolve(W * signs, g, u),
        "largest |f| by NumPy": agreement(kept[0], W, g, u),
        "threads": torch.get_num_threads(),
    }
    if arguments.json:
        json.dump(result, sys.stdout, indent=2)
        return
    for name, value in result.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
