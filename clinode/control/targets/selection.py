"""Which few inputs reach the most: greedy and exact sets, and scores that share one effort.

Sets are compared by log det(W_S + e I), W_S the sum of their Gramians over the horizon. It is
submodular in the set (Summers, Cortesi & Lygeros 2016, IEEE Trans. Control Netw. Syst. 3:91-101),
so the greedy set has at least 1 - 1/e of the best one's gain. e, a share of the mean eigenvalue of
the Gramian of all inputs, says what counts as reached: directions below it add nothing.

Scores share a unit of effort p between all inputs, W(p) = sum p_i W_i: the volumetric score
maximizes log det W(p), the average energy score minimizes trace W(p)^-1 (Sato & Terasaki 2024,
arXiv:2408.03023). Both are convex, and how far from the optimum the answer may be is known.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from clinode.control.energy.transfers import horizon_of, matrix_of
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, positions

from .input_factors import NODES, ROOTS, input_factors

MOST_SETS = 300_000  # that an exact search compares: about a minute
SHARPNESS = 1e-12  # of a factor's columns; its squares are far below any regularization
MOST_ITERATIONS = 20_000
LEAST_FLOOR = 1e-12  # of a regularization: Gramians below 1e-16 of the largest are rounding
MOST_PIECES = 64  # of the horizon of a symmetric flow; beyond that doubling takes over


@dataclass(frozen=True)
class InputSet:
    """A set of inputs and what each added.

    Attributes:
        inputs: Names, of a greedy set in the order chosen.
        gains: log det(W_S + e I) - log det(e I) after each.
        regularization: e, in the units of the Gramian.
        guarantee: What is known about how near the best set is.
    """

    inputs: tuple[str, ...]
    gains: tuple[float, ...]
    regularization: float
    guarantee: str

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class InputScores:
    """One score an input; they are not negative and sum to 1.

    Attributes:
        inputs: Names.
        values: Scores.
        objective: log det W(p), or trace W(p)^-1.
        gap: How far the objective may be from the optimum, proven.
        verdict: "converged", or "not converged" where iterations ended first.
    """

    inputs: tuple[str, ...]
    values: Float[np.ndarray, " input"]
    objective: float
    gap: float
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words."""
        return {**self.__dict__, "values": self.values.tolist()}

    def to_pandas(self) -> pd.DataFrame:
        """One row an input, the highest score first."""
        table = pd.DataFrame({"input": self.inputs, "score": self.values})
        return table.sort_values("score", ascending=False, ignore_index=True)


def greedy_inputs(
    linear: LinearSystem,
    n: int,
    horizon: float | int = 1.0,
    candidates: Sequence[str] | None = None,
    *,
    regularization: float = 1e-6,
) -> InputSet:
    """n inputs, each the one that adds most to those before it.

    Args:
        linear: Of a learned system, what counts as reached is asked of its outputs.
        n: How many.
        horizon: In time units; math.inf for a stable system.
        candidates: Names of inputs or blocks to choose from; all by default.
        regularization: e as a share of the mean eigenvalue of the Gramian of all candidates.

    Raises:
        ArgumentError: n below 1 or above the number of candidates, an unknown name, an impossible
            horizon, a regularization outside (0, 1).
    """
    names, factors, floor = _prepared(linear, horizon, candidates, regularization)
    _check_count(n, names)
    seen, chosen = np.zeros((factors.shape[1], 0)), []
    own = np.einsum("ikq,ikr->iqr", factors, factors)
    for _ in range(n):
        gain = _gains(factors, own, seen, floor)
        gain[chosen] = -math.inf
        best = int(gain.argmax())
        chosen.append(best)
        seen = np.concatenate([seen, factors[best]], axis=1)
    return InputSet(
        tuple(names[i] for i in chosen),
        _gains_along(factors, chosen, floor),
        floor,
        "at least 63 % (1 - 1/e) of the gain of the best set: the gain is submodular",
    )


def best_inputs(
    linear: LinearSystem,
    n: int,
    horizon: float | int = 1.0,
    candidates: Sequence[str] | None = None,
    *,
    regularization: float = 1e-6,
) -> InputSet:
    """The n inputs with the largest gain of all sets of n, by comparing every one.

    Raises:
        ArgumentError: As `greedy_inputs`; more sets than can be compared.
    """
    names, factors, floor = _prepared(linear, horizon, candidates, regularization)
    _check_count(n, names)
    n_sets = math.comb(len(names), n)
    if n_sets > MOST_SETS:
        raise ArgumentError(
            f"{n_sets} sets of {n} of {len(names)} inputs are too many to compare",
            fix=f"greedy_inputs, or candidates that make no more than {MOST_SETS} sets",
        )
    gramians = np.einsum("ikq,ilq->ikl", factors, factors)
    size = gramians.shape[1]
    best, best_gain = (), -math.inf
    sets = itertools.combinations(range(len(names)), n)
    while batch := list(itertools.islice(sets, max(1, 2_000_000 // size**2))):
        total = gramians[np.array(batch)].sum(axis=1) / floor + np.eye(size)
        found = np.linalg.slogdet(total)[1]
        if found.max() > best_gain:
            best, best_gain = batch[int(found.argmax())], float(found.max())
    words = f"the best of {n_sets} sets, all compared"
    gains = _gains_along(factors, best, floor)
    return InputSet(tuple(names[i] for i in best), gains, floor, words)


def volumetric_scores(
    linear: LinearSystem,
    horizon: float | int = 1.0,
    candidates: Sequence[str] | None = None,
    *,
    gap: float = 1e-6,
) -> InputScores:
    """Volumetric controllability scores (VCS): p on the simplex with the largest log det W(p).

    By the multiplicative algorithm of optimal design (Silvey, Titterington & Torsney 1978, Commun.
    Stat. 7:1379-1389), which never lowers log det; at the optimum no trace W(p)^-1 W_i exceeds the
    number of states, and by how much one does bounds what is missing (Kiefer & Wolfowitz 1960).

    Args:
        linear: Of a learned system, W is that of its outputs.
        horizon: In time units; math.inf for a stable system.
        candidates: Names of inputs or blocks; all by default.
        gap: Of log det, at which to stop.

    Raises:
        ArgumentError: An unknown name, an impossible horizon; inputs that together leave a
            direction unreached, or reach it so weakly that float64 cannot tell.
    """
    return _scores(linear, horizon, candidates, gap, power=1)


def average_energy_scores(
    linear: LinearSystem,
    horizon: float | int = 1.0,
    candidates: Sequence[str] | None = None,
    *,
    gap: float = 1e-6,
) -> InputScores:
    """Average energy controllability scores (AECS): p with the smallest trace W(p)^-1.

    Arguments and errors as in `volumetric_scores`; `gap` is relative to the trace.
    """
    return _scores(linear, horizon, candidates, gap, power=2)


def _prepared(
    linear: LinearSystem,
    horizon: float | int,
    candidates: Sequence[str] | None,
    regularization: float,
) -> tuple[list[str], np.ndarray, float]:
    """Names, factors, and the floor e."""
    if not LEAST_FLOOR <= regularization < 1:
        raise ArgumentError(
            f"regularization must lie between {LEAST_FLOOR:.0e} and 1, got {regularization}",
            fix="float64 tells no smaller share of a Gramian",
        )
    names, factors = _candidate_factors(linear, horizon, candidates)
    if not names:
        raise ArgumentError("there are no candidates", fix="name inputs of the system")
    floor = regularization * float((factors**2).sum()) / factors.shape[1]
    if floor == 0:
        raise ArgumentError("no candidate moves anything within the horizon")
    return names, factors, floor


def _candidate_factors(
    linear: LinearSystem, horizon: float | int, candidates: Sequence[str] | None
) -> tuple[list[str], np.ndarray]:
    A, B = matrix_of(linear, "A"), matrix_of(linear, "B")
    places = input_positions(linear, candidates)
    T, n_steps = horizon_of(linear, A, horizon)
    B = B[:, places]
    if linear.latent:
        factors = input_factors(A, B, T, matrix_of(linear, "C"), n_steps)
    else:
        factors = _symmetric_factors(A, B, T) if n_steps is None else None
        if factors is None:
            factors = input_factors(A, B, T, None, n_steps)
    with np.errstate(over="ignore", invalid="ignore"):
        whole = float((factors**2).sum())
    if not math.isfinite(whole):
        raise ArgumentError(
            "the Gramian of the inputs exceeds float64 over this horizon",
            fix="a shorter horizon, or smaller units of the states",
        )
    return [linear.input_names[i] for i in places], _sharpened(factors)


def input_positions(linear: LinearSystem, names: Sequence[str] | None) -> list[int]:
    """Positions of inputs by name or block, in the order asked for; all where names is None."""
    if names is None:
        return list(range(linear.n_inputs))
    chosen = [names] if isinstance(names, str) else names
    places = [i for name in chosen for i in positions(linear.inputs, name, "input")]
    return list(dict.fromkeys(places))


def _symmetric_factors(A: np.ndarray, B: np.ndarray, T: float) -> np.ndarray | None:
    """Factors in the coordinates of the modes, where the flow is a number a mode.

    None where A is not symmetric, or the horizon too long for its fastest mode.
    """
    if not (math.isfinite(T) and np.array_equal(A, A.T)):
        return None
    w, V = np.linalg.eigh(A)
    if np.abs(w).max(initial=0.0) * T > MOST_PIECES:
        return None
    pieces = max(1, math.ceil(np.abs(w).max(initial=0.0) * T))
    starts = np.arange(pieces)[:, None]
    times = ((starts + (NODES + 1) / 2) * (T / pieces)).ravel()
    roots = np.tile(np.sqrt(ROOTS * T / pieces / 2), pieces)
    kernel = np.exp(np.outer(w, times)) * roots
    U, sizes, _ = np.linalg.svd(kernel, full_matrices=False)
    kept = sizes > SHARPNESS * sizes.max(initial=0.0)
    return (V.T @ B).T[:, :, None] * (U[:, kept] * sizes[kept])


def _sharpened(factors: np.ndarray) -> np.ndarray:
    """In as few columns as carry them."""
    flat = factors.reshape(-1, factors.shape[2])
    _, sizes, V = np.linalg.svd(np.linalg.qr(flat, mode="r"), full_matrices=False)
    kept = sizes > SHARPNESS * sizes.max(initial=0.0)
    return factors @ V[kept].T


def _gains(factors: np.ndarray, own: np.ndarray, seen: np.ndarray, floor: float) -> np.ndarray:
    """log det of I + F_i' (W_S + e I)^-1 F_i for each candidate, W_S = seen seen'."""
    left = own
    if seen.shape[1]:
        U, sizes, _ = np.linalg.svd(seen, full_matrices=False)
        # (W_S + e I)^-1 = (I - U diag(s^2 / (s^2 + e)) U') / e
        inside = np.sqrt(sizes**2 / (sizes**2 + floor))[:, None] * U.T
        moved = inside @ factors  # (candidate, direction, rank)
        left = own - moved.transpose(0, 2, 1) @ moved
    return np.linalg.slogdet(left / floor + np.eye(own.shape[1]))[1]


def _gains_along(factors: np.ndarray, chosen: Sequence[int], floor: float) -> tuple[float, ...]:
    """Gains of the first input, the first two, ...: from singular values, whose squares are small
    numbers that a Gramian would lose."""
    gains = []
    for k in range(1, len(chosen) + 1):
        seen = np.concatenate([factors[i] for i in chosen[:k]], axis=1)
        sizes = np.linalg.svd(seen, compute_uv=False)
        gains.append(float(np.log1p(sizes**2 / floor).sum()))
    return tuple(gains)


def _scores(
    linear: LinearSystem,
    horizon: float | int,
    candidates: Sequence[str] | None,
    gap: float,
    power: int,
) -> InputScores:
    names, factors = _candidate_factors(linear, horizon, candidates)
    if not names:
        raise ArgumentError("there are no candidates", fix="name inputs of the system")
    if not gap > 0:
        raise ArgumentError(f"gap must be positive, got {gap}")
    m, n, r = factors.shape
    side_by_side = factors.transpose(1, 0, 2).reshape(n, m * r)
    p, left, objective = np.full(m, 1 / m), math.inf, math.nan
    for _ in range(MOST_ITERATIONS):
        total = (side_by_side * np.repeat(p, r)) @ side_by_side.T
        sizes, U = np.linalg.eigh(total)
        if not sizes[0] > 1e-12 * sizes[-1]:
            raise ArgumentError(
                "the inputs together leave a direction unreached, or reach it too weakly to tell",
                fix="more candidates, a longer horizon, or greedy_inputs, which can stand it",
            )
        weighted = (U / sizes ** (power / 2)).T @ side_by_side
        gains = (weighted**2).sum(axis=0).reshape(m, r).sum(axis=1)  # trace W^-power W_i
        objective = float(np.log(sizes).sum() if power == 1 else (1 / sizes).sum())
        mean = n if power == 1 else objective
        left = float(gains.max()) - mean  # the optimum is no further away than this
        if left <= gap * (1 if power == 1 else objective):
            break
        p = p * (gains / mean if power == 1 else np.sqrt(gains / mean))
        p /= p.sum()
    met = left <= gap * (1 if power == 1 else objective)
    verdict = "converged" if met else f"not converged in {MOST_ITERATIONS} iterations"
    return InputScores(tuple(names), p, objective, left, verdict)


def _check_count(n: int, names: Sequence[str]) -> None:
    if not 1 <= n <= len(names):
        raise ArgumentError(f"n must be 1 to {len(names)}, the number of candidates, got {n}")
