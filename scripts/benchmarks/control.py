"""How fast networks are asked what steers them, beside nctpy and python-control.

    python scripts/benchmarks/control.py [--row TEXT ...] [--peers PYTHON ...] [--data DIR] [--json]

A row is one question. Ours and the peer's answer come from processes of their own, each with one
thread; peers run in interpreters given by `--peers`, which have nctpy (`pip install nctpy control
slycot`). Times are medians of the rounds, wall and CPU: on a busy machine compare the CPU seconds,
as the ratio does. What both answered is compared, and the largest relative difference stands beside
the ratio. Without `--data DIR`, which has `connectomes/`, networks of the same size are drawn.

To add a row, write a task for either side into TASKS and a line into ROWS.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Task = Callable[[Arrays], Callable[[], Arrays]]  # of the inputs: imports, then what is timed


@dataclass(frozen=True)
class Row:
    """One question, who answers it, and the goal.

    Args:
        question: In words.
        network: A key of NETWORKS.
        ours: A key of TASKS.
        peer: Likewise; empty where nobody else can.
        ratio: Goal: times faster than the peer, in CPU seconds; 0 for none.
        seconds: Goal: at most this many of CPU, the wall time of an idle machine; 0 for none.
        gigabytes: Goal: peak of memory; 0 for none.
        rounds: How often ours is timed; the peer is timed once where it takes seconds.
    """

    question: str
    network: str
    ours: str
    peer: str = ""
    ratio: float = 0.0
    seconds: float = 0.0
    gigabytes: float = 0.0
    rounds: int = 9


ROWS = (
    Row("average, T = 1, all of 200 regions", "200", "average", "nctpy average", ratio=400),
    Row("average, T = 1, all of 400 regions", "400", "average", "nctpy average", ratio=700),
    Row("average, T = 1, directed, 279 neurons", "279", "average", "nctpy average", ratio=100),
    Row("average, discrete, all of 400", "400", "average discrete", "nctpy average discrete"),
    Row("modal, all of 400", "400", "modal", "nctpy modal"),
    Row("Gramian, T = 1, B = I, 400", "400", "gramian", "nctpy gramian"),
    Row("Gramian, T = inf, B = I, directed, 279", "279", "gramian inf", "control gramian inf"),
    Row(
        "log-energies of every single region, T = inf, 400",
        "400", "single nodes", "control gram of each", ratio=1000,
    ),
    Row(
        "log-energies of every single region, T = inf, 2000",
        "2000", "single nodes", seconds=2, rounds=3,
    ),
    Row(
        "minimum energy, T = 1, B = I, 100 pairs, 400",
        "400", "minimum energy", "nctpy minimum energy", ratio=300,
    ),
    Row(
        "optimal energy, T = 1, B = S = I, 100 pairs, 400",
        "400", "optimal energy", "nctpy optimal energy", ratio=80,
    ),
    Row("greedy choice of 10 of 400 inputs", "400", "greedy", "dense log det of each", seconds=0.5),
    Row(
        "average, T = 1, 64 of 100 000 regions, 1.8 M edges",
        "100000", "sparse average", seconds=10, gigabytes=3, rounds=3,
    ),
    Row(
        "average, discrete, 64 of 100 000 regions",
        "100000", "sparse average discrete", seconds=10, gigabytes=3, rounds=3,
    ),
    Row(
        "Gramian of 10 inputs, T = inf, 100 000 regions",
        "100000", "low rank", seconds=10, gigabytes=3, rounds=3,
    ),
)  # fmt: skip


# ------------------------------------------------------------------------------------- networks


def drawn(n: int, density: float, *, directed: bool = False) -> Arrays:
    """Weights of a random network, dense."""
    rng = np.random.default_rng(n)
    W = rng.lognormal(size=(n, n)) * (rng.random((n, n)) < density)
    np.fill_diagonal(W, 0.0)
    return {"W": W if directed else np.triu(W) + np.triu(W).T}


def sparse_network(n: int, n_pairs: int) -> Arrays:
    """Weights of a random network, as the entries of a symmetric matrix."""
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, n, (2, n_pairs))
    w = rng.random(n_pairs)
    entries = {"i": np.concatenate([i, j]), "j": np.concatenate([j, i])}
    return {**entries, "w": np.concatenate([w, w]), "n": np.array(n)}


def stored(folder: Path | None, name: str, otherwise: Callable[[], Arrays]) -> Arrays:
    """Weights of a connectome, or a random network where there is none."""
    path = folder / "connectomes" / name / "connectome.npz" if folder else None
    if path is None or not path.is_file():
        return otherwise()
    with np.load(path, allow_pickle=False) as data:
        return {"W": data["weights"].astype(np.float64)}


NETWORKS: dict[str, Callable[[Path | None], Arrays]] = {
    "200": lambda folder: stored(folder, "hcp_schaefer200", lambda: drawn(200, 0.2)),
    "279": lambda folder: stored(folder, "celegans279", lambda: drawn(279, 0.04, directed=True)),
    "400": lambda folder: stored(folder, "hcp_schaefer400", lambda: drawn(400, 0.2)),
    "2000": lambda folder: drawn(2000, 0.05),
    "100000": lambda folder: sparse_network(100_000, 900_000),
}


# ----------------------------------------------------------------------------------------- tasks


def average(inputs: Arrays, name: str = "nctpy") -> Callable[[], Arrays]:
    """Ours, from the weights on."""
    from clinode.control.gramian.nodal import average_controllability

    return lambda: {"values": average_controllability(inputs["W"], name).values.numpy()}


def modal(inputs: Arrays) -> Callable[[], Arrays]:
    """Ours, from the weights on."""
    from clinode.control.gramian.nodal import modal_controllability

    return lambda: {"values": modal_controllability(inputs["W"]).values.numpy()}


def gramian(inputs: Arrays, horizon: float = 1.0) -> Callable[[], Arrays]:
    """Ours, of every region an input, from the weights on."""
    import torch

    from clinode.control.gramian.gramian import controllability_gramian
    from clinode.control.gramian.normalization import linear_network

    def run() -> Arrays:
        A = linear_network(inputs["W"]).A
        eye = torch.eye(len(A), dtype=A.dtype)
        return {"values": controllability_gramian(A, eye, horizon).numpy()}

    return run


def single_nodes(inputs: Arrays) -> Callable[[], Arrays]:
    """Ours; `values` are orders of magnitude, not compared as such."""
    from clinode.control.gramian.single_node import single_node_gramians

    def run() -> Arrays:
        found = single_node_gramians(inputs["W"])
        return {
            "log10": found.log10_trace_inverse.numpy(),
            "error": np.nanmax(found.error.numpy(), initial=0.0),
            "finite": np.array(found.verdicts) == "finite",
        }

    return run


def greedy(inputs: Arrays) -> Callable[[], Arrays]:
    """Ours; the gains in log det after each choice."""
    from clinode.control.gramian.normalization import linear_network
    from clinode.control.targets.selection import greedy_inputs

    return lambda: {"values": np.array(greedy_inputs(linear_network(inputs["W"]), 10).gains[:1])}


def _sparse(inputs: Arrays) -> Any:
    from scipy import sparse

    n = int(inputs["n"])
    return sparse.csr_array((inputs["w"], (inputs["i"], inputs["j"])), shape=(n, n))


def sparse_average(inputs: Arrays, name: str = "nctpy") -> Callable[[], Arrays]:
    """Ours, of 64 regions."""
    from clinode.control.gramian.sparse import sparse_average_controllability

    W = _sparse(inputs)
    nodes = [int(i) for i in np.linspace(0, int(inputs["n"]) - 1, 64)]

    def run() -> Arrays:
        found = sparse_average_controllability(W, nodes, name)
        return {"own error": ((found.high - found.low) / found.values).max().numpy()}

    return run


def low_rank(inputs: Arrays) -> Callable[[], Arrays]:
    """Ours, of 10 regions as inputs."""
    from clinode.control.gramian.low_rank import low_rank_gramian
    from clinode.control.gramian.sparse import sparse_dynamics

    W = _sparse(inputs)
    B = np.zeros((int(inputs["n"]), 10))
    B[np.linspace(0, len(B) - 1, 10).astype(int), np.arange(10)] = 1.0

    def run() -> Arrays:
        found = low_rank_gramian(sparse_dynamics(W), B)
        return {"own error": np.array(found.residual), "rank": np.array(found.rank)}

    return run


def _pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    x0, target = np.random.default_rng(0).normal(size=(2, 100, n))
    return x0, target


def minimum_energy(inputs: Arrays) -> Callable[[], Arrays]:
    """Ours, of 100 pairs; nothing is kept from the round before."""
    from clinode.control.energy.energy import control_energy
    from clinode.control.energy.full_control import LAST_MODES
    from clinode.system import LinearSystem

    A, (x0, target) = _normalized(inputs["W"]), _pairs(len(inputs["W"]))

    def run() -> Arrays:
        LAST_MODES.clear()
        return {"values": control_energy(LinearSystem(A, np.eye(len(A))), x0, target).value}

    return run


def optimal_energies(inputs: Arrays) -> Callable[[], Arrays]:
    """Ours, of 100 pairs, from the weights on; nothing is kept from the round before."""
    from clinode.control.energy.full_control import LAST_MODES
    from clinode.control.energy.optimal_energy import optimal_energy
    from clinode.control.gramian.normalization import linear_network

    x0, target = _pairs(len(inputs["W"]))

    def run() -> Arrays:
        LAST_MODES.clear()
        return {"values": optimal_energy(linear_network(inputs["W"]), x0, target).value}

    return run


def nctpy_minimum_energy(inputs: Arrays) -> Callable[[], Arrays]:
    """nctpy, of 100 pairs in one call."""
    from nctpy.energies import minimum_energy_fast

    A, (x0, target) = _normalized(inputs["W"]), _pairs(len(inputs["W"]))
    small = -np.eye(2)

    def run() -> Arrays:
        minimum_energy_fast(small, 1, small, small, small)  # takes the place of what it kept
        return {"values": minimum_energy_fast(A, 1, np.eye(len(A)), x0.T, target.T).sum(axis=0)}

    return run


def nctpy_optimal_energy(inputs: Arrays) -> Callable[[], Arrays]:
    """nctpy's batched pipeline, of 100 pairs, from the weights on; its sums are 0.001 apart."""
    from nctpy.pipelines import ComputeControlEnergy

    x0, target = _pairs(len(inputs["W"]))
    eye = np.eye(len(inputs["W"]))
    tasks = [
        {"x0": a, "xf": b, "B": eye, "S": eye, "rho": 1} for a, b in zip(x0, target, strict=True)
    ]

    def run() -> Arrays:
        pipeline = ComputeControlEnergy(inputs["W"], tasks, system="continuous")
        pipeline.run()
        return {"values": 0.001 * pipeline.E}

    return run


def nctpy_average(inputs: Arrays, system: str = "continuous") -> Callable[[], Arrays]:
    """nctpy, from the weights on."""
    from nctpy.metrics import ave_control
    from nctpy.utils import matrix_normalization

    def run() -> Arrays:
        A = matrix_normalization(inputs["W"], system=system)
        return {"values": ave_control(A, system=system)}

    return run


def nctpy_modal(inputs: Arrays) -> Callable[[], Arrays]:
    """nctpy, from the weights on."""
    from nctpy.metrics import modal_control
    from nctpy.utils import matrix_normalization

    return lambda: {"values": modal_control(matrix_normalization(inputs["W"], system="discrete"))}


def nctpy_gramian(inputs: Arrays) -> Callable[[], Arrays]:
    """nctpy, of every region an input, from the weights on."""
    from nctpy.energies import gramian
    from nctpy.utils import matrix_normalization

    def run() -> Arrays:
        A = matrix_normalization(inputs["W"], system="continuous")
        return {"values": gramian(A, T=1, system="continuous")}

    return run


def _normalized(W: np.ndarray) -> np.ndarray:
    return W / (1 + np.abs(np.linalg.eigvals(W)).max()) - np.eye(len(W))


def control_gramian(inputs: Arrays) -> Callable[[], Arrays]:
    """python-control, of every region an input."""
    import control

    def run() -> Arrays:
        A = _normalized(inputs["W"])
        eye = np.eye(len(A))
        return {"values": control.gram(control.ss(A, eye, eye, 0), "c")}

    return run


def control_each(inputs: Arrays) -> Callable[[], Arrays]:
    """python-control, one Gramian a region; 3 regions are timed, and stand for all."""
    import control

    def run() -> Arrays:
        A = _normalized(inputs["W"])
        eye, logs = np.eye(len(A)), []
        for i in range(3):
            W = control.gram(control.ss(A, eye[:, [i]], eye, 0), "c")
            logs.append(np.log10(np.abs(np.trace(np.linalg.pinv(W)))))
        return {"log10": np.array(logs), "extrapolated": np.array(len(A) / 3)}

    return run


def exhaustive_first(inputs: Arrays) -> Callable[[], Arrays]:
    """The first greedy choice by one dense Gramian and log det an input; ten choices take ten."""

    def run() -> Arrays:
        A = _normalized(inputs["W"])
        w, V = np.linalg.eigh(A)
        kernel = np.expm1(np.add.outer(w, w)) / np.add.outer(w, w)
        floor = 1e-6 * (V**2 @ (np.expm1(2 * w) / (2 * w))).mean()
        gains = []
        for row in V:
            gramian = row[:, None] * kernel * row
            gains.append(np.linalg.slogdet(gramian / floor + np.eye(len(A)))[1])
        return {"values": np.array([max(gains)]), "extrapolated": np.array(10)}

    return run


TASKS: dict[str, tuple[str, Task]] = {  # the module that its interpreter must have, and the task
    "average": ("clinode", average),
    "average discrete": ("clinode", lambda inputs: average(inputs, "nctpy discrete")),
    "modal": ("clinode", modal),
    "gramian": ("clinode", gramian),
    "gramian inf": ("clinode", lambda inputs: gramian(inputs, np.inf)),
    "single nodes": ("clinode", single_nodes),
    "minimum energy": ("clinode", minimum_energy),
    "optimal energy": ("clinode", optimal_energies),
    "greedy": ("clinode", greedy),
    "dense log det of each": ("control", exhaustive_first),
    "sparse average": ("clinode", sparse_average),
    "sparse average discrete": ("clinode", lambda inputs: sparse_average(inputs, "nctpy discrete")),
    "low rank": ("clinode", low_rank),
    "nctpy average": ("nctpy", nctpy_average),
    "nctpy average discrete": ("nctpy", lambda inputs: nctpy_average(inputs, "discrete")),
    "nctpy modal": ("nctpy", nctpy_modal),
    "nctpy gramian": ("nctpy", nctpy_gramian),
    "nctpy minimum energy": ("nctpy", nctpy_minimum_energy),
    "nctpy optimal energy": ("nctpy", nctpy_optimal_energy),
    "control gramian inf": ("control", control_gramian),
    "control gram of each": ("control", control_each),
}


# ------------------------------------------------------------------------------------- measuring


def answer(task: str, source: Path, target: Path, rounds: int) -> None:
    """In a process of its own: time a task and store what it found."""
    with np.load(source, allow_pickle=False) as data:
        run = TASKS[task][1](dict(data))
    wall, cpu, found = [], [], {}
    for k in range(rounds + 1):
        start, cpu_start = time.perf_counter(), time.process_time()
        found = run()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
        if k == 0 and (rounds == 1 or wall[0] > 5):
            break
    warm = slice(1, None) if len(wall) > 1 else slice(None)  # the first call imports
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    times = [statistics.median(wall[warm]), statistics.median(cpu[warm]), peak]
    np.savez(target, times=times, **found)


def ask(task: str, inputs: Arrays, pythons: list[str], rounds: int) -> Arrays | None:
    """What a task finds, in the first interpreter that has its module; None where none has.

    With -P, lest this file be taken for the package python-control.
    """
    module = TASKS[task][0]
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    environment = os.environ | threads
    for python in [sys.executable] if module == "clinode" else pythons:
        probe = [
            python,
            "-P",
            "-c",
            f"import importlib.util as u; exit(u.find_spec('{module}') is None)",
        ]
        if subprocess.run(probe, env=environment, check=False).returncode:
            continue
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
            np.savez(source, **inputs)
            call = [python, "-P", __file__, "--answer", task, str(source), str(target), str(rounds)]
            subprocess.run(call, env=environment, check=True)
            with np.load(target, allow_pickle=False) as data:
                return dict(data)
    return None


@dataclass(frozen=True)
class Figure:
    """A row as measured: seconds, peak memory, ratio of CPU seconds, agreement, verdict."""

    question: str
    ours: str
    peer: str
    agreement: str
    goal: str
    verdict: str


def measure(row: Row, pythons: list[str], folder: Path | None) -> Figure:
    """Ours, then the peer's."""
    inputs = NETWORKS[row.network](folder)
    ours = ask(row.ours, inputs, pythons, row.rounds)
    assert ours is not None
    peer = ask(row.peer, inputs, pythons, 3) if row.peer else None
    wall, cpu, peak = (float(value) for value in ours["times"])
    goals, met = [], []
    if row.seconds:
        goals.append(f"<= {row.seconds:g} s")
        met.append(cpu <= row.seconds)
    if row.gigabytes:
        goals.append(f"<= {row.gigabytes:g} GB")
        met.append(peak <= row.gigabytes)
    text, shown = f"{wall:.4g} s, CPU {cpu:.4g} s, {peak:.2f} GB", ""
    if peer is not None:
        scale = float(peer.get("extrapolated", 1.0))
        peer_wall, peer_cpu = scale * peer["times"][0], scale * peer["times"][1]
        ratio = peer_cpu / cpu
        how = ", extrapolated" if scale != 1 else ""
        shown = f"{row.peer}: {peer_wall:.4g} s, CPU {peer_cpu:.4g} s{how}: {ratio:.0f}x"
        if row.ratio:
            goals.append(f">= {row.ratio:g}x")
            met.append(ratio >= row.ratio)
    elif row.peer:
        shown = f"{row.peer}: no interpreter has it"
        goals += [f">= {row.ratio:g}x"] if row.ratio else []
    verdict = "" if not met else "reached" if all(met) else "missed"
    return Figure(row.question, text, shown, _agreement(ours, peer), ", ".join(goals), verdict)


def _agreement(ours: Arrays, peer: Arrays | None) -> str:
    if "own error" in ours:
        return f"own bound {float(ours['own error']):.1e}"
    if "log10" in ours:
        own = f"log10 known to {float(ours['error']):.1e}, {int(ours['finite'].sum())} finite"
        if peer is None:
            return own
        apart = np.abs(ours["log10"][: len(peer["log10"])] - peer["log10"]).max()
        return f"{own}; pinv of the peer's Gramians is {apart:.0f} orders off"
    if peer is None:
        return ""
    apart = np.abs(ours["values"] - peer["values"]).max() / np.abs(peer["values"]).max()
    return f"{apart:.1e}"


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", nargs="*", default=[], metavar="TEXT", help="rows that hold it")
    parser.add_argument("--peers", nargs="*", default=[], metavar="PYTHON")
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--answer", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        task, source, target, rounds = options.answer
        answer(task, Path(source), Path(target), int(rounds))
        return
    chosen = [r for r in ROWS if not options.row or any(text in r.question for text in options.row)]
    figures = []
    for row in chosen:
        figures.append(measure(row, options.peers, options.data))
        if not options.json:
            print(
                *(value for value in asdict(figures[-1]).values() if value), sep=" | ", flush=True
            )
    if options.json:
        json.dump([asdict(figure) for figure in figures], sys.stdout, indent=2)


if __name__ == "__main__":
    main()
