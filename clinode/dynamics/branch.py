"""What continuation returns: branches of equilibria or cycles, and their special points."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from clinode.system import Quantity, System, flat_names

if TYPE_CHECKING:
    from .cycles import LimitCycle


@dataclass(frozen=True, eq=False)
class SpecialPoint:
    """A point where a branch changes its character.

    Attributes:
        kind: Of equilibria "fold", "hopf" or "branch point"; of cycles "cycle fold", "period
            doubling", "torus" or "branch point", and where a branch of them ends "snic",
            "homoclinic" or "canard" (orbits grow while the parameter stands still); of a curve in
            two parameters "cusp", "bogdanov-takens", "zero-hopf", "bautin" or "hopf-hopf".
        value: The parameter there. Like `state` and `frequency`, differentiable once by constants
            and inputs that ask for a gradient, at folds and Hopf points.
        state: (state,); of a cycle, its state at phase 0.
        frequency: Cycles per time unit, at a Hopf point and of a cycle; else None.
        criticality: "supercritical" or "subcritical" of a Hopf or pitchfork point, "transcritical",
            "degenerate" where the coefficient is zero to rounding; else None.
        coefficient: Of the normal form: first Lyapunov coefficient of a Hopf point (|q| = 1 in the
            states' units), a b of a fold s' = a (p - p*) + b s^2; else None.
        values: All free parameters by name.
        cycle: The cycle, on a branch of cycles.
    """

    kind: str
    value: Float[Tensor, ""]
    state: Float[Tensor, " state"]
    frequency: Float[Tensor, ""] | None = None
    criticality: str | None = None
    coefficient: float | None = None
    values: dict[str, float] = field(default_factory=dict)
    cycle: "LimitCycle | None" = field(default=None, repr=False)
    origin: "Origin | None" = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "kind": self.kind,
            "value": float(self.value.detach()),
            "values": self.values,
            "state": self.state.tolist(),
            "frequency": None if self.frequency is None else float(self.frequency.detach()),
            "criticality": self.criticality,
            "coefficient": self.coefficient,
        }


@dataclass(frozen=True, eq=False)
class Origin:
    """What it takes to go on from a special point.

    Attributes:
        system: The system.
        u: Its input, (input,).
        parameter: The parameter of the branch.
        tangents: (direction, state + parameter), unit directions of the branches through the
            point, the one that it was found on first.
    """

    system: System
    u: Float[Tensor, " input"]
    parameter: str
    tangents: Float[np.ndarray, "direction unknown"]


@dataclass(frozen=True, eq=False)
class Branch:
    """A curve of equilibria or of cycles over a parameter, in the order it was walked along.

    Attributes:
        parameter: Name of the input or constant.
        unit: Its unit.
        values: (point,), the parameter.
        states: (point, state); of cycles, the state at phase 0.
        lowest, highest: (point, state), over a cycle; of equilibria, the states.
        stable: (point,).
        eigenvalues: (point, state), of equilibria; Floquet multipliers of cycles.
        periods: (point,), of cycles; None of equilibria.
        points: Special points in the order met.
        neutral_saddles: Where two real eigenvalues add up to zero, which is no Hopf point.
        ends: Why the walk ended at its first and at its last point.
        quantities: What stands on the state axis.
        time_unit: Unit of the periods.
        cycles: The cycles, one a point.
    """

    parameter: str
    unit: str
    values: Float[np.ndarray, " point"]
    states: Float[np.ndarray, "point state"]
    lowest: Float[np.ndarray, "point state"]
    highest: Float[np.ndarray, "point state"]
    stable: Bool[np.ndarray, " point"]
    eigenvalues: Complex[np.ndarray, "point state"]
    points: tuple[SpecialPoint, ...]
    ends: tuple[str, str]
    quantities: tuple[Quantity, ...] = field(repr=False)
    time_unit: str = "1"
    periods: Float[np.ndarray, " point"] | None = None
    neutral_saddles: tuple[SpecialPoint, ...] = ()
    cycles: "tuple[LimitCycle, ...]" = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.values)

    def to_pandas(self) -> pd.DataFrame:
        """One row a point: the parameter, stable, the period of cycles, then the states; of cycles
        their lowest and highest values.
        """
        labels = [f"{name} ({q.unit})" for q in self.quantities for name in q.names]
        columns: dict[str, np.ndarray] = {f"{self.parameter} ({self.unit})": self.values}
        columns["stable"] = self.stable
        if self.periods is None:
            return pd.DataFrame(columns | dict(zip(labels, self.states.T, strict=True)))
        columns[f"period ({self.time_unit})"] = self.periods
        for i, label in enumerate(labels):
            columns[f"lowest {label}"] = self.lowest[:, i]
            columns[f"highest {label}"] = self.highest[:, i]
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "parameter": self.parameter,
            "unit": self.unit,
            "values": self.values.tolist(),
            "state_names": list(flat_names(self.quantities)),
            "states": self.states.tolist(),
            "lowest": self.lowest.tolist(),
            "highest": self.highest.tolist(),
            "stable": self.stable.tolist(),
            "periods": None if self.periods is None else self.periods.tolist(),
            "points": [point.to_dict() for point in self.points],
            "neutral_saddles": [point.to_dict() for point in self.neutral_saddles],
            "ends": list(self.ends),
        }


def scalar(value: float | Tensor) -> Tensor:
    """A number of no axes in float64."""
    return torch.as_tensor(value, dtype=torch.float64).reshape(())
