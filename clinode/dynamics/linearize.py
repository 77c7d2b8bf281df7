"""Linearization of a system at an equilibrium: a labeled `LinearSystem`, exact by autograd."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.func import jacrev

from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, Quantity, System, flat_names

from .equilibria import Equilibrium
from .field import Field, members_named, names_of, nearest

AT_REST = 1e-6  # largest residual, in scales per fastest time constant, of what counts as rest


def linearize(
    system: System,
    equilibrium: Equilibrium,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
) -> LinearSystem:
    """x' = A (x - x0) + B (u - u0), y = y0 + C (x - x0) + D (u - u0) about an equilibrium.

    The matrices are differentiable by constants and inputs that ask for a gradient, through the
    shift of the equilibrium too. Of a learned system the result is `latent` as well. Of a system
    with delays it holds at zero delay, where past and present are the same.

    Args:
        system: The system that the equilibrium is of.
        equilibrium: From `find_equilibria`.
        inputs: Names of inputs or blocks to keep, as "stimulus:lh_precuneus" or "stimulus", in this
            order but for members of one block, which stand together; the others stay at the
            equilibrium's input. All by default.
        outputs: Likewise.

    Raises:
        ArgumentError: An unknown name (the nearest is offered), or another number of states.
        SolverError: The system does not rest there.

    Example:
        >>> from clinode.dynamics.equilibria import find_equilibria
        >>> leak = LinearSystem(A=[[-0.1]], B=[[1.0]], states=["V"], inputs=["I"])
        >>> linearize(leak, find_equilibria(leak, u=2.0)[0]).A
        tensor([[-0.1000]], dtype=torch.float64)
    """
    x0, u0 = equilibrium.state, equilibrium.u
    if len(x0) != system.n_states or len(u0) != system.n_inputs:
        raise ArgumentError(
            f"the equilibrium has {len(x0)} states and {len(u0)} inputs, "
            f"{type(system).__name__} has {system.n_states} and {system.n_inputs}"
        )
    field = Field(system, u0, system.input_names)
    if field.batch_shape:
        raise ArgumentError(f"{type(system).__name__} has batch axes", fix="give one member of it")
    # The input is a variable here, so that one function of (x, u) gives A, B, C and D.
    point = torch.cat([x0, u0])
    A, B = jacrev(field.live)(point).split([len(x0), len(u0)], dim=-1)
    C, D = jacrev(field.output)(point).split([len(x0), len(u0)], dim=-1)
    _check_rest(field, point, A, system)
    columns, kept_inputs = _select("input", system, system.inputs, inputs)
    rows, kept_outputs = _select("output", system, system.outputs, outputs)
    return LinearSystem(
        A,
        B[:, columns],
        C[rows],
        D[rows][:, columns],
        offset=(x0, u0[columns], equilibrium.output[rows]),
        latent=getattr(system, "latent", False),
        states=system.states,
        inputs=kept_inputs,
        outputs=kept_outputs,
        time_unit=system.time_unit,
        origin=system,
    )


def _check_rest(field: Field, point: torch.Tensor, A: torch.Tensor, system: System) -> None:
    with torch.no_grad():
        rate = field(point.detach())
        size = (A.abs() * point[: len(A)].abs().clamp(min=1.0)).sum(dim=-1).clamp(min=1e-300)
    worst = float((rate.abs() / size).max())
    if worst > AT_REST:
        raise SolverError(
            f"the system moves there: relative residual {worst:.2g}, allowed {AT_REST:g}",
            where=type(system).__name__,
            fix="linearize at an equilibrium from find_equilibria of the same system",
        )


def _select(
    role: str, system: System, quantities: Sequence[Quantity], names: Sequence[str] | None
) -> tuple[list[int], tuple[Quantity, ...]]:
    """Positions of what is kept, and what it is called: blocks keep the members asked for."""
    if names is None:
        return list(range(len(flat_names(quantities)))), tuple(quantities)
    chosen: dict[str, list[int]] = {}  # block -> members
    for name in [names] if isinstance(names, str) else names:
        found = [(q, members_named(q, name)) for q in quantities]
        found = [(q, members) for q, members in found if members]
        if not found:
            known = names_of(quantities)
            raise ArgumentError(
                f"{type(system).__name__} has no {role} '{name}': {nearest(name, known)}"
            )
        quantity, members = found[0]
        chosen.setdefault(quantity.name, []).extend(members)
    by_name = {q.name: q for q in quantities}
    offsets = dict(zip(by_name, np.cumsum([0, *(q.size for q in quantities)]), strict=False))
    positions = [int(offsets[block]) + i for block, members in chosen.items() for i in members]
    kept = [
        replace(by_name[block], labels=tuple(by_name[block].labels[i] for i in members))
        if by_name[block].labels
        else by_name[block]
        for block, members in chosen.items()
    ]
    return positions, tuple(kept)
