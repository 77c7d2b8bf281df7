"""Forecast resting BOLD of five subjects: a learned network beside what needs no network.

The first four fifths of each subject's series (94 regions) are learned from, the last fifth is
forecast from each of its points. Ridge and, for the network, the number of iterations are chosen on
the last fifth of what is learned from. The source does not state the sampling interval; 2 s stands
for it, and no figure depends on it.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from clinode.cohort.recording import Recording
from clinode.dynamics import simulate
from clinode.sequence.network import NetworkConfig, Phase, RateNetwork, learn_network

STEP = 2.0  # s
AHEAD = 3  # samples
PENALTIES = np.geomspace(1, 1e5, 26)
ITERATIONS = (20, 40, 80, 160, 320)


def explained(forecast: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Share explained of the variance about the training mean (0), by how far it looks ahead."""
    shares = []
    for ahead, at in enumerate(forecast, start=1):
        wanted = values[:, ahead : values.shape[1] - AHEAD + ahead]
        shares.append(1 - ((at - wanted) ** 2).sum() / (wanted**2).sum())
    return np.array(shares)


def autoregression(train: np.ndarray, penalty: float) -> np.ndarray:
    """First-order ridge regression of each sample on the one before, (region, region)."""
    before, after = (part.reshape(-1, train.shape[-1]) for part in (train[:, :-1], train[:, 1:]))
    square = before.T @ before + penalty * np.eye(before.shape[1])
    return np.linalg.solve(square, before.T @ after).T


def by_autoregression(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Forecasts (ahead, subject, point, region) from each point."""
    now, found = values[:, :-AHEAD], []
    for _ in range(AHEAD):
        now = now @ matrix.T
        found.append(now)
    return np.array(found)


def learned(values: np.ndarray, n_iterations: int, labels: tuple[str, ...]) -> RateNetwork:
    """The network of these series, nothing held out."""
    recording = Recording(STEP, values, np.zeros((*values.shape[:2], 0)), labels, ())
    phase = Phase(
        n_steps=AHEAD, n_unscored=0, batch=128, n_iterations=n_iterations, learning_rate=2e-2
    )
    return learn_network(recording, NetworkConfig(phases=(phase,), held_out=0.0)).system


def by_network(system: RateNetwork, values: np.ndarray) -> np.ndarray:
    """Forecasts (ahead, subject, point, region): hidden partners start where x holds them."""
    seen = (torch.tensor(values[:, :-AHEAD]).double() - system.center) / system.spread
    hidden = torch.tanh(system.wie * seen + system.bh)
    start = torch.cat([seen, hidden], dim=-1).flatten(0, 1)
    times = torch.arange(AHEAD + 1) * STEP
    found = simulate(system, start, times, method="rk4", step=STEP).outputs[:, 1:]
    return found.detach().numpy().swapaxes(0, 1).reshape(AHEAD, *seen.shape)


def main() -> None:
    """Print the share of variance that each forecast explains."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with connectomes/aal2_gw5")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(args.data / "connectomes" / "aal2_gw5" / "connectome.npz") as stored:
        series = stored["bold_subjects"].swapaxes(1, 2).astype(float)
        labels = tuple(str(name) for name in stored["labels"])
    cut = int(0.8 * series.shape[1])
    mean, deviation = series[:, :cut].mean(1, keepdims=True), series[:, :cut].std(1, keepdims=True)
    series = (series - mean) / deviation
    train, test = series[:, :cut], series[:, cut:]
    inner, tune = train[:, : int(0.8 * cut)], train[:, int(0.8 * cut) :]

    def tuned(matrix: np.ndarray) -> float:
        return explained(by_autoregression(matrix, tune), tune)[0]

    penalty = max(PENALTIES, key=lambda one: tuned(autoregression(inner, one)))
    begun = time.perf_counter()
    scores = {
        n: explained(by_network(learned(inner, n, labels), tune), tune)[0] for n in ITERATIONS
    }
    n_iterations = max(scores, key=lambda n: scores[n])
    system = learned(train, n_iterations, labels)
    seconds = time.perf_counter() - begun
    rows = {
        "training mean": np.zeros((AHEAD, *test[:, :-AHEAD].shape)),
        "persistence": np.repeat(test[None, :, :-AHEAD], AHEAD, axis=0),
        f"autoregression, ridge {penalty:.0f}": by_autoregression(
            autoregression(train, penalty), test
        ),
        f"network, {n_iterations} iterations": by_network(system, test),
    }
    print(f"share of variance explained 1 to {AHEAD} samples ahead; network in {seconds:.0f} s")
    for name, forecast in rows.items():
        print(f"{name:32s}", "  ".join(f"{share:6.3f}" for share in explained(forecast, test)))


if __name__ == "__main__":
    main()
