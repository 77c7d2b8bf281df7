"""Periodic orbits as piecewise polynomials: orthogonal collocation on an adaptive mesh.

On each of N intervals of normalised time the orbit is a polynomial of degree 4, given at 5 Lobatto
nodes (ends shared) and satisfying x' = T F(x, p) at the 4 Gauss points, so that at mesh points it
is accurate to order 8 (de Boor & Swartz 1973, SIAM J. Numer. Anal. 10:582). Newton's matrix is
solved by condensation: the nodes inside an interval first, then mesh points pairwise by orthogonal
transformations. What remains, A x(0) + B x(1) = 0 for the variations, has the Floquet multipliers
as its generalised eigenvalues without a product of transition matrices ever being formed, which
keeps those near 1 exact beside others of 1e7 (Fairgrieve & Jepson 1991, SIAM J. Numer. Anal.
28:1446). Everything is in scaled variables.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from .field import Eigenvalues, ScaledField

DEGREE = 4
_HALF = np.sqrt(3 / 7)
LOBATTO = (np.array([-1.0, -_HALF, 0.0, _HALF, 1.0]) + 1) / 2
LOBATTO_WEIGHTS = np.array([1 / 20, 49 / 180, 16 / 45, 49 / 180, 1 / 20])
GAUSS = (np.polynomial.legendre.leggauss(DEGREE)[0] + 1) / 2


def _lagrange(at: np.ndarray, derivative: int) -> np.ndarray:
    """(point, node): what takes values at the Lobatto nodes to a derivative at points."""
    rows = []
    for k in range(DEGREE + 1):
        others = np.delete(LOBATTO, k)
        polynomial = np.poly1d(others, r=True) / np.prod(LOBATTO[k] - others)
        rows.append(np.polyval(polynomial.deriv(derivative) if derivative else polynomial, at))
    return np.stack(rows, axis=-1)


VALUE = _lagrange(GAUSS, 0)
SLOPE = _lagrange(GAUSS, 1)
NODE_SLOPE = _lagrange(LOBATTO, 1)
TOP_DERIVATIVE = _lagrange(np.array([0.5]), DEGREE)[0]  # constant over an interval


@dataclass(frozen=True, eq=False)
class Orbit:
    """A closed curve on a mesh.

    Attributes:
        mesh: (interval + 1,), from 0 to 1.
        nodes: (4 intervals + 1, state), scaled.
        winding: (state,), nodes[-1] - nodes[0]: whole turns of angles, else zero.
    """

    mesh: np.ndarray
    nodes: np.ndarray
    winding: np.ndarray

    @property
    def pieces(self) -> np.ndarray:
        """(interval, node, state), ends repeated."""
        return self.nodes[node_index(len(self.mesh) - 1)]

    @property
    def phases(self) -> np.ndarray:
        """Normalised times of the nodes."""
        widths = np.diff(self.mesh)
        inner = self.mesh[:-1, None] + widths[:, None] * LOBATTO[:-1]
        return np.append(inner.ravel(), 1.0)

    def at(self, phases: np.ndarray) -> np.ndarray:
        """States at phases of [0, 1]."""
        i = np.clip(np.searchsorted(self.mesh, phases, side="right") - 1, 0, len(self.mesh) - 2)
        inside = (phases - self.mesh[i]) / (self.mesh[i + 1] - self.mesh[i])
        return np.einsum("pj,pjs->ps", _lagrange(inside, 0), self.pieces[i])

    def on(self, mesh: np.ndarray) -> "Orbit":
        """The same curve on another mesh."""
        moved = Orbit(mesh, np.empty((DEGREE * (len(mesh) - 1) + 1, 0)), self.winding)
        return Orbit(mesh, self.at(moved.phases), self.winding)


def node_index(n_intervals: int) -> np.ndarray:
    """(interval, node): which row of the nodes."""
    return DEGREE * np.arange(n_intervals)[:, None] + np.arange(DEGREE + 1)


def node_weights(mesh: np.ndarray) -> np.ndarray:
    """Quadrature weights of the nodes over [0, 1]."""
    weights = np.zeros(DEGREE * (len(mesh) - 1) + 1)
    np.add.at(weights, node_index(len(mesh) - 1), np.diff(mesh)[:, None] * LOBATTO_WEIGHTS)
    return weights


def phase_functional(orbit: Orbit) -> np.ndarray:
    """(node, state): its product with an orbit x is the integral of x . (this orbit)'."""
    slopes = LOBATTO_WEIGHTS[:, None] * np.einsum("jk,iks->ijs", NODE_SLOPE, orbit.pieces)
    functional = np.zeros_like(orbit.nodes)
    np.add.at(functional, node_index(len(orbit.mesh) - 1), slopes)
    return functional


def adapted_mesh(orbit: Orbit, n_intervals: int, *, uniform: float = 0.1) -> np.ndarray:
    """A mesh that equidistributes the error: the fifth root of the fifth derivative.

    That derivative comes from the jumps of the fourth one between intervals, periodically. Part of
    the intervals is spread evenly.
    """
    widths = np.diff(orbit.mesh)
    top = np.einsum("j,ijs->is", TOP_DERIVATIVE, orbit.pieces) / widths[:, None] ** DEGREE
    between = (widths + np.roll(widths, 1)) / 2
    jumps = np.linalg.norm(top - np.roll(top, 1, axis=0), axis=1) / between
    monitor = ((jumps + np.roll(jumps, -1)) / 2) ** (1 / (DEGREE + 1))
    total = (monitor * widths).sum()
    density = uniform + (1 - uniform) * (monitor / total if total > 0 else 1.0)
    passed = np.append(0.0, np.cumsum(density * widths))
    return np.interp(np.linspace(0, 1, n_intervals + 1), passed / passed[-1], orbit.mesh)


@dataclass(frozen=True, eq=False)
class Linearization:
    """Newton's equations at an orbit, reduced to its two ends.

    For variations theta = (x(0), x(1), log T, p) the interior follows as `spread @ theta + offset`,
    and `ends @ theta + rest = 0` must hold.

    Attributes:
        spread: (node, state, 2 state + 1 + parameter).
        offset: (node, state).
        ends: (state, 2 state + 1 + parameter).
        rest: (state,).
        speed: (state,), T x' at phase 0.
        residual: Largest defect at a Gauss point, relative to the largest speed.
    """

    spread: np.ndarray
    offset: np.ndarray
    ends: np.ndarray
    rest: np.ndarray
    speed: np.ndarray
    residual: float


def linearize_orbit(
    field: ScaledField, orbit: Orbit, period: float, p: np.ndarray
) -> Linearization:
    """Newton's equations of collocation at an orbit, condensed.

    Args:
        field: With as many parameters as p has.
        orbit: Where.
        period: T.
        p: (parameter,), scaled.
    """
    pieces, widths = orbit.pieces, np.diff(orbit.mesh)
    n = pieces.shape[-1]
    x = np.einsum("gj,ijs->igs", VALUE, pieces)
    z = np.concatenate([x, np.broadcast_to(p, (*x.shape[:-1], len(p)))], axis=-1)
    value, jacobian = field.jacobian(z)
    time = widths * period
    defect = np.einsum("gj,ijs->igs", SLOPE, pieces) - time[:, None, None] * value
    pushed = np.concatenate([value[..., None], jacobian[..., n:]], axis=-1)
    extra = np.concatenate([-time[:, None, None, None] * pushed, defect[..., None]], axis=-1)
    maps = _interval_maps(jacobian[..., :n], time, extra)
    levels, (a, b, c) = _condense(maps[:, -1, :, :n], maps[:, -1, :, n:])
    corners = _expand(levels, len(widths), n, c.shape[-1])
    nodes = _interior(maps, corners)
    size = np.abs(value).max() * period
    return Linearization(
        spread=nodes[..., :-1],
        offset=nodes[..., -1],
        ends=np.hstack([a, b, c[:, :-1]]),
        rest=c[:, -1],
        speed=period * field.value(np.append(orbit.nodes[0], p)),
        residual=float(np.abs(defect / widths[:, None, None]).max() / size) if size else np.inf,
    )


def adjoint_orbit(field: ScaledField, orbit: Orbit, period: float, p: np.ndarray) -> np.ndarray:
    """The periodic solution of z' = -T J' z at the nodes (node, state), with z . x' = T."""
    pieces, widths = orbit.pieces, np.diff(orbit.mesh)
    n = pieces.shape[-1]
    x = np.einsum("gj,ijs->igs", VALUE, pieces)
    z = np.concatenate([x, np.broadcast_to(p, (*x.shape[:-1], len(p)))], axis=-1)
    _, jacobian = field.jacobian(z)
    back = -np.swapaxes(jacobian[..., :n], -1, -2)
    maps = _interval_maps(back, widths * period, np.zeros((*back.shape[:-1], 0)))
    levels, (a, b, _) = _condense(maps[:, -1, :, :n], maps[:, -1, :, n:])
    nodes = _interior(maps, _expand(levels, len(widths), n, 0))
    null = np.linalg.svd(a + b)[2][-1]
    solution = nodes @ np.concatenate([null, null])
    velocity = field.value(np.append(orbit.nodes[0], p))
    return solution / (solution[0] @ velocity)


def _interval_maps(rates: np.ndarray, time: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Nodes of each interval by its first one, for y' = rates y + extra columns.

    Args:
        rates: (interval, gauss, state, state).
        time: (interval,), widths in time.
        extra: (interval, gauss, state, column), moved to the left-hand side.

    Returns:
        (interval, node - 1, state, state + column).
    """
    n_intervals, n = len(rates), rates.shape[-1]
    matrix = np.einsum("gj,st->gsjt", SLOPE, np.eye(n)) - np.einsum(
        "i,gj,igst->igsjt", time, VALUE, rates
    )
    matrix = matrix.reshape(n_intervals, DEGREE * n, (DEGREE + 1) * n)
    known = np.concatenate(
        [matrix[:, :, :n], extra.reshape(n_intervals, DEGREE * n, extra.shape[-1])], axis=-1
    )
    return np.linalg.solve(matrix[:, :, n:], -known).reshape(n_intervals, DEGREE, n, -1)


def _interior(maps: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(node, state, column): all nodes by the ends, from the mesh points by the ends."""
    n = maps.shape[-2]
    within = np.einsum("ijst,itc->ijsc", maps[..., :n], corners[:-1])
    within[..., 2 * n :] += maps[..., n:]
    within[:, -1] = corners[1:]
    return np.concatenate([corners[:1], within.reshape(-1, n, within.shape[-1])])


def _condense(flows: np.ndarray, pushes: np.ndarray):
    """Eliminate the middle points of flow_i x_i - x_{i+1} + push_i = 0, pairwise, orthogonally.

    Returns:
        For each level what gives the points eliminated there, and the one equation left.
    """
    a, b, c, levels = flows, -np.broadcast_to(np.eye(flows.shape[-1]), flows.shape), pushes, []
    while len(a) > 1:
        pairs = len(a) // 2
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        n = a.shape[-1]
        q, r = np.linalg.qr(np.concatenate([b[first], a[second]], axis=1), mode="complete")
        top, bottom = q[:, :n], q[:, n:]  # rows of the first and second equation of each pair
        left = np.swapaxes(top, 1, 2) @ a[first]
        right = np.swapaxes(bottom, 1, 2) @ b[second]
        push = np.swapaxes(top, 1, 2) @ c[first] + np.swapaxes(bottom, 1, 2) @ c[second]
        levels.append((r[:, :n], left[:, :n], right[:, :n], push[:, :n], len(a)))
        odd = slice(2 * pairs, None)
        a = np.concatenate([left[:, n:], a[odd]])
        b = np.concatenate([right[:, n:], b[odd]])
        c = np.concatenate([push[:, n:], c[odd]])
    return levels, (a[0], b[0], c[0])


def _expand(levels, n_intervals: int, n: int, n_extra: int) -> np.ndarray:
    """(point, state, 2 state + extra): every mesh point by the two ends and the extra columns."""
    zero = np.zeros((n, n_extra))
    first = np.hstack([np.eye(n), np.zeros((n, n)), zero])
    last = np.hstack([np.zeros((n, n)), np.eye(n), zero])
    points = np.stack([first, last])
    for r, left, right, push, count in reversed(levels):
        pairs = len(r)
        known = left @ points[:pairs] + right @ points[1 : pairs + 1]
        known[..., 2 * n :] += push
        middle = -np.linalg.solve(r, known)
        finer = np.empty((count + 1, n, 2 * n + n_extra))
        finer[0 : 2 * pairs + 1 : 2], finer[1 : 2 * pairs : 2] = points[: pairs + 1], middle
        finer[2 * pairs + 1 :] = points[pairs + 1 :]
        points = finer
    return points


def multipliers(ends: np.ndarray, direction: np.ndarray) -> tuple[complex, Eigenvalues]:
    """Floquet multipliers: the one nearest 1, and the others with the flow's own taken out.

    Args:
        ends: (state, at least 2 state), A and B of A x(0) + B x(1) = 0.
        direction: (state,), of the flow at phase 0: the eigenvector of the trivial multiplier.
            Taking it out keeps the others exact where one of them is 1 as well, at a fold.
    """
    n = len(direction)
    a, b = ends[:, :n], -ends[:, n : 2 * n]
    every = _pencil(a, b)
    nearest = complex(every[np.argmin(np.abs(every - 1))])
    if n == 1:
        return nearest, np.empty(0, dtype=np.complex128)
    basis = np.linalg.qr(direction[:, None], mode="complete")[0]
    rotation = np.linalg.qr((b @ direction)[:, None], mode="complete")[0]
    others = _pencil((rotation.T @ a @ basis)[1:, 1:], (rotation.T @ b @ basis)[1:, 1:])
    return nearest, others[np.lexsort((-others.imag, -np.abs(others)))]


def _pencil(a: np.ndarray, b: np.ndarray) -> Eigenvalues:
    """Generalised eigenvalues of a v = mu b v."""
    return np.asarray(scipy.linalg.eigvals(a, b), dtype=np.complex128)
