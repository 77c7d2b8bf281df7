"""How fast and how right 64 ODEs are solved at their own output times, beside other solvers.

    python scripts/benchmarks/solvers.py [--case NAME ...] [--peers PYTHON ...] [--json]

Cases: `van_der_pol` (mu 1..100, float64), `network` (20-50-50-50-50-20, float32), their gradients
`van_der_pol_gradient` (mu 1..2) and `network_gradient`, and `stiff` (van der Pol, mu 1e3..1e4).
torchdiffeq and scipy run here. diffrax and torchode run in interpreters of their own, given by
`--peers`: each answers for those of them that it can import (`pip install diffrax scipy`;
`pip install torch torchode`). Peers stay alive and are asked in turn with us, so every round times
all under the same load; medians of the rounds and their ratios are printed, and beside each the
error against a tight reference: relative L2 over all states at all output times. Ratios are of the
processor's time of each process (one core each), which other programs disturb less than the clock.
Comparisons at equal tolerance and at equal error are different ones and are labeled; for the
second, ours is timed at further tolerances. First calls compile and are timed apart.
"""

import argparse
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROWS, TIMES = 64, 50
CASES = ("van_der_pol", "network", "van_der_pol_gradient", "network_gradient", "stiff")
SIZES = (20, 50, 50, 50, 50, 20)
FURTHER = {"network": [(3e-4, 3e-5), (2e-3, 2e-4), (3e-2, 3e-3)]}  # tolerances of ours alone
SCIPY_ROWS = 16  # solved one by one; the others are extrapolated
OURS = "clinode solver"  # its ratios are given: the compiled loop without what `simulate` adds
Solve = Callable[[float, float], Any]


def problem(case: str) -> dict[str, np.ndarray]:
    """Start, own output times and constants of a case, as arrays."""
    random = np.random.default_rng(0)
    inside = np.sort(random.uniform(size=(ROWS, TIMES - 2)), axis=1)
    unit = np.concatenate([np.zeros((ROWS, 1)), inside, np.ones((ROWS, 1))], axis=1)
    if case.startswith("network"):
        made = {"x0": random.normal(size=(ROWS, SIZES[0])), "times": 5 * unit}
        for i, (n_in, n_out) in enumerate(itertools.pairwise(SIZES)):
            made[f"W{i}"] = random.normal(size=(n_out, n_in)) / math.sqrt(n_in)
            made[f"b{i}"] = 0.1 * random.normal(size=n_out)
        return {k: v.astype(np.float64 if k == "times" else np.float32) for k, v in made.items()}
    high = {"van_der_pol": 100.0, "van_der_pol_gradient": 2.0, "stiff": 1e4}[case]
    mu = np.geomspace(1e3 if case == "stiff" else 1.0, high, ROWS)[:, None]
    x0 = np.tile([2.0, 0.0], (ROWS, 1))
    return {"x0": x0, "times": (2 * mu if case == "stiff" else 10.0) * unit, "mu": mu}


def tolerances(case: str) -> list[tuple[float, float]]:
    """Those that are compared, the one of the case first."""
    if case == "stiff":
        return [(1e-5, 1e-8)]
    if case.startswith("network"):
        return [(1e-4, 1e-5), (1e-3, 1e-4), (1e-2, 1e-3)] if case == "network" else [(1e-4, 1e-5)]
    return [(1e-5, 1e-6)]


# ---------------------------------------------------------------- ourselves, torchdiffeq, scipy


def _systems() -> tuple[type, type]:
    import torch
    from torch import nn

    from clinode.system import Quantity, System

    class VanDerPol(System):
        """x'' = mu (1 - x^2) x' - x."""

        states = (Quantity("x", "1"), Quantity("v", "1"))
        constants = (Quantity("mu", "1"),)

        def __init__(self, mu: torch.Tensor):
            super().__init__()
            self.register_constants(mu=mu)

        def vector_field(self, t, x, u):
            position, speed = self.split(x).values()
            return self.join(x=speed, v=self.mu * (1 - position**2) * speed - position)

    class Network(System):
        """Linear layers with tanh between them."""

        states = tuple(Quantity(f"z{i}", "1") for i in range(SIZES[0]))

        def __init__(self, data: dict[str, np.ndarray]):
            super().__init__()
            layers = []
            for i, (n_in, n_out) in enumerate(itertools.pairwise(SIZES)):
                layer = nn.Linear(n_in, n_out)
                layer.weight.data.copy_(torch.from_numpy(data[f"W{i}"]))
                layer.bias.data.copy_(torch.from_numpy(data[f"b{i}"]))
                layers += [layer, nn.Tanh()]
            self.net = nn.Sequential(*layers[:-1])

        def vector_field(self, t, x, u):
            return self.net(x)

    return VanDerPol, Network


def ours(case: str, data: dict[str, np.ndarray], backend: str) -> Solve:
    """`clinode.simulate` on a backend, or "solver": what is compiled, of a problem that is stated.

    Of a gradient case states and the gradients of the sum of their squares.
    """
    import torch
    from torch import nn

    import clinode as cn
    from clinode.dynamics.compiled import solve_compiled
    from clinode.dynamics.solvers import Problem
    from clinode.system import Signal

    van_der_pol, network = _systems()
    x0, times = torch.from_numpy(data["x0"]), torch.from_numpy(data["times"])
    if case.startswith("network"):
        system = network(data)
    else:
        system = van_der_pol(torch.from_numpy(data["mu"]))
    method = "rosenbrock" if case == "stiff" else "dopri5"
    gradient = case.endswith("gradient")
    if gradient and "mu" in data:
        system = system.with_constants(mu=nn.Parameter(torch.from_numpy(data["mu"])))
    leaves = [x0.requires_grad_(), *system.parameters()] if gradient else []

    stated = Problem(system, x0, times, Signal.constant(x0.new_zeros(0)))
    given = {"method": method}

    def solve(rtol: float, atol: float) -> Any:
        given.update(rtol=rtol, atol=atol)
        with torch.set_grad_enabled(gradient):
            if backend == "solver":
                made = solve_compiled(system, stated, **given)
            else:
                made = cn.simulate(system, x0, times, backend=backend, **given)
                assert made.backend == backend, "it was not compiled"
        if not gradient:
            return made.states.numpy()
        found = torch.autograd.grad(made.states.square().sum(), leaves)
        return made.states.detach().numpy(), [g.numpy() for g in found]

    return solve


def torchdiffeq(case: str, data: dict[str, np.ndarray]) -> Solve:
    """All rows at once with one step size, at the union of their times."""
    import torch
    from torchdiffeq import odeint

    van_der_pol, network = _systems()
    is_network = case.startswith("network")
    system = network(data) if is_network else van_der_pol(torch.from_numpy(data["mu"]))
    x0 = torch.from_numpy(data["x0"])
    union, place = np.unique(data["times"], return_inverse=True)
    place = torch.from_numpy(place.reshape(data["times"].shape))
    none, rows = x0.new_zeros(0), torch.arange(ROWS).unsqueeze(-1)

    def solve(rtol: float, atol: float) -> Any:
        with torch.no_grad():
            states = odeint(
                lambda t, x: system(t, x, none), x0, torch.from_numpy(union), rtol=rtol, atol=atol,
                method="dopri5",
            )  # fmt: skip
            assert isinstance(states, torch.Tensor)
            return states[place, rows].numpy()

    return solve


def radau(data: dict[str, np.ndarray], rows: range, rtol: float, atol: float) -> np.ndarray:
    """scipy's Radau with the analytic Jacobian, row by row."""
    from scipy.integrate import solve_ivp

    found = []
    for i in rows:
        mu, times = float(data["mu"][i, 0]), data["times"][i]

        def field(t: float, y: np.ndarray, mu: float = mu) -> list[float]:
            return [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]

        def jacobian(t: float, y: np.ndarray, mu: float = mu) -> list[list[float]]:
            return [[0.0, 1.0], [-2 * mu * y[0] * y[1] - 1, mu * (1 - y[0] ** 2)]]

        made = solve_ivp(
            field, times[[0, -1]], data["x0"][i], method="Radau", t_eval=times, rtol=rtol,
            atol=atol, jac=jacobian,
        )  # fmt: skip
        found.append(made.y.T)
    return np.stack(found)


def reference(case: str, data: dict[str, np.ndarray]) -> np.ndarray:
    """States (some of the rows where that takes long) to be compared with."""
    if case == "stiff":
        return radau(data, range(0, ROWS, 4), 1e-10, 1e-12)
    tight = {k: v.astype(np.float64) for k, v in data.items()}
    if case.startswith("network"):
        import torch

        torch.set_default_dtype(torch.float64)
        try:
            return torchdiffeq(case, tight)(1e-11, 1e-12)
        finally:
            torch.set_default_dtype(torch.float32)
    from scipy.integrate import solve_ivp

    found = []
    for mu, x0, times in zip(tight["mu"][:, 0], tight["x0"], tight["times"], strict=True):
        made = solve_ivp(
            lambda t, y, mu=mu: [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]], times[[0, -1]], x0,
            method="DOP853" if mu < 20 else "Radau", t_eval=times, rtol=1e-11, atol=1e-12,
            **({} if mu < 20 else {"jac": lambda t, y, mu=mu: [[0.0, 1.0], [-2 * mu * y[0] * y[1] - 1, mu * (1 - y[0] ** 2)]]}),  # noqa: E501
        )  # fmt: skip
        found.append(made.y.T)
    return np.stack(found)


# ---------------------------------------------------------------- peers, in their own interpreters


def diffrax(case: str, data: dict[str, np.ndarray]) -> dict[str, Solve]:
    """Each row with its own steps and times: jit and vmap."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import diffrax as dx
    import jax.numpy as jnp

    is_network, n_layers = case.startswith("network"), len(SIZES) - 1
    of = np.float32 if is_network else np.float64
    own = {k: jnp.asarray(v) for k, v in data.items() if k not in ("times", "x0", "mu")}
    own = own if is_network else jnp.asarray(data["mu"])
    x0, times = jnp.asarray(data["x0"]), jnp.asarray(data["times"].astype(of))

    def van_der_pol(t, x, mu):
        return jnp.stack([x[1], mu[0] * (1 - x[0] ** 2) * x[1] - x[0]])

    def network(t, x, weights):
        for i in range(n_layers):
            x = weights[f"W{i}"] @ x + weights[f"b{i}"]
            x = jnp.tanh(x) if i < n_layers - 1 else x
        return x

    field = dx.ODETerm(network if is_network else van_der_pol)

    def made(solver, controller):
        def one(x0, times, constants, rtol, atol):
            return dx.diffeqsolve(
                field, solver, times[0], times[-1], None, x0, constants,
                saveat=dx.SaveAt(ts=times), stepsize_controller=controller(rtol, atol),
                max_steps=4096,
            ).ys  # fmt: skip

        every = jax.vmap(one, in_axes=(0, 0, None if is_network else 0, None, None))
        if not case.endswith("gradient"):
            run = jax.jit(every)
            return lambda rtol, atol: np.asarray(
                run(x0, times, own, of(rtol), of(atol)).block_until_ready()
            )

        def total(x0, constants, rtol, atol):
            states = every(x0, times, constants, rtol, atol)
            return jnp.sum(states**2), states

        run = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))

        def solve(rtol: float, atol: float) -> Any:
            (_, states), (on_x, on_own) = jax.block_until_ready(run(x0, own, of(rtol), of(atol)))
            order = [f"{k}{i}" for i in range(n_layers) for k in "Wb"]
            rest = [on_own[name] for name in order] if is_network else [on_own]
            return np.asarray(states), [np.asarray(g) for g in (on_x, *rest)]

        return solve

    def default(rtol, atol):
        return dx.PIDController(rtol=rtol, atol=atol)

    if case == "stiff":
        names = {"diffrax Kvaerno5": dx.Kvaerno5(), "diffrax Kvaerno3": dx.Kvaerno3()}
    else:
        names = {"diffrax Dopri5": dx.Dopri5(), "diffrax Tsit5": dx.Tsit5()}
    return {name: made(solver, default) for name, solver in names.items()}


def torchode(case: str, data: dict[str, np.ndarray]) -> dict[str, Solve]:
    """Each row with its own steps and times, eager."""
    import torch
    import torchode as to

    torch.set_num_threads(1)
    if case == "stiff":
        return {}
    x0, times = torch.from_numpy(data["x0"]), torch.from_numpy(data["times"])
    own = {k: torch.from_numpy(v) for k, v in data.items() if k not in ("times", "x0")}
    n_layers, gradient = len(SIZES) - 1, case.endswith("gradient")
    leaves = [x0, *own.values()] if gradient else []
    for leaf in leaves:
        leaf.requires_grad_()

    def network(t, x):
        for i in range(n_layers):
            x = torch.nn.functional.linear(x, own[f"W{i}"], own[f"b{i}"])
            x = x.tanh() if i < n_layers - 1 else x
        return x

    def van_der_pol(t, x):
        position, speed = x[:, :1], x[:, 1:]
        return torch.cat([speed, own["mu"] * (1 - position**2) * speed - position], dim=1)

    term = to.ODETerm(network if case.startswith("network") else van_der_pol)

    def solve(rtol: float, atol: float) -> Any:
        control = to.IntegralController(atol=atol, rtol=rtol, term=term)
        solver = to.AutoDiffAdjoint(to.Dopri5(term=term), control)
        with torch.set_grad_enabled(gradient):
            states = solver.solve(to.InitialValueProblem(y0=x0, t_eval=times.to(x0))).ys
        if not gradient:
            return states.numpy()
        found = torch.autograd.grad(states.square().sum(), leaves)
        return states.detach().numpy(), [g.numpy() for g in found]

    return {"torchode Dopri5": solve}


def serve(case: str) -> None:
    """Answer requests of the parent: `solver rtol atol` -> `clocks`, result in a file."""
    data, solvers = problem(case), {}
    for name, module in (("diffrax", diffrax), ("torchode", torchode)):
        try:
            solvers |= module(case, data)
        except ModuleNotFoundError as error:
            if error.name not in (name, "jax", "torch"):
                raise
    say = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    print(json.dumps(sorted(solvers)), file=say, flush=True)
    for line in sys.stdin:
        name, rtol, atol, path = json.loads(line)
        start = clocks()
        found = solvers[name](rtol, atol)
        spent = clocks() - start
        if path:
            states, gradients = found if isinstance(found, tuple) else (found, [])
            np.savez(path, states, *gradients)
        print(json.dumps(list(spent)), file=say, flush=True)


def clocks() -> np.ndarray:
    """Seconds by the clock, and of the processor for this process."""
    return np.array([time.perf_counter(), time.process_time()])


class Peer:
    """An interpreter with other solvers, waiting for requests."""

    def __init__(self, python: str, case: str, folder: Path):
        self.folder = folder
        call = [python, __file__, "--serve", case]
        environment = os.environ | {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
        self.process = subprocess.Popen(
            call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.names: list[str] = self._answer()

    def solver(self, name: str) -> Callable[..., Any]:
        """One of its solvers: (rtol, atol, whether the result is wanted) -> (`clocks`, result)."""

        def ask(rtol: float, atol: float, wanted: bool = False) -> tuple[np.ndarray, Any]:
            path = str(self.folder / "answer.npz") if wanted else ""
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps([name, rtol, atol, path]) + "\n")
            self.process.stdin.flush()
            spent = np.array(self._answer())
            if not wanted:
                return spent, None
            with np.load(path) as stored:
                parts = [stored[key] for key in stored.files]
            return spent, parts[0] if len(parts) == 1 else (parts[0], parts[1:])

        return ask

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a peer ended; its own message is above")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def timed(solve: Solve) -> Callable[..., Any]:
    """A solver of this process, called as a peer's."""

    def ask(rtol: float, atol: float, wanted: bool = False) -> tuple[np.ndarray, Any]:
        start = clocks()
        found = solve(rtol, atol)
        return clocks() - start, found if wanted else None

    return ask


# ---------------------------------------------------------------- measuring


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative L2; of every n-th row where the reference has fewer."""
    found = found[:: len(found) // len(expected)].astype(np.float64)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def gradient_distance(found: list[np.ndarray], other: list[np.ndarray]) -> float:
    """The largest relative L2 distance over the leaves."""
    pairs = zip(found, other, strict=True)
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)


def measure(case: str, pythons: list[str], rounds: int, eager: bool) -> list[dict[str, Any]]:
    """One row a solver and tolerance."""
    data, solvers = problem(case), {OURS: timed(ours(case, problem(case), "solver"))}
    solvers["clinode simulate"] = timed(ours(case, problem(case), "compiled"))
    if eager:
        solvers["clinode eager"] = timed(ours(case, problem(case), "eager"))
    if case in ("van_der_pol", "network"):
        solvers["torchdiffeq dopri5"] = timed(torchdiffeq(case, data))
    expected = reference(case, data)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        peers = [Peer(python, case, Path(folder)) for python in pythons]
        for peer in peers:
            solvers |= {name: peer.solver(name) for name in peer.names}
        asked = [(name, *pair) for pair in tolerances(case) for name in solvers]
        asked += [(OURS, *pair) for pair in FURTHER.get(case, [])]
        first = {key: solvers[key[0]](*key[1:])[0][0] for key in asked}
        found = {key: solvers[key[0]](*key[1:], wanted=True)[1] for key in asked}
        spent: dict[tuple[str, float, float], list[np.ndarray]] = {key: [] for key in asked}
        for i, key in itertools.product(range(rounds), asked):
            slow = key[0] in ("torchdiffeq dopri5", "clinode eager", "torchode Dopri5")
            if not slow or i < 3:
                spent[key].append(solvers[key[0]](*key[1:])[0])
        for key in asked:
            wall, own = np.median(spent[key], axis=0) * 1e3
            states, *gradients = found[key] if isinstance(found[key], tuple) else (found[key],)
            row = dict(zip(("solver", "rtol", "atol"), key, strict=True)) | {"case": case}
            row |= {"median_ms": float(wall), "processor_ms": float(own)}
            row |= {"rounds": len(spent[key]), "first_call_s": float(first[key])}
            row |= {"error": relative_error(states, expected)}
            if gradients:
                distance = gradient_distance(gradients[0], found[OURS, *key[1:]][1])
                row["gradient_distance_to_ours"] = distance
            rows.append(row)
        for peer in peers:
            peer.close()
    if case == "stiff":
        rows.append(_scipy_row(data, expected))
    for row in rows:
        same = next(r for r in rows if (r["solver"], r["rtol"]) == (OURS, row["rtol"]))
        row["times_ours_at_equal_tolerance"] = row["processor_ms"] / same["processor_ms"]
        row["times_ours_at_equal_error"] = _at_equal_error(row, rows)
    return rows


def _at_equal_error(row: dict[str, Any], rows: list[dict[str, Any]]) -> float | None:
    """Against our fastest run that is not less exact."""
    ours_ = [r for r in rows if r["solver"] == OURS and r["error"] <= row["error"]]
    return row["processor_ms"] / min(r["processor_ms"] for r in ours_) if ours_ else None


def _scipy_row(data: dict[str, np.ndarray], expected: np.ndarray) -> dict[str, Any]:
    rtol, atol = tolerances("stiff")[0]
    start = clocks()
    found = radau(data, range(0, ROWS, ROWS // SCIPY_ROWS), rtol, atol)
    wall, own = (clocks() - start) * 1e3 * ROWS / SCIPY_ROWS
    return {
        "case": "stiff", "solver": f"scipy Radau (from {SCIPY_ROWS} of {ROWS})", "rtol": rtol,
        "atol": atol, "median_ms": float(wall), "processor_ms": float(own), "rounds": 1,
        "error": relative_error(found, expected), "first_call_s": math.nan,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """For reading."""
    lines = [
        f"{'case':21}{'solver':30}{'rtol':>8}{'median ms':>11}{'cpu ms':>9}{'error':>10}"
        f"{'x, tol':>8}{'x, err':>8}{'first s':>9}{'gradient':>10}"
    ]
    for row in rows:
        equal = row["times_ours_at_equal_error"]
        distance = row.get("gradient_distance_to_ours")
        lines.append(
            f"{row['case']:21}{row['solver']:30}{row['rtol']:8.0e}{row['median_ms']:11.2f}"
            f"{row['processor_ms']:9.2f}{row['error']:10.1e}{row['times_ours_at_equal_tolerance']:8.2f}"
            f"{'' if equal is None else f'{equal:.2f}':>8}{row['first_call_s']:9.1f}"
            f"{'' if distance is None else f'{distance:.0e}':>10}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Speed and errors of batched ODE solvers.")
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--peers", nargs="*", default=[], metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--eager", action="store_true", help="time our eager loop, too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    import torch

    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # peers inherit the one core
    rows = [
        row
        for case in options.case
        for row in measure(case, options.peers, options.rounds, options.eager)
    ]
    if options.json:
        made = {"python": platform.python_version(), "torch": torch.__version__, "threads": 1}
        print(json.dumps(made | {"rows": rows}))
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
