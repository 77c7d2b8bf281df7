"""Where a branch of limit cycles ends with a period that grows without bound.

The parameter then tends to a value that it never reaches: that of an orbit homoclinic to a saddle,
or of a saddle-node on the cycle (SNIC).
"""

import numpy as np

from .cycle_curve import CycleReport
from .field import ScaledField
from .singular import FoldEquations, newton

NEARBY = 0.05  # scales between the slowest point of an orbit and the equilibrium it lingers at


def endless_end(
    scaled: ScaledField, report: CycleReport, per_e_fold: float
) -> tuple[str, float, np.ndarray]:
    """What a long orbit has come to: "snic" or "homoclinic", the parameter and the state there.

    Towards a saddle-node the parameter's distance falls as the square of the frequency, which
    tells it from a saddle; towards a saddle as exp(-lambda T), lambda its unstable eigenvalue.

    Args:
        scaled: The field over the parameter.
        report: The last cycle.
        per_e_fold: By how much the parameter, scaled, moves while the period grows e-fold.

    Returns:
        The kind, the parameter, and the state (state,), unscaled.
    """
    n = scaled.n_states
    z = np.hstack([report.orbit.nodes, np.full((len(report.orbit.nodes), 1), report.p)])
    slowest = z[np.argmin(np.linalg.norm(scaled.value(z), axis=1))]
    fold = newton(FoldEquations(scaled, slowest), slowest)
    if fold is not None and np.abs(fold - slowest).max() < NEARBY:
        # dp / d(log T) = -2 (p - p*) where p - p* = c / T^2
        power = per_e_fold / (fold[-1] - report.p)
        if 1.5 < power < 2.5:
            return "snic", float(fold[-1] * scaled.scale[-1]), fold[:n] * scaled.x_scale
    at = ScaledField(scaled.field.fixed([report.p * scaled.scale[-1]]), scaled.x_scale)
    saddle = newton(at.jacobian, slowest[:n])
    if saddle is None or np.abs(saddle - slowest[:n]).max() > NEARBY:
        return "homoclinic", report.p * scaled.scale[-1], report.orbit.nodes[0] * scaled.x_scale
    rates = np.linalg.eigvals(at.jacobian(saddle)[1]).real
    growth = rates[rates > 0].min(initial=np.inf)
    p = report.p + per_e_fold / (growth * report.period)
    return "homoclinic", float(p * scaled.scale[-1]), saddle * scaled.x_scale
