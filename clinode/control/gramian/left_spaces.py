"""Left invariant subspaces of a matrix, one for each eigenvalue that rounding can tell apart.

An input b drives a mode as far as its left eigenvector w lets it, |w' b| (the test of Popov,
Belevitch and Hautus). Left eigenvectors of an eigenvalue that repeats are not unique, and near a
defective one they are not even separate; the space that belongs to the whole group is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg
from scipy.sparse import csgraph

from clinode.errors import SolverError

WIDEST = 0.01  # of |A|: a wider group is no repeated eigenvalue, whatever its errors


@dataclass(frozen=True, eq=False)
class LeftSpace:
    """An eigenvalue and an orthonormal basis of what drives it.

    Attributes:
        eigenvalue: The mean of the group.
        basis: (state, multiplicity), complex: A^H maps its span into itself.
    """

    eigenvalue: complex
    basis: np.ndarray


def left_spaces(A: np.ndarray) -> list[LeftSpace]:
    """One for each group of eigenvalues that cannot be told apart.

    An eigenvalue is known to n eps |A| / s, s = |w' v| the overlap of its left and right
    eigenvectors of length 1 (Golub & Van Loan 2013, 7.2.2), and to the square root of n eps where
    two meet and s vanishes. Two that are nearer than the sum of their errors are one group.

    Raises:
        SolverError: The eigenvalues of a group cannot be separated from the others.
    """
    solved: Any = linalg.eig(A, left=True, right=True)
    eigenvalues, left, right = solved
    rounding = len(A) * np.finfo(float).eps
    overlap = np.maximum(np.abs((left.conj() * right).sum(0)), np.sqrt(rounding))
    error = rounding * linalg.norm(A) / overlap
    near = np.abs(eigenvalues[:, None] - eigenvalues) <= error[:, None] + error
    n_groups, group = csgraph.connected_components(near, directed=False)
    if n_groups == len(A):
        return [LeftSpace(complex(v), left[:, [k]]) for k, v in enumerate(eigenvalues)]
    schur: Any = linalg.schur(A.conj().T, output="complex")
    T, Z = schur
    place = np.abs(T.diagonal()[:, None] - eigenvalues.conj()).argmin(1)
    spaces = []
    for k in range(n_groups):
        inside = group == k
        mean = complex(eigenvalues[inside].mean())
        if inside.sum() == 1:
            spaces.append(LeftSpace(mean, left[:, inside]))
            continue
        chosen = inside[place]
        spread = np.abs(eigenvalues[inside] - mean).max()
        if chosen.sum() != inside.sum() or spread > WIDEST * linalg.norm(A):
            raise SolverError(
                f"{int(inside.sum())} eigenvalues near {mean:.6g} cannot be separated from the "
                "others in double precision"
            )
        spaces.append(LeftSpace(mean, _leading_vectors(T, Z, chosen)))
    return spaces


def _leading_vectors(T: np.ndarray, Z: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Schur vectors of the chosen eigenvalues, moved to the front."""
    (trsen,) = linalg.get_lapack_funcs(("trsen",), (T,))
    _, ordered, *_, info = trsen(chosen.astype(np.int32), T, Z, job="N", lwork=len(T))
    if info != 0:
        raise SolverError("eigenvalues that nearly coincide cannot be put in another order")
    return ordered[:, : int(chosen.sum())]
