"""Bifurcation diagrams of published neurons: how long they take and how exact their points are.

    python scripts/benchmarks/continuation.py [--json]

For each set of Morris-Lecar the whole diagram: equilibria with criticality, cycles to their fold,
and on to the Hopf point, homoclinic orbit or saddle-node where they end. Beside each time stands
what was found and the same from elsewhere: published or independently computed numbers, the law of
the normal form, roots of the equations written out by hand.
"""

import argparse
import json
import math
import time
from typing import Any

import numpy as np
import torch
from scipy.optimize import fsolve

from clinode.brain import HodgkinHuxley, MorrisLecar
from clinode.dynamics.branch import Branch
from clinode.dynamics.continuation import continue_equilibria
from clinode.dynamics.curves import continue_curve
from clinode.dynamics.cycle_branches import continue_cycles

SPAN = (-20.0, 250.0)
SETS = {
    "hopf": MorrisLecar.hopf,
    "snic": MorrisLecar.snic,
    "homoclinic": MorrisLecar.homoclinic,
}


def diagram(system: Any, span: tuple[float, float]) -> tuple[Branch, list[Branch], float]:
    """Equilibria and the cycles born at the first Hopf point, and the seconds that took."""
    start = time.perf_counter()
    equilibria = continue_equilibria(system, "I", span)
    hopf = next(point for point in equilibria.points if point.kind == "hopf")
    cycles = [continue_cycles(system, "I", hopf, span)]
    return equilibria, cycles, time.perf_counter() - start


def cusp_and_bogdanov_takens(phi: float) -> dict[str, list[float]]:
    """(I, g_Ca) of the SNIC set where dI/dV and either d2I/dV2 or the trace vanish."""

    def conditions(V: float, g: float) -> tuple[float, float, float, float]:
        s, r = math.tanh((V + 1.2) / 18), math.tanh((V - 12) / 17.4)
        m, dm, d2m = (1 + s) / 2, (1 - s * s) / 36, -s * (1 - s * s) / 18**2
        w, dw, d2w = (1 + r) / 2, (1 - r * r) / 34.8, -r * (1 - r * r) / 17.4**2
        current = 2 * (V + 60) + g * m * (V - 120) + 8 * w * (V + 84)
        first = 2 + g * (m + dm * (V - 120)) + 8 * (w + dw * (V + 84))
        second = g * (2 * dm + d2m * (V - 120)) + 8 * (2 * dw + d2w * (V + 84))
        own = 2 + 8 * w + g * (m + dm * (V - 120))
        return current, first, second, -own / 20 - phi * math.cosh((V - 12) / 34.8)

    found = {}
    for kind, other in (("cusp", 2), ("bogdanov-takens", 3)):
        V, g = fsolve(lambda q, k=other: np.array(conditions(*q))[[1, k]], [-17.0, 2.45])
        found[kind] = [conditions(V, g)[0], float(g)]
    return found


def morris_lecar(name: str) -> dict[str, Any]:
    """One set: seconds, points, and the worst trivial multiplier of any orbit on the branch."""
    equilibria, cycles, seconds = diagram(SETS[name](), SPAN)
    row: dict[str, Any] = {"what": f"Morris-Lecar {name}", "seconds": seconds, "goal": 6.0}
    row["points"] = [(p.kind, float(p.value), p.criticality) for p in equilibria.points]
    row["cycles"] = [(p.kind, float(p.value)) for branch in cycles for p in branch.points]
    row["ends"] = [branch.ends[1] for branch in cycles]
    row["worst_trivial"] = max(float(np.abs(b.eigenvalues[:, 0] - 1).max()) for b in cycles)
    if name == "snic":
        fold = equilibria.points[0]
        gap = cycles[0].values - float(fold.value)
        law = math.sqrt(fold.coefficient or math.nan) / math.pi
        near = gap <= 1e-6
        ratio = 1 / cycles[0].periods[near] / np.sqrt(gap[near]) / law
        row["smallest_gap"] = float(gap.min())
        row["worst_law"] = float(np.abs(ratio - 1).max())
    return row


def cycle_folds() -> list[dict[str, Any]]:
    """Folds of cycles against the published ones."""
    rows = []
    for system, span, expected in (
        (MorrisLecar.hopf(), SPAN, 88.2932505),
        (HodgkinHuxley(), (-10.0, 200.0), 6.2603213),
    ):
        _, cycles, seconds = diagram(system, span)
        folds = [float(p.value) for p in cycles[0].points if p.kind == "cycle fold"]
        error = min(abs(fold - expected) for fold in folds)
        what = f"cycle fold of {type(system).__name__}"
        rows.append({"what": what, "seconds": seconds, "folds": folds, "error": error})
        rows[-1]["worst_trivial"] = float(np.abs(cycles[0].eigenvalues[:, 0] - 1).max())
    return rows


def two_parameter_curves() -> list[dict[str, Any]]:
    """Fold and Hopf curves of Morris-Lecar in (I, g_Ca), and of Hodgkin-Huxley in (I, E_L)."""
    rows: list[dict[str, Any]] = []
    system = MorrisLecar.snic()
    by_hand = cusp_and_bogdanov_takens(1 / 15)
    for point in continue_equilibria(system, "I", (-20, 120)).points[::2]:
        start = time.perf_counter()
        curve = continue_curve(system, ("I", "g_Ca"), point, ((-50, 200), (1.5, 8.0)))
        seconds = time.perf_counter() - start
        found = [(p.kind, p.values["I"], p.values["g_Ca"]) for p in curve.points]
        errors = [
            max(abs(I - by_hand[kind][0]), abs(g - by_hand[kind][1]))
            for kind, I, g in found
            if kind in by_hand
        ]
        rows.append({"what": f"{curve.kind} curve of Morris-Lecar", "seconds": seconds,
                     "cycles": found, "error": max(errors)})  # fmt: skip
    system = HodgkinHuxley()
    hopf = continue_equilibria(system, "I", (-5, 100)).points[0]
    start = time.perf_counter()
    curve = continue_curve(system, ("I", "E_L"), hopf, ((-20, 60), (-90, -20)))
    held = curve.values[:, 0] + float(system.g_L) * curve.values[:, 1]
    rows.append({"what": "Hopf curve of Hodgkin-Huxley", "seconds": time.perf_counter() - start,
                 "error": float(np.ptp(held))})  # fmt: skip
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Bifurcation diagrams: seconds and errors.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    diagram(MorrisLecar.hopf(), (80.0, 100.0))  # imports and first calls, not measured
    rows = [morris_lecar(name) for name in SETS] + cycle_folds() + two_parameter_curves()
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row.pop('what'):<34} {row.pop('seconds'):6.2f} s")
        for name, value in row.items():
            print(f"    {name}: {value}")


if __name__ == "__main__":
    main()
