"""How right minimum energies are, beside nctpy and python-control.

    python scripts/benchmarks/energy.py [--peers PYTHON ...] [--data DIR] [--json]

Two tables. A real connectome with inputs to ever fewer of its regions (`--data DIR`, which has
`connectomes/`), and the zoo of the tests, where the right answer is known by another way. A system
is missed where an energy is given that is off by more than a percent, or
finite for a transfer that no input makes. An error, a negative energy, what is not a number, and
what a peer's own error says not to use, count as undecided. Peers run in interpreters given by
`--peers` (`pip install nctpy control slycot`); systems that a peer has no function for (maps,
unstable systems for ever) are not asked of it.
"""

import argparse
import importlib.util
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

TESTS = Path(__file__).parents[2] / "tests" / "control"
INPUTS = (68, 30, 15, 8, 4, 2, 1)
OFF = 0.01  # relative error from which an energy is wrong
Peer = Callable[[dict[str, Any]], float]


# ------------------------------------------------------------------------------------------ peers


def nctpy_fast(case: dict[str, Any]) -> float:
    """nctpy.energies.minimum_energy_fast, summed."""
    from nctpy.energies import minimum_energy_fast

    return float(minimum_energy_fast(*_of(case, "A", "horizon", "B", "x0", "target")).sum())


def nctpy_inputs(case: dict[str, Any]) -> float:
    """nctpy.energies.get_control_inputs with S = 0: its sum times its step."""
    from nctpy.energies import get_control_inputs, integrate_u

    A, T, B, x0, target = _of(case, "A", "horizon", "B", "x0", "target")
    _, u, errors = get_control_inputs(A, T, B, x0, target, system="continuous", S=np.zeros_like(A))
    if not max(errors) < 1e-8:  # above that its protocol tells users not to use the result
        raise ArithmeticError(f"its own errors are {errors[0]:.1e} and {errors[1]:.1e}")
    return float(integrate_u(u).sum() * 0.001)


def nctpy_for_ever(case: dict[str, Any]) -> float:
    """nctpy.energies.minimum_energy_infinite, summed."""
    from nctpy.energies import minimum_energy_infinite

    return float(minimum_energy_infinite(*_of(case, "A", "B", "target"), "continuous")[0].sum())


def control_gram(case: dict[str, Any]) -> float:
    """The inverse of python-control's Gramian, for ever."""
    import control

    A, B, target = _of(case, "A", "B", "target")
    W = control.gram(control.ss(A, B, np.eye(len(A)), 0), "c")
    return float(target @ np.linalg.solve(W, target))


PEERS: dict[str, tuple[str, bool, Peer]] = {  # module, whether for ever, call
    "nctpy minimum_energy_fast": ("nctpy", False, nctpy_fast),
    "nctpy get_control_inputs": ("nctpy", False, nctpy_inputs),
    "nctpy minimum_energy_infinite": ("nctpy", True, nctpy_for_ever),
    "python-control gram": ("control", True, control_gram),
}


def _of(case: dict[str, Any], *names: str) -> list[Any]:
    B = np.array(case["B"])
    square = np.zeros((len(B), len(B)))  # nctpy takes one column a state
    square[:, : B.shape[1]] = B[:, : len(B)]
    made = {**case, "B": square}
    return [np.array(made[n]) if isinstance(made[n], list | np.ndarray) else made[n] for n in names]


def answer(name: str, source: Path, target: Path) -> None:
    """In an interpreter of its own: a peer's energies of all cases."""
    found = []
    for case in json.loads(source.read_text()):
        try:
            with np.errstate(all="ignore"):
                found.append(PEERS[name][2](case))
        except Exception as error:  # a peer may fail as it likes: that is what is counted
            found.append(f"{type(error).__name__}: {error}")
    target.write_text(json.dumps(found))


def ask(name: str, cases: list[dict[str, Any]], pythons: list[str]) -> list[Any] | None:
    """The peer's energies, or its errors in words; None where no interpreter has it."""
    for python in pythons:
        probe = f"import importlib.util as u; exit(u.find_spec('{PEERS[name][0]}') is None)"
        if subprocess.run([python, "-P", "-c", probe], check=False).returncode:
            continue
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "in.json", Path(folder) / "out.json"
            source.write_text(json.dumps(cases))
            call = [python, "-P", __file__, "--answer", name, str(source), str(target)]
            subprocess.run(call, check=True, stderr=subprocess.DEVNULL)
            return json.loads(target.read_text())
    return None


# ----------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class ConnectomeRow:
    """A connectome with some inputs: our energy, and what others say."""

    inputs: int
    log10: float
    bound: float
    verdict: str
    route: str
    seconds: float
    peers: dict[str, Any]


def connectome_rows(folder: Path, pythons: list[str]) -> list[ConnectomeRow]:
    """hcp_desikan68, T = 1, from rest to a unit target drawn once."""
    from clinode.control.energy.ball_modes import spectrum_of
    from clinode.control.energy.energy import control_energy
    from clinode.system import LinearSystem

    with np.load(folder / "connectomes" / "hcp_desikan68" / "connectome.npz") as stored:
        W = stored["weights"]
    n = len(W)
    A = W / (1 + np.abs(np.linalg.eigvalsh(W)).max()) - np.eye(n)
    target = np.random.default_rng(0).normal(size=n)
    target /= np.linalg.norm(target)
    cases = [_case(A, np.eye(n)[:, :m], 0 * target, target, 1.0) for m in INPUTS]
    peers = {name: ask(name, cases, pythons) for name in PEERS if not PEERS[name][1]}
    rows = []
    for k, m in enumerate(INPUTS):
        spectrum_of.cache_clear()
        since = time.perf_counter()
        energy = control_energy(LinearSystem(A, np.eye(n)[:, :m]), 0.0, target)
        seconds = time.perf_counter() - since
        others = {name: found[k] for name, found in peers.items() if found is not None}
        told = (float(energy.log10), float(energy.bound), str(energy.verdict), str(energy.route))
        rows.append(ConnectomeRow(m, *told, seconds, others))
    return rows


@dataclass(frozen=True)
class ZooRow:
    """Who, how many systems, decided, right, and what was missed or left undecided, and why."""

    who: str
    systems: int
    decided: int
    right: int
    missed: dict[str, str]
    undecided: dict[str, str]


def zoo_rows(pythons: list[str]) -> list[ZooRow]:
    """Ours on the whole zoo, peers on what they have a function for."""
    from clinode.control.energy.energy import control_energy
    from clinode.system import LinearSystem

    zoo, exact = loaded(TESTS / "energy" / "test_energy_zoo.py"), loaded(TESTS / "conftest.py")
    names = list(zoo.ZOO)
    truths = {name: _truth(zoo.ZOO[name], zoo, exact) for name in names}
    ours: dict[str, float | str] = {}
    for name in names:
        c = zoo.ZOO[name]
        energy = control_energy(LinearSystem(c.A, c.B, step=c.step), c.x0, c.target, c.horizon)
        decided = energy.verdict in ("reliable", "unreachable")
        ours[name] = float(energy.log10) if decided else str(energy.verdict)
    rows = [_row("clinode", ours, truths)]
    for who, (_, for_ever, _) in PEERS.items():
        kept = [
            k
            for k in names
            if zoo.ZOO[k].step is None and math.isinf(zoo.ZOO[k].horizon) == for_ever
        ]
        cs = [zoo.ZOO[k] for k in kept]
        found = ask(who, [_case(c.A, c.B, c.x0, c.target, c.horizon) for c in cs], pythons)
        if found is not None:
            logs = {k: _log10_of(value) for k, value in zip(kept, found, strict=True)}
            rows.append(_row(who, logs, truths))
    return rows


def _row(who: str, found: dict[str, float | str], truths: dict[str, float]) -> ZooRow:
    decided = {k: v for k, v in found.items() if isinstance(v, float)}
    undecided = {k: v for k, v in found.items() if isinstance(v, str)}
    missed = {}
    for name, log10 in decided.items():
        truth = truths[name]
        if log10 != truth and not abs(log10 - truth) < OFF / math.log(10):
            missed[name] = f"log10 is {log10:.4g}, right is {truth:.4g}"
    return ZooRow(who, len(found), len(decided), len(decided) - len(missed), missed, undecided)


def _truth(c: Any, zoo: ModuleType, exact: ModuleType) -> float:
    """log10 of the energy by another way; inf where no input makes the transfer."""
    from flint import arb

    if not zoo.is_reachable(c):
        return math.inf
    ball = zoo.least_energy(c, exact.exact_energy_of)
    return float((ball.log() / arb(10).log()).mid()) if ball > 0 else -math.inf


def _log10_of(value: Any) -> float | str:
    if isinstance(value, str):
        return value
    if math.isnan(value) or value < 0:
        return "not a number" if math.isnan(value) else f"negative: {value:.3g}"
    return math.log10(value) if value > 0 else -math.inf


def _case(A: Any, B: Any, x0: Any, target: Any, horizon: float) -> dict[str, Any]:
    parts = {"A": A, "B": B, "x0": x0, "target": target}
    return {**{name: part.tolist() for name, part in parts.items()}, "horizon": horizon}


def loaded(path: Path) -> ModuleType:
    """A module from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} cannot be read")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", nargs="*", default=[sys.executable], metavar="PYTHON")
    parser.add_argument("--data", type=Path, help="folder that has connectomes/")
    parser.add_argument("--json", action="store_true", help="print every measurement as JSON")
    parser.add_argument("--answer", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer:
        name, source, target = arguments.answer
        answer(name, Path(source), Path(target))
        return
    tables: dict[str, list[Any]] = {"zoo": zoo_rows(arguments.peers)}
    if arguments.data:
        tables["connectome"] = connectome_rows(arguments.data, arguments.peers)
    if arguments.json:
        print(json.dumps({k: [asdict(row) for row in rows] for k, rows in tables.items()}))
        return
    for row in tables.get("connectome", []):
        others = "; ".join(f"{k}: {_shown(v)}" for k, v in row.peers.items())
        own = f"log10 {row.log10:.9f} +- {row.bound:.1e}, {row.verdict} by {row.route}"
        print(f"{row.inputs:3d} inputs: {own}, {row.seconds:.3f} s | {others}")
    for row in tables["zoo"]:
        print(f"{row.who}: {row.decided} of {row.systems} decided, {row.right} of them right")
        for what, names in (("missed", row.missed), ("undecided", row.undecided)):
            for name, why in names.items():
                print(f"    {what}: {name}: {why}")


def _shown(value: Any) -> str:
    return f"{value:.4e}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
