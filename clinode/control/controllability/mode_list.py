"""The modes of a linear system one by one, with what each is made of.

Of a learned system, whose states have arbitrary coordinates, a mode is what the outputs show of it.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Complex

from clinode.system import LinearSystem, Quantity

from .kalman import Block, Decomposition, Pair
from .reasons import Names


@dataclass(frozen=True, eq=False)
class Mode:
    """One mode of a linear system; of observability, read seen by the outputs for moved by inputs.

    Attributes:
        eigenvalue: Per time unit; of a map, per step.
        time_constant: Time in which it decays, or grows, e-fold; inf where it does neither beyond
            rounding.
        frequency: Cycles per time unit.
        is_controllable: Whether the inputs move it; None where that cannot be decided.
        is_stable: Whether it decays; None where rounding leaves it open.
        gain: |w' B|, w its left eigenvector of length 1; of a learned system the size of its part
            in the transfer function, |C v| |w' B| / |w' v|, which no coordinates change.
        reason: Kind of the reason why it is out of reach; "" of a mode that is not.
        left_eigenvector: w, (state,), w' A = eigenvalue w'. Of a learned system None. Where the
            eigenvalue is defective between what is reached and what is not, of the part reached.
        states: Share |w_i|^2 of each state, largest first, without those below 1e-6; of a learned
            system the share of each output in it.
        regions: The same summed over the states of a region.
    """

    eigenvalue: complex
    time_constant: float
    frequency: float
    is_controllable: bool | None
    is_stable: bool | None
    gain: float
    reason: str
    left_eigenvector: Complex[np.ndarray, " state"] | None
    states: dict[str, float]
    regions: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words, for JSON; None where a number is not finite."""
        return {
            "eigenvalue": [self.eigenvalue.real, self.eigenvalue.imag],
            "time_constant": self.time_constant if math.isfinite(self.time_constant) else None,
            "frequency": self.frequency,
            "is_controllable": self.is_controllable,
            "is_stable": self.is_stable,
            "gain": self.gain if math.isfinite(self.gain) else None,
            "reason": self.reason,
            "regions": {name: share for name, share in self.regions.items() if share >= 0.01},
        }


def list_modes(
    linear: LinearSystem,
    found: Decomposition,
    pair: Pair,
    names: Names,
    kinds: dict[str, tuple[str, ...]],
    *,
    dual: bool,
) -> tuple[Mode, ...]:
    """All modes, what is out of reach first, then by falling real part."""
    modes = []
    for block in found.blocks:
        seen = _as_seen(linear, block, dual=dual) if linear.latent else None
        for k in range(block.size):
            left = block.left[:, k]
            share = np.abs(left) ** 2 if seen is None else seen[0][k]
            gain = float(np.linalg.norm(left.conj() @ pair.B)) if seen is None else seen[1][k]
            owners = names.states if seen is None else linear.output_names
            places = names.regions if seen is None else regions_of(linear.outputs)
            value = complex(block.eigenvalues[k])
            rate, frequency = _rates(value, linear.step)
            is_stable = _is_stable(value, float(block.noise[k]), linear.step)
            modes.append(
                Mode(
                    eigenvalue=value,
                    time_constant=math.inf if is_stable is None else 1 / abs(rate),
                    frequency=frequency,
                    is_controllable=block.is_reached[k],
                    is_stable=is_stable,
                    gain=gain,
                    reason="" if linear.latent else kinds[block.kind][k],
                    left_eigenvector=None if linear.latent else left,
                    states=_shares(owners, share),
                    regions=_shares(places, share),
                )
            )
    order = {False: 0, None: 1, True: 2}
    growth = abs if linear.step is not None else lambda value: value.real
    return tuple(
        sorted(modes, key=lambda m: (order[m.is_controllable], -growth(m.eigenvalue), -m.frequency))
    )


def _rates(value: complex, step: float | None) -> tuple[float, float]:
    """Rate of growth and frequency, per time unit."""
    if step is None:
        return value.real, abs(value.imag) / (2 * math.pi)
    if value == 0:
        return -math.inf, 0.0
    turn = abs(math.atan2(value.imag, value.real))
    return math.log(abs(value)) / step, turn / (2 * math.pi * step)


def _is_stable(value: complex, noise: float, step: float | None) -> bool | None:
    excess = value.real if step is None else abs(value) - 1.0
    return None if abs(excess) <= noise else excess < 0


def _shares(names: tuple[str, ...], share: np.ndarray) -> dict[str, float]:
    """Shares by name, those of one name summed, largest first."""
    total = float(share.sum())
    summed: dict[str, float] = {}
    for name, value in zip(names, share.tolist(), strict=True):
        summed[name] = summed.get(name, 0.0) + (value / total if total else 0.0)
    ordered = sorted(summed.items(), key=lambda item: -item[1])
    return {name: value for name, value in ordered if value >= 1e-6}


def _as_seen(
    linear: LinearSystem, block: Block, *, dual: bool
) -> tuple[list[np.ndarray], list[float]]:
    """Of each mode of a learned system: shares of the outputs, and its part in the transfer."""
    A, B, C = (m.detach().double().cpu().numpy() for m in (linear.A, linear.B, linear.C))
    shares, gains = [], []
    for value in block.eigenvalues:
        pencil = A - value * np.eye(len(A))
        left, _, right = np.linalg.svd(pencil)
        w, v = left[:, -1].conj(), right[-1].conj()
        shown, moved = np.abs(C @ v), float(np.linalg.norm(w @ B))
        overlap = abs(w @ v)
        shares.append(shown**2)
        gains.append(float(np.linalg.norm(shown)) * moved / overlap if overlap else math.inf)
    return shares, gains


def regions_of(quantities: tuple[Quantity, ...]) -> tuple[str, ...]:
    """The region of each state: its label, or its own name where it has none."""
    return tuple(label for q in quantities for label in (q.labels or (q.name,)))
