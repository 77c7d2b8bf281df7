"""How fast a Wilson-Cowan network is simulated for many parameter sets, beside neurolib's loop.

    python scripts/benchmarks/networks.py --data DIR [--peer PYTHON] [--rounds N] [--json]

The 80 cortical regions of `connectomes/aal2_gw5`, Euler steps of 0.1 ms, 1 s, 100 global couplings,
with delays (20 m/s, rounded to steps, as neurolib does) and without. At this drive some rest and
some oscillate; none is chaotic, so that final states can be compared. neurolib runs in an
interpreter of its own, given by `--peer` (`pip install neurolib==0.6.2`), one set after the other;
each round asks it and us in turn. Seconds are the least of the rounds, CPU beside wall, and the
ratio is that of CPU seconds. The difference is the largest of any final state of any set, from
ours. What the first call takes to compile is told apart.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STEP, SPEED, DRIVE = 0.1, 20.0, 0.45  # ms, mm/ms, and the constant input to E
LOCAL = {  # neurolib's names and values of the constants of a region
    "tau_exc": 2.5, "tau_inh": 3.75, "c_excexc": 16.0, "c_excinh": 15.0, "c_inhexc": 12.0,
    "c_inhinh": 3.0, "a_exc": 1.5, "a_inh": 1.5, "mu_exc": 3.0, "mu_inh": 3.0,
}  # fmt: skip
OURS = {
    "tau_e": 2.5, "tau_i": 3.75, "c1": 16.0, "c2": 12.0, "c3": 15.0, "c4": 3.0, "a_e": 1.5,
    "a_i": 1.5, "theta_e": 3.0, "theta_i": 3.0,
}  # fmt: skip


def problem(folder: Path, n_sets: int) -> dict[str, np.ndarray]:
    """Weights, lengths, couplings and starts."""
    with np.load(folder / "connectomes" / "aal2_gw5" / "connectome.npz") as stored:
        cortex = np.ix_(stored["cortical"], stored["cortical"])
        weights = stored["weights"][cortex].copy()
        lengths = stored["lengths_subjects"].mean(0)[cortex].astype(float)
    np.fill_diagonal(weights, 0)
    np.fill_diagonal(lengths, 0)
    x0 = np.random.default_rng(0).uniform(0, 0.05, (2, len(weights)))
    return {"W": weights, "L": lengths, "K": np.linspace(0.2, 2.5, n_sets), "x0": x0}


def ours(
    data: dict[str, np.ndarray], milliseconds: float, delays: bool, backend: str
) -> Callable[[], np.ndarray]:
    """Simulate all sets at once: final states (set, 2, region)."""
    import torch

    import clinode as cn
    from clinode.brain.connectome import Connectome
    from clinode.brain.networks import WilsonCowanNetwork

    torch.set_num_threads(1)
    n = len(data["W"])
    W = torch.tensor(data["W"])
    lengths = torch.tensor(data["L"])
    connectome = Connectome(W, tuple(f"region_{i}" for i in range(n)), tract_lengths=lengths)
    how = {"speed": SPEED, "delay_step": STEP} if delays else {}
    network = WilsonCowanNetwork(connectome, P=DRIVE, convention="logistic", **OURS, **how)
    K = torch.tensor(data["K"]).unsqueeze(-1)
    network = network.with_constants(K=K, W=W.flatten())
    x0 = torch.tensor(data["x0"]).flatten()

    def solve() -> np.ndarray:
        with torch.no_grad():
            run = cn.simulate(
                network, x0, [0.0, milliseconds], method="euler", step=STEP, backend=backend
            )
        return run.states[:, -1].reshape(-1, 2, n).numpy()

    return solve


def neurolib(
    data: dict[str, np.ndarray], milliseconds: float, delays: bool
) -> Callable[[], np.ndarray]:
    """Simulate one set after the other, as neurolib does."""
    from neurolib.models.wc import WCModel  # pyright: ignore[reportMissingImports]

    def solve() -> np.ndarray:
        final = []
        for K in data["K"]:
            model = WCModel(Cmat=data["W"], Dmat=data["L"], seed=0)
            model.params.update(LOCAL)
            model.params["K_gl"], model.params["exc_ext"] = K, DRIVE
            model.params["signalV"] = SPEED if delays else 0.0
            model.params["duration"], model.params["dt"] = milliseconds, STEP
            model.params["exc_init"], model.params["inh_init"] = data["x0"][:, :, None]
            model.run()
            final.append([model.exc[:, -1], model.inh[:, -1]])
        return np.array(final)

    return solve


def timed(solve: Callable[[], np.ndarray]) -> tuple[float, float, np.ndarray]:
    """Wall and CPU seconds, and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = solve()
    return time.perf_counter() - wall, time.process_time() - cpu, found


def serve(path: str) -> None:
    """Answer a parent: `{"delays": ..., "milliseconds": ...}` -> seconds, states in a file."""
    with np.load(path) as stored:
        data = dict(stored)
    for line in sys.stdin:
        asked = json.loads(line)
        wall, cpu, found = timed(neurolib(data, asked["milliseconds"], asked["delays"]))
        np.save(asked["to"], found)
        print(json.dumps([wall, cpu]), flush=True)


class Peer:
    """neurolib in its own interpreter."""

    def __init__(self, python: str, data: dict[str, np.ndarray], folder: Path):
        self.to = folder / "found.npy"
        np.savez(folder / "problem.npz", **data)
        call = [python, __file__, "--serve", str(folder / "problem.npz")]
        self.process = subprocess.Popen(
            call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, milliseconds: float, delays: bool) -> tuple[float, float, np.ndarray]:
        """Wall and CPU seconds, and final states."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        asked = {"milliseconds": milliseconds, "delays": delays, "to": str(self.to)}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        wall, cpu = json.loads(self.process.stdout.readline())
        return wall, cpu, np.load(self.to)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a solver, with delays and without."""
    data, rows = problem(options.data, options.sets), []
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(options.peer, data, Path(folder)) if options.peer else None
        for delays in (False, True):
            solve = ours(data, options.milliseconds, delays, "compiled")
            first = timed(ours(data, STEP, delays, "compiled"))[0]
            if peer is not None:
                peer(STEP, delays)  # numba compiles
            found: dict[str, list[tuple[float, float, np.ndarray]]] = {}
            for _ in range(options.rounds):
                found.setdefault("clinode, compiled", []).append(timed(solve))
                if peer is not None:
                    found.setdefault("neurolib", []).append(peer(options.milliseconds, delays))
            if not delays:
                eager = ours(data, options.milliseconds, delays, "eager")
                found["clinode, eager"] = [timed(eager)]
            mine = found["clinode, compiled"]
            before = timed(ours(data, options.milliseconds - 7.3, delays, "compiled"))[2]
            oscillating = int((np.abs(mine[0][2] - before).max((1, 2)) > 1e-3).sum())
            for name, runs in found.items():
                wall, cpu = (min(run[i] for run in runs) for i in (0, 1))
                rows.append(
                    {
                        "solver": name, "delays": delays, "wall_s": wall, "cpu_s": cpu,
                        "times_ours": cpu / min(run[1] for run in mine),
                        "difference": float(np.abs(runs[0][2] - mine[0][2]).max()),
                        "first_call_s": first if name == "clinode, compiled" else None,
                        "oscillating": oscillating,
                    }
                )  # fmt: skip
        if peer is not None:
            assert peer.process.stdin is not None
            peer.process.stdin.close()
            peer.process.wait()
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """For reading."""
    lines = [
        f"{'solver':20}{'delays':>8}{'wall s':>9}{'CPU s':>9}{'x ours':>9}{'difference':>12}"
        f"{'oscillate':>11}{'first call s':>14}"
    ]
    for row in rows:
        first = row["first_call_s"]
        lines.append(
            f"{row['solver']:20}{row['delays']!s:>8}{row['wall_s']:9.3f}{row['cpu_s']:9.3f}"
            f"{row['times_ours']:9.1f}{row['difference']:12.1e}{row['oscillating']:11d}"
            f"{'' if first is None else f'{first:.1f}':>14}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Speed of many simulations of one network.")
    parser.add_argument("--data", type=Path, help="folder with `connectomes`")
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has neurolib")
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--milliseconds", type=float, default=1000.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    if options.data is None:
        parser.error("--data DIR is needed")
    rows = measure(options)
    print(json.dumps(rows) if options.json else table(rows))


if __name__ == "__main__":
    main()
