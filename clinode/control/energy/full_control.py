"""Minimum energies in closed form where every state has an input of its own and A is symmetric.

E = sum_k (v_k'd)^2 f(w_k) / c with f(w) = 2 w / expm1(2 w T) and B B' = c 1. One symmetric
eigenproblem serves any number of pairs. f never changes faster than 2 per unit of w, and a matrix
function of symmetric matrices is Lipschitz in the Frobenius norm with the constant of its scalar
function, so the residual of the eigenproblem bounds the error of the energy.
"""

import math

import numpy as np
import torch

from .square_root import SLACK, SLACK_OF_RESULT, TINY, UNIT, Bracket
from .transfers import Array, Transfers

LAST_MODES: list[tuple[Array, tuple[Array, Array, float, float]]] = []  # one, or none yet
STEEPEST = 2.0  # |d/dw of 2 w / expm1(2 w T)|, reached as w T -> -inf


def full_control_energies(transfers: Transfers) -> Bracket | None:
    """Brackets of the minimum energies; None where there is no such closed form."""
    A, B, T = transfers.A, transfers.B, transfers.horizon
    if transfers.is_map or transfers.readout is not None or B.shape[0] > B.shape[1]:
        return None
    scale = multiple_of_identity(B)
    if scale is None or not transfers.is_symmetric:
        return None
    values, vectors, off, skewed = symmetric_modes(A)
    top, bottom = values[-1] + off, values[0] - off
    if top >= 0 if transfers.is_endless else top * T > 300:
        return None
    aim = transfers.moved_ends @ vectors
    drift_error = np.zeros(len(aim))
    starts, growth = transfers.moved_starts, 1.0
    if starts.any():
        aim -= (starts @ vectors) * np.exp(values * T)
        growth = math.exp(max(top, 0.0) * T)
        drift_error = (off * T + 3 * skewed) * growth * np.linalg.norm(starts, axis=1)
    sizes = np.linalg.norm(np.abs(transfers.ends) + np.abs(transfers.rest), axis=1)
    sizes += np.linalg.norm(starts, axis=1) * growth
    n = len(A)
    aim_error = drift_error + (2 * n + 700) * UNIT * math.sqrt(n) * sizes + 3 * skewed * sizes
    weight = _energy_of_mode(values, T) / scale
    energy = (aim**2) @ weight
    cheap, dear = float(weight[-1]), _energy_of_mode(np.array([bottom]), T)[0] / scale
    if not cheap > 0:
        return None
    length = np.linalg.norm(aim, axis=1)
    steps = n + 64 + (0 if transfers.is_endless else 4 * max(top, -bottom) * T)
    lost = STEEPEST * off / scale * (length + aim_error) ** 2 + steps * UNIT * energy
    root, slack = np.sqrt(energy), math.sqrt(dear) * aim_error * SLACK
    low = np.maximum(np.maximum(root - slack, 0.0) ** 2 - lost * SLACK, 0.0) / SLACK_OF_RESULT
    high = ((root + slack) ** 2 + lost * SLACK + TINY) * SLACK_OF_RESULT
    return Bracket(low, high, aim_error, length)


def symmetric_modes(A: Array) -> tuple[Array, Array, float, float]:
    """Eigenvalues w and eigenvectors V of a symmetric matrix, and their errors.

    The errors are bounds on |A - U diag(w) U'|, U the orthogonal matrix nearest to V, and on
    |V'V - 1|. Those of the last matrix are kept: the next pairs of the same system begin there.
    """
    for kept, modes in LAST_MODES:
        if np.array_equal(kept, A):
            return modes
    values, vectors = (x.numpy() for x in torch.linalg.eigh(torch.tensor(A)))
    modes = values, vectors, *_residual(A, values, vectors)
    LAST_MODES[:] = [(A.copy(), modes)]
    return modes


def multiple_of_identity(B: Array) -> float | None:
    """c where B B' = c 1 in every bit: a scaled permutation, possibly with silent inputs."""
    if B[0, 0] != 0 and np.array_equal(B, B[0, 0] * np.eye(*B.shape)):
        return float(B[0, 0]) ** 2
    used = B[:, (B != 0).any(axis=0)]
    if used.shape[0] != used.shape[1] or ((used != 0).sum(axis=0) != 1).any():
        return None
    sizes = np.abs(used[used != 0])
    if ((used != 0).sum(axis=1) != 1).any() or (sizes != sizes[0]).any():
        return None
    return float(sizes[0]) ** 2


def _residual(A: Array, values: Array, vectors: Array) -> tuple[float, float]:
    n = len(A)
    rounding = (n + 4) * UNIT * SLACK
    gram = vectors.T @ vectors
    gram[np.diag_indices(n)] -= 1.0
    skewed = float(np.linalg.norm(gram)) + rounding * n * (1 + 1e-3)  # |V|_F^2 is about n
    scaled = vectors * values
    distance = float(np.linalg.norm(A - scaled @ vectors.T))
    size = float(np.abs(values).max(initial=0.0))
    rounded = rounding * float(np.linalg.norm(scaled)) * math.sqrt(n) * (1 + 1e-3)
    rounded += 2 * UNIT * (float(np.linalg.norm(A)) + size * math.sqrt(n))
    off = distance + rounded + 2.5 * skewed * size
    return off * SLACK + TINY, skewed * SLACK


def _energy_of_mode(values: Array, T: float) -> Array:
    """2 w / expm1(2 w T): 1 / T at w = 0, -2 w for ever."""
    if math.isinf(T):
        return -2 * values
    twice = 2 * values
    safe = np.where(twice == 0, 1.0, twice)
    return np.where(twice == 0, 1 / T, safe / np.expm1(safe * T))
