"""What a system's own dynamics are and what its inputs move: a portrait of a patient model.

Where it rests without input, how fast what its outputs show fades, which of that the inputs move,
and what an input held for a while does to each output. Only what no change of latent coordinates
alters is said. Of a learned patient model it describes the model: who was treated in the records
was ill, so a response is an association that the model carries, not the effect of a treatment.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clinode.dynamics.equilibria import Equilibria, Equilibrium, find_equilibria
from clinode.dynamics.linearize import linearize
from clinode.dynamics.simulate import simulate
from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, Quantity, System

from .controllability.controllability import Controllability, controllability
from .energy.transfers import horizon_of, matrix_of
from .targets.input_factors import input_factors

N_TIMES = 25  # of a response
FEW = 3  # outputs named for a mode


@dataclass(frozen=True, eq=False)
class Portrait:
    """What was asked of a system, and the answers.

    Attributes:
        system: Its name.
        time_unit: Of times, and per which rates are.
        equilibria: All that were found without input.
        equilibrium: The first of them; everything is about it.
        linear: The linearization there, with outputs and inputs divided by their scales.
        controllability: Of all inputs together.
        modes: One row a mode that an output shows: time_constant, frequency, is_moved (by some
            input; None where undecided), gain (its part in the transfer function, between scales),
            outputs (those that show it most, with their shares).
        reach: One row an input: how far it alone moves the outputs within the horizon, in their
            scales, as the root of the trace of C W C' for an input of one scale.
        hankel: Hankel singular values of the scaled linearization, largest first; None where it is
            not stable.
        responses: One row an (input, output, time): the change of the output while the input is
            held at its level, from the equilibrium, in the system itself, and `linear`, what the
            linearization says.
        levels: At which each input was held, in its unit.
        horizon: How long.
        verdict: In words.
        inputs, outputs: What stands on their axes.
    """

    system: str
    time_unit: str
    equilibria: Equilibria
    equilibrium: Equilibrium
    linear: LinearSystem = field(repr=False)
    controllability: Controllability = field(repr=False)
    modes: pd.DataFrame = field(repr=False)
    reach: pd.DataFrame = field(repr=False)
    hankel: np.ndarray | None = field(repr=False)
    responses: pd.DataFrame = field(repr=False)
    levels: dict[str, float]
    horizon: float
    verdict: str
    inputs: tuple[Quantity, ...] = field(repr=False)
    outputs: tuple[Quantity, ...] = field(repr=False)

    @property
    def rest(self) -> pd.DataFrame:
        """One row an output: its value at the equilibrium, and the range it was measured in."""
        quantities = _flat(self.outputs)
        values = self.equilibrium.output.tolist()
        rows = []
        for (name, quantity), value in zip(quantities, values, strict=True):
            low, high = quantity.range or (math.nan, math.nan)
            inside = None if quantity.range is None else low <= value <= high
            rows.append((name, quantity.unit, value, low, high, inside))
        columns = ["output", "unit", "value", "low", "high", "is_within"]
        return pd.DataFrame(rows, columns=columns)

    def widest_responses(self, n_inputs: int, n_outputs: int) -> dict[str, list[str]]:
        """Inputs that reach furthest, and of each the outputs that change most within the horizon.

        Changes are compared in the widths of the outputs' ranges.
        """
        width = dict(zip((n for n, _ in _flat(self.outputs)), self.widths, strict=True))
        sizes: dict[str, dict[str, float]] = {}
        for row in self.at_horizon:
            size = abs(row["change"]) / width[row["output"]]
            sizes.setdefault(row["input"], {})[row["output"]] = size
        return {
            name: sorted(sizes[name], key=lambda output: -sizes[name][output])[:n_outputs]
            for name in self.reach["input"].tolist()[:n_inputs]
        }

    @property
    def at_horizon(self) -> list[dict[str, Any]]:
        """The responses at the end, a row an (input, output)."""
        return [row for row in _records(self.responses) if row["time"] == self.horizon]

    @property
    def widths(self) -> list[float]:
        """Width of each output's range, its scale; 1 where it has none."""
        return _widths(self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON; None where a number is not finite."""
        return {
            "system": self.system,
            "time_unit": self.time_unit,
            "verdict": self.verdict,
            "horizon": self.horizon,
            "levels": self.levels,
            "n_equilibria": len(self.equilibria),
            "equilibria_verdict": self.equilibria.verdict,
            "rest": _records(self.rest),
            "controllability": self.controllability.verdict,
            "modes": _records(self.modes),
            "reach": _records(self.reach),
            "hankel": None if self.hankel is None else self.hankel.tolist(),
            "responses": self.at_horizon,
        }


def portrait(
    system: System,
    *,
    horizon: float | int = 24.0,
    levels: dict[str, float] | None = None,
    equilibrium: Equilibrium | None = None,
) -> Portrait:
    """Equilibria, time constants, modes and the reach of the inputs, as the outputs show them.

    Args:
        system: A learned patient model (`run.model.latent_system`) or any other system whose inputs
            and outputs have names.
        horizon: How long an input is held, in the system's time unit.
        levels: At which, by name of the input; by default the upper end of its range, which for a
            learned system is the 99.5 % quantile of what was given in training. Also the scale of
            an input; the scale of an output is the width of its range, 1 where it has none.
        equilibrium: Where it starts; by default the first found without input.

    Raises:
        ArgumentError: No inputs or outputs, an unknown input, a level of 0, a horizon that is not
            positive.
        SolverError: No equilibrium was found, or a response cannot be solved.

    Example:
        >>> body = LinearSystem([[-0.5]], [[2.0]], states=["glucose"], inputs=["insulin"])
        >>> found = portrait(body, horizon=100.0, levels={"insulin": 3.0})
        >>> round(float(found.responses["linear"].iloc[-1]), 6)
        12.0
    """
    if not system.n_inputs:
        raise ArgumentError(f"{type(system).__name__} has no inputs: nothing can move it")
    if not (math.isfinite(horizon) and horizon > 0):
        raise ArgumentError(f"horizon must be positive, got {horizon}")
    horizon = float(horizon)
    held = _levels(system, levels or {})
    found = find_equilibria(system, 0.0 if equilibrium is None else equilibrium.u)
    if equilibrium is None:
        if not len(found):
            raise SolverError(found.verdict, where=type(system).__name__, fix="give an equilibrium")
        equilibrium = found[0]
    linear = linearize(system, equilibrium)
    outputs = tuple(linear.outputs or linear.states)
    scaled = _scaled(linear, held, outputs)
    answer = controllability(scaled)
    modes = _modes(answer)
    return Portrait(
        system=type(system).__name__,
        time_unit=system.time_unit,
        equilibria=found,
        equilibrium=equilibrium,
        linear=scaled,
        controllability=answer,
        modes=modes,
        reach=_reach(scaled, horizon),
        hankel=answer.hankel,
        responses=_responses(system, linear, equilibrium, held, horizon),
        levels=held,
        horizon=horizon,
        verdict=_verdict(equilibrium, found, modes, system.time_unit),
        inputs=tuple(system.inputs),
        outputs=outputs,
    )


def _levels(system: System, given: dict[str, float]) -> dict[str, float]:
    names = system.input_names
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ArgumentError(
            f"{type(system).__name__} has no input {unknown[0]!r}; there are {', '.join(names)}"
        )
    levels = {}
    for name, quantity in _flat(system.inputs):
        low, high = quantity.range or (0.0, 0.0)
        level = float(given.get(name, (high or low) or 1.0))
        if not math.isfinite(level) or level == 0:
            raise ArgumentError(f"input {name!r}: its level must be a number other than 0")
        levels[name] = level
    return levels


def _flat(quantities: tuple[Quantity, ...]) -> list[tuple[str, Quantity]]:
    return [(name, quantity) for quantity in quantities for name in quantity.names]


def _widths(outputs: tuple[Quantity, ...]) -> list[float]:
    ranges = [quantity.range or (0.0, 0.0) for _, quantity in _flat(outputs)]
    return [high - low if high > low else 1.0 for low, high in ranges]


def _scaled(
    linear: LinearSystem, levels: dict[str, float], outputs: tuple[Quantity, ...]
) -> LinearSystem:
    """The linearization with inputs in their levels and outputs in the widths of their ranges."""
    width = torch.tensor(_widths(outputs), dtype=torch.float64)
    level = torch.tensor(list(levels.values()), dtype=torch.float64)
    A, B, C, D = (m.detach().double() for m in (linear.A, linear.B, linear.C, linear.D))
    return LinearSystem(
        A,
        B * level,
        C / width.unsqueeze(1),
        D * level / width.unsqueeze(1),
        latent=linear.latent,
        states=linear.states,
        inputs=tuple(Quantity(name, "1") for name in linear.input_names),
        outputs=tuple(Quantity(name, "1") for name in linear.output_names),
        time_unit=linear.time_unit,
    )


def _modes(answer: Controllability) -> pd.DataFrame:
    rows = []
    for mode in answer.modes:
        if mode.frequency and mode.eigenvalue.imag < 0:
            continue  # one row a pair
        shares = dict(list(mode.states.items())[:FEW])
        rows.append(
            {
                "time_constant": mode.time_constant,
                "frequency": mode.frequency,
                "is_stable": mode.is_stable,
                "is_moved": mode.is_controllable,
                "gain": mode.gain,
                "outputs": ", ".join(f"{name} {share:.0%}" for name, share in shares.items()),
            }
        )
    table = pd.DataFrame(rows)
    return table.sort_values(
        ["time_constant", "frequency"], ascending=[False, True], ignore_index=True
    )


def _reach(scaled: LinearSystem, horizon: float) -> pd.DataFrame:
    A, B = matrix_of(scaled, "A"), matrix_of(scaled, "B")
    T, n_steps = horizon_of(scaled, A, horizon)
    factors = input_factors(A, B, T, matrix_of(scaled, "C"), n_steps)
    sizes = np.sqrt((factors**2).sum(axis=(1, 2)))
    table = pd.DataFrame({"input": list(scaled.input_names), "reach": sizes})
    return table.sort_values("reach", ascending=False, ignore_index=True)


def _responses(
    system: System,
    linear: LinearSystem,
    rest: Equilibrium,
    levels: dict[str, float],
    horizon: float,
) -> pd.DataFrame:
    """Each input held alone; the change against the same time without it."""
    times = torch.linspace(0.0, horizon, N_TIMES, dtype=torch.float64)
    level = torch.diag(torch.tensor(list(levels.values()), dtype=torch.float64))
    u = torch.cat([torch.zeros_like(level[:1]), level]) + rest.u
    found = simulate(system, rest.state.expand(len(u), -1), times, u)
    seen = found.outputs.detach().double()
    change = (seen[1:] - seen[:1]).numpy()
    tables = []
    for k, name in enumerate(levels):
        predicted = _step_response(linear, k, level[k, k], times)
        for j, output in enumerate(linear.output_names):
            tables.append(
                pd.DataFrame(
                    {
                        "input": name,
                        "output": output,
                        "time": times.numpy(),
                        "change": change[k, :, j],
                        "linear": predicted[:, j],
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def _step_response(linear: LinearSystem, k: int, level: Tensor, times: Tensor) -> np.ndarray:
    """C int_0^t exp(A s) ds B level + D level, by one exponential of a block matrix a step."""
    A, B, C, D = (m.detach().double() for m in (linear.A, linear.B, linear.C, linear.D))
    n = len(A)
    block = A.new_zeros(n + 1, n + 1)
    block[:n, :n], block[:n, n] = A, B[:, k] * level
    step = torch.linalg.matrix_exp(block * float(times[1]))
    state = A.new_zeros(n + 1)
    state[n] = 1.0
    seen = []
    for _ in times:
        seen.append(C @ state[:n] + D[:, k] * level)
        state = step @ state
    return torch.stack(seen).numpy()


def _verdict(rest: Equilibrium, found: Equilibria, modes: pd.DataFrame, unit: str) -> str:
    slowest = float(modes["time_constant"].iloc[0])
    settles = "settles" if rest.is_stable else "does not settle by itself"
    n = "one equilibrium was found" if len(found) == 1 else f"{len(found)} equilibria were found"
    moved = sum(told is True for told in modes["is_moved"])  # None: undecided
    return (
        f"without input the model {settles} ({rest.kind}; {n}); its slowest mode takes "
        f"{slowest:.3g} {unit} to change e-fold; the inputs move {moved} of "
        f"{len(modes)} modes"
    )


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            str(key): None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        for row in table.to_dict("records")
    ]
