"""Folds and Hopf points as regular zeros of bordered systems, and what their normal forms say.

At a fold the Jacobian J has rank one less; bordered by a column b and a row c it is regular, and
the g in [J b; c' 0] [v; g] = [0; 1] is a smooth function that vanishes exactly at the fold. At a
Hopf point J^2 + w^2 has rank two less, and G in the same construction with two borders is 2 x 2;
w^2 < 0 then is a neutral saddle, w = 0 a Bogdanov-Takens point, both regular too (Govaerts 2000,
Numerical Methods for Bifurcations of Dynamical Equilibria). Everything is in scaled variables
y = (x, parameters), everything is solved by dense algebra on autodiff derivatives.
"""

import numpy as np
import torch
from torch import Tensor

from .field import Eigenvalues, ScaledField


class FoldEquations:
    """F(y) = 0 and g(y) = 0, with borders that fit near where they were made."""

    def __init__(self, field: ScaledField, y: np.ndarray):
        self.field, self.n = field, field.n_states
        _, jacobian = field.jacobian(y)
        left, _, right = np.linalg.svd(jacobian[:, : self.n])
        self.b, self.c = left[:, -1], right[-1]

    def __call__(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residual (n + 1,) and its Jacobian (n + 1, n + parameters)."""
        value, jacobian = self.field.jacobian(y)
        self.v, self.w, g = self._vectors(jacobian[:, : self.n])
        slope = -self.field.gradient(y, self.w, pad(self.v, len(y)))
        return np.append(value, g), np.vstack([jacobian, slope])

    def live(self, y: np.ndarray) -> Tensor:
        """The residual with the graph of the constants; call after the equations at y."""
        jacobian = self.field.live_jacobian(y)[:, : self.n]
        g = -torch.tensor(self.w) @ jacobian @ torch.tensor(self.v)
        return torch.cat([self.field.live(y), g.reshape(1)])

    def _vectors(self, J: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        matrix = np.block([[J, self.b[:, None]], [self.c[None], np.zeros((1, 1))]])
        unit = np.append(np.zeros(self.n), 1.0)
        right, left = np.linalg.solve(matrix, unit), np.linalg.solve(matrix.T, unit)
        return right[:-1], left[:-1], float(right[-1])


class HopfEquations:
    """F(y) = 0 and two combinations of G(y, k) = 0 for unknowns (y, k), w^2 = k rate^2.

    Args:
        field: The field.
        y: Where the borders shall fit.
        omega_squared: w^2 there.
        rate: By default |w|, and the size of J where that is zero.
    """

    def __init__(
        self, field: ScaledField, y: np.ndarray, omega_squared: float, *, rate: float | None = None
    ):
        self.field, self.n = field, field.n_states
        _, jacobian = field.jacobian(y)
        J = jacobian[:, : self.n]
        own = float(np.sqrt(abs(omega_squared))) or float(np.linalg.norm(J, 2))
        self.rate = own if rate is None else rate
        k = omega_squared / self.rate**2
        left, _, right = np.linalg.svd((J / self.rate) @ (J / self.rate) + k * np.eye(self.n))
        self.B, self.C = left[:, -2:], right[-2:].T
        self.mix = np.eye(4)[:2]
        # The four entries of G vanish together; two combinations of them have full rank.
        _, full = self._all(np.append(y, k))
        tangents = np.linalg.svd(full[: self.n])[2][self.n :].T
        self.mix = np.linalg.svd(full[self.n :] @ tangents)[0][:, :2].T

    def __call__(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residual (n + 2,) and its Jacobian (n + 2, n + parameters + 1)."""
        residual, jacobian = self._all(y)
        value = np.append(residual[: self.n], self.mix @ residual[self.n :])
        return value, np.vstack([jacobian[: self.n], self.mix @ jacobian[self.n :]])

    def live(self, y: np.ndarray) -> Tensor:
        """The residual with the graph of the constants; call after the equations at y."""
        J = self.field.live_jacobian(y[:-1])[:, : self.n] / self.rate
        square = J @ J + y[-1] * torch.eye(self.n, dtype=J.dtype)
        G = -(torch.tensor(self.W).T @ square @ torch.tensor(self.V)).flatten()
        return torch.cat([self.field.live(y[:-1]), torch.tensor(self.mix) @ G])

    def _all(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All n + 4 equations."""
        z, k = y[:-1], y[-1]
        value, jacobian = self.field.jacobian(z)
        J = jacobian[:, : self.n] / self.rate
        square = J @ J + k * np.eye(self.n)
        matrix = np.block([[square, self.B], [self.C.T, np.zeros((2, 2))]])
        unit = np.vstack([np.zeros((self.n, 2)), np.eye(2)])
        right, left = np.linalg.solve(matrix, unit), np.linalg.solve(matrix.T, unit)
        self.V, self.W, G = right[: self.n], left[: self.n], right[self.n :]
        # d(w' J J v) = w' dJ (J v) + (J' w)' dJ v, for the four pairs of columns
        w, v = np.repeat(self.W.T, 2, axis=0), np.tile(self.V.T, (2, 1))
        lefts, rights = np.concatenate([w, w @ J]), np.concatenate([v @ J.T, v])
        parts = self.field.gradient(z, lefts / self.rate, pad(rights, len(z)))
        slopes = np.hstack([-(parts[:4] + parts[4:]), -(w * v).sum(axis=1, keepdims=True)])
        below = np.hstack([jacobian, np.zeros((self.n, 1))])
        return np.append(value, G.flatten()), np.vstack([below, slopes])


class BranchPointEquations:
    """F(y) + k w = 0, F_y' w = 0, w . w = 1 for unknowns (y, k, w): k = 0 at a branch point."""

    def __init__(self, field: ScaledField, y: np.ndarray):
        self.field, self.n = field, field.n_states
        _, jacobian = field.jacobian(y)
        self.start = np.concatenate([y, [0.0], np.linalg.svd(jacobian)[0][:, -1]])

    def __call__(self, unknown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residual and Jacobian, square: 2 n + 2 of each."""
        n = self.n
        y, k, w = unknown[: n + 1], unknown[n + 1], unknown[n + 2 :]
        value, jacobian = self.field.jacobian(y)
        curvature = self.field.gradient(y, w, np.eye(n + 1))
        residual = np.concatenate([value + k * w, jacobian.T @ w, [w @ w - 1.0]])
        matrix = np.block(
            [
                [jacobian, w[:, None], k * np.eye(n)],
                [curvature, np.zeros((n + 1, 1)), jacobian.T],
                [np.zeros((1, n + 2)), 2 * w[None]],
            ]
        )
        return residual, matrix


def newton(equations, y: np.ndarray, *, max_iterations: int = 12) -> np.ndarray | None:
    """The zero of as many equations as unknowns near y; None if it is not reached."""
    last = np.inf
    for _ in range(max_iterations):
        try:
            residual, jacobian = equations(y)
            step = np.linalg.solve(jacobian, -residual)
        except np.linalg.LinAlgError:
            return None
        length = np.abs(step).max()
        if not np.isfinite(length) or length > 1.0:
            return None
        y = y + step
        if length < 1e-12 or (length < 1e-9 and length > 0.5 * last):
            equations(y)
            return y
        last = length
    return None


def live_solution(equations, y: np.ndarray, scaled: ScaledField) -> Tensor:
    """The solution of as many equations as unknowns, differentiable once by the constants."""
    solution = torch.tensor(y)
    if not scaled.field.is_live:
        return solution
    _, jacobian = equations(y)
    residual = equations.live(y)
    return solution - torch.linalg.solve(torch.tensor(jacobian), residual - residual.detach())


def pad(v: np.ndarray, width: int) -> np.ndarray:
    """Directions in the states, as directions in y: zeros for the parameters behind."""
    return np.concatenate([v, np.zeros((*v.shape[:-1], width - v.shape[-1]))], axis=-1)


def branch_directions(field: ScaledField, y: np.ndarray) -> np.ndarray:
    """Unit tangents (direction, unknown) of the two branches through a branch point.

    They solve w . B(t, t) = 0 in the two-dimensional null space of F_y; none where it has no real
    solutions, as where an isola is a point.
    """
    _, jacobian = field.jacobian(y)
    left, _, right = np.linalg.svd(jacobian)
    w, plane = left[:, -1], right[-2:]
    a = np.stack([field.gradient(y, w, plane[i]) @ plane.T for i in range(2)])
    values, axes = np.linalg.eigh((a + a.T) / 2)
    if values[0] * values[1] >= 0:
        return np.empty((0, len(y)))
    slope = np.sqrt(-values[0] / values[1])
    lines = np.stack([axes[:, 0] + slope * axes[:, 1], axes[:, 0] - slope * axes[:, 1]])
    tangents = lines @ plane
    return tangents / np.linalg.norm(tangents, axis=1, keepdims=True)


def pitchfork_coefficient(field: ScaledField, y: np.ndarray) -> float:
    """c of s' = d p s + c s^3 at a pitchfork point, negative where it is supercritical."""
    n = field.n_states
    J = field.jacobian(y)[1][:, :n]
    v, w = null_vectors(J)
    step = pad(v, len(y))
    square = field.bilinear(y, step, step)
    matrix = np.block([[J, w[:, None]], [v[None], np.zeros((1, 1))]])
    h = np.linalg.solve(matrix, -np.append(square, 0.0))[:n]
    cubic = field.gradient(y, w, step, step) @ step
    return float(cubic + 3 * field.gradient(y, w, step) @ pad(h, len(y))) / 6


def fold_coefficients(field: ScaledField, y: np.ndarray) -> tuple[float, float]:
    """a and b of the normal form s' = a dp + b s^2 of a fold, p the first parameter.

    Their product does not depend on how s is scaled, and p is scaled as in y.
    """
    n = field.n_states
    _, jacobian = field.jacobian(y)
    v, w = null_vectors(jacobian[:, :n])
    step = pad(v, len(y))
    return float(w @ jacobian[:, n]), 0.5 * float(field.gradient(y, w, step) @ step)


def null_vectors(J: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right and left vectors v, w of the eigenvalue nearest zero, w . v = 1 where it is simple."""
    left, _, right = np.linalg.svd(J)
    v, w = right[-1], left[:, -1]
    product = w @ v
    return v, w / product if abs(product) > 1e-8 else w


def first_lyapunov(field: ScaledField, y: np.ndarray, omega: float) -> float:
    """First Lyapunov coefficient of a Hopf point: negative is supercritical.

    Kuznetsov 2004, Elements of Applied Bifurcation Theory, eq. (5.34), with |q| = 1 in unscaled
    states: l1 = Re[<p, C(q, q, q*)> - 2 <p, B(q, J^-1 B(q, q*))> + <p, B(q*, (2iw - J)^-1
    B(q, q))>] / 2w.
    """
    n, whole = field.n_states, field.field
    z = y * field.scale
    J = whole.jacobian(z)[1][:, :n]
    values, right = np.linalg.eig(J)
    q = right.astype(np.complex128)[:, np.argmin(np.abs(values - 1j * omega))]
    values, left = np.linalg.eig(J.T)
    p = left.astype(np.complex128)[:, np.argmin(np.abs(values + 1j * omega))]
    q = q / np.linalg.norm(q)
    p = p / np.vdot(p, q).conj()

    def B(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return whole.bilinear(z, pad(a, len(z)), pad(b, len(z)))

    h11 = np.linalg.solve(J, B(q, q.conj()))
    h20 = np.linalg.solve(2j * omega * np.eye(n) - J, B(q, q))
    cubic = _trilinear(whole.gradient, z, p, (q, q, q.conj()))
    total = cubic - 2 * np.vdot(p, B(q, h11)) + np.vdot(p, B(q.conj(), h20))
    return float(total.real / (2 * omega))


def _trilinear(
    gradient, z: np.ndarray, p: Eigenvalues, directions: tuple[Eigenvalues, ...]
) -> complex:
    """<p, C(a, b, c)> for complex vectors, from real directions."""
    combinations, weights = [], []
    for code in range(8):
        turns = [code >> k & 1 for k in range(3)]  # the imaginary part of which directions
        chosen = [d.imag if turn else d.real for d, turn in zip(directions, turns, strict=True)]
        combinations.append(pad(np.stack(chosen), len(z)))
        weights.append(1j ** sum(turns))
    a, b, c = np.stack(combinations, axis=1)
    real, imaginary = ((gradient(z, w, a, b) * c).sum(-1) for w in (p.real, -p.imag))
    return complex(np.sum(np.array(weights) * (real + 1j * imaginary)))
