"""Phase response of a limit cycle: how a small push at each phase moves its clock."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.system import Quantity, System, flat_names

from .collocation import adjoint_orbit, linearize_orbit
from .cycles import LimitCycle
from .field import Field, ScaledField, scales

ONE_SIDED = 0.05  # smaller extreme, relative to the larger, up to which a curve counts as type 1


@dataclass(frozen=True, eq=False)
class PhaseResponse:
    """Infinitesimal phase response of a limit cycle, the solution of the adjoint equation.

    Attributes:
        phases: (phase,), fractions of the period from where the cycle's states begin.
        by_state: (phase, state), advance in fractions of the period per unit that a state is
            pushed up by.
        by_input: (phase, input), advance per unit of an impulse (input unit x time unit).
        period: In time units.
        states, inputs: What stands on the last axes.
    """

    phases: Float[Tensor, " phase"]
    by_state: Float[Tensor, "phase state"]
    by_input: Float[Tensor, "phase input"]
    period: float
    states: tuple[Quantity, ...] = field(repr=False)
    inputs: tuple[Quantity, ...] = field(repr=False)

    def kind(self, name: str) -> str:
        """ "type 1": pushes of one sign only advance (or only delay); else "type 2".

        Args:
            name: Flat name of a state or an input.

        Raises:
            ArgumentError: There is none of that name.
        """
        names = [*flat_names(self.states), *flat_names(self.inputs)]
        if name not in names:
            raise ArgumentError(f"no state or input is called '{name}'")
        curve = torch.cat([self.by_state, self.by_input], dim=-1)[:, names.index(name)]
        smaller, larger = sorted(
            [float(curve.max().clamp(min=0)), float((-curve).max().clamp(min=0))]
        )
        return "type 1" if smaller <= ONE_SIDED * larger else "type 2"

    def to_pandas(self) -> pd.DataFrame:
        """One row a phase: phase, then advance per state unit and per impulse of each input."""
        columns = {"phase": self.phases.numpy()}
        for quantities, curves, of in (
            (self.states, self.by_state, ""),
            (self.inputs, self.by_input, " impulse"),
        ):
            labels = [f"per {q.unit} of {name}{of}" for q in quantities for name in q.names]
            columns |= dict(zip(labels, curves.numpy().T, strict=True))
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "phases": self.phases.tolist(),
            "period": self.period,
            "state_names": list(flat_names(self.states)),
            "by_state": self.by_state.tolist(),
            "input_names": list(flat_names(self.inputs)),
            "by_input": self.by_input.tolist(),
        }


def phase_response(system: System, cycle: LimitCycle) -> PhaseResponse:
    """The phase response of a limit cycle, by the adjoint of its own collocation.

    Args:
        system: The system that the cycle is of.
        cycle: A stable one: the phase is that to which a push decays. (Of an unstable cycle the
            result is that of the reversed flow.)

    Raises:
        SolverError: The cycle is none of this system.
    """
    dynamics = Field(system, cycle.u, system.input_names)
    scaled = ScaledField(
        dynamics, np.concatenate([scales(system.states), np.ones(system.n_inputs)])
    )
    u = cycle.u.detach().numpy()
    period = float(cycle.period.detach())
    if linearize_orbit(scaled, cycle.orbit, period, u).residual > 1e-6:
        raise SolverError(
            "the cycle is none of this system at its input",
            where=type(system).__name__,
            fix="find it again with find_limit_cycle",
        )
    z = np.hstack([cycle.orbit.nodes, np.broadcast_to(u, (len(cycle.orbit.nodes), len(u)))])
    _, jacobian = scaled.jacobian(z)
    adjoint = adjoint_orbit(scaled, cycle.orbit, period, u) / period
    by_input = np.einsum("ks,ksi->ki", adjoint, jacobian[..., scaled.n_states :])
    return PhaseResponse(
        phases=torch.tensor(cycle.orbit.phases),
        by_state=torch.tensor(adjoint / scaled.x_scale),
        by_input=torch.tensor(by_input),
        period=period,
        states=system.states,
        inputs=system.inputs,
    )
