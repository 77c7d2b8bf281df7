"""Which modes of a linear system the inputs move: left eigenvectors, judged against rounding.

Mode k, with w_k' A = lambda_k w_k', is moved by w_k' B alone. Entries of A and B are taken to be
right to a relative tolerance, and its first-order effect on w_k' B is the noise against which the
gain |w_k' B| is judged: a measure that does not change with the units of states and inputs. Modes
that the tolerance cannot tell apart (repeated, defective) are judged together, by the staircase in
the axes of their left-invariant subspace. A gain that stands out of the noise may still be nothing
beside the system's own size: a weak path, which matters to energies and not to dimensions.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float
from scipy.linalg import eig, lapack, matrix_balance, schur
from scipy.sparse.csgraph import connected_components

from .precise_gain import MOST_WORK, precise_gain
from .staircase import DOUBT, Split, split_reached

EPSILON = float(np.finfo(np.float64).eps)
LINKED = 1e-9  # mixing by noise beyond which two modes in doubt are judged together
STEADY = 1e-3  # mixing below which first-order corrections of eigenvectors are made
APART = 0.05  # least singular value of unit eigenvectors that span their subspace well

Matrix = Float[np.ndarray, "state state"]
Inputs = Float[np.ndarray, "state input"]
Eigenvalues = Complex[np.ndarray, " state"]


@dataclass(frozen=True, eq=False)
class Judgement:
    """What is known of each mode, and what the inputs cannot reach.

    Attributes:
        eigenvalues: (state,).
        is_reached: (state,), True, False or None where it cannot be decided.
        causes: (state,), of a mode that is not reached "repeated eigenvalue" or "cancellation"; of
            one that is reached so little that rounding drowns it "weak path"; else "".
        unreached: (state, direction), orthonormal, one direction for each mode not reached.
        distance: Relative size of the change of A and B after which these directions are
            unreachable exactly.
    """

    eigenvalues: Eigenvalues
    is_reached: tuple[bool | None, ...]
    causes: tuple[str, ...]
    unreached: Float[np.ndarray, "state direction"]
    distance: float


def judge_modes(
    A: Matrix, B: Inputs, tolerance: float, *, is_map: bool, exact: int | None
) -> Judgement:
    """Which modes of dx/dt = A x + B u, or of the map, the inputs reach.

    Args:
        A: State matrix.
        B: Input matrix, not zero.
        tolerance: Relative accuracy of the entries; never less than 4 n times rounding.
        is_map: Whether A is a map.
        exact: Dimension for the entries as they are, if it is known. Where more modes than that
            leaves seem out of reach, they must be so after relative changes of entries, or else it
            is undecided.
    """
    judge = _Judge(A, B, max(tolerance, 4 * len(A) * EPSILON), is_map)
    return judge.judgement(len(A) if exact is None else exact)


def spectrum(
    A: Matrix, tolerance: float, size: float
) -> tuple[Eigenvalues, Complex[np.ndarray, "state mode"], Float[np.ndarray, " mode"]]:
    """Eigenvalues, left eigenvectors, and how far the tolerance moves each eigenvalue.

    Left eigenvectors are unit columns w with w* A = lambda w*, orthonormal where A is symmetric.
    The movement is the first order one of relative changes of the entries, and of rounding in a
    whole of the given size that A is a part of.
    """
    eigenvalues, left, right = _eigen(A)
    change = np.einsum("ik,ik->k", np.abs(left), np.abs(A) @ np.abs(right))
    overlap = np.abs(np.einsum("ik,ik->k", left.conj(), right))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        moved = (tolerance * change + 4 * EPSILON * size) / overlap
    return eigenvalues, left, np.where(np.isfinite(moved), np.minimum(moved, size), size)


def _eigen(A: Matrix) -> tuple[Eigenvalues, np.ndarray, np.ndarray]:
    """Eigenvalues, left and right eigenvectors; orthonormal where A is symmetric."""
    if np.array_equal(A, A.T):
        values, vectors = np.linalg.eigh(A)
        return values.astype(np.complex128), vectors.astype(complex), vectors.astype(complex)
    values, left, right = eig(A, left=True, right=True)  # pyright: ignore[reportAssignmentType]
    return values.astype(np.complex128), left.astype(complex), right.astype(complex)


class _Judge:
    """One system in balanced axes, z = x / balance, with B of size 1."""

    def __init__(self, A: Matrix, B: Inputs, tolerance: float, is_map: bool):
        self.tolerance, self.is_map, self.n = tolerance, is_map, len(A)
        self.size_given = np.linalg.norm(A, 2)
        self.B_given = B / np.linalg.norm(B, 2)
        self.A, (self.balance, _) = matrix_balance(A, permute=False, separate=True)
        self.B = B / self.balance[:, None]
        self.B = self.B / np.linalg.norm(self.B, 2)
        self.size = float(np.linalg.norm(self.A, 2)) or 1.0
        self.schur: tuple[np.ndarray, np.ndarray] | None = None
        self.eigenvalues, self.left, self.right = _eigen(self.A)
        self.mixing, self.blur, steady = self._mixing(self.right)
        self.left = self.left - self.left @ steady.conj().T
        self.left = self.left / np.linalg.norm(self.left, axis=0)
        self.gain = np.linalg.norm(self.left.conj().T @ self.B, axis=1)
        self.own = np.linalg.norm(np.abs(self.left).T @ np.abs(self.B), axis=1)
        unsteady = np.where(self.blur > STEADY, self.blur, self.mixing)
        self.noise = unsteady @ self.gain + tolerance * self.own
        self.in_doubt = self.gain <= DOUBT * self.noise
        self.is_reached: list[bool | None] = [True] * self.n
        self.causes = [""] * self.n
        self.work = 0
        self.grouped: set[int] = set()
        self.lost: list[tuple[list[int], np.ndarray]] = []  # modes, and directions in these axes

    def judgement(self, exact: int) -> Judgement:
        for members in self._groups():
            if len(members) > 1:
                self._judge_group(members)
            else:
                self._judge_one(int(members[0]))
        if self.n - self.is_reached.count(False) < exact:
            self._doubt_what_exists_as_stored()
        unreached, distance = self._together(self.is_reached.count(False))
        return Judgement(
            self.eigenvalues, tuple(self.is_reached), tuple(self.causes), unreached, distance
        )

    def _mixing(self, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How much of w_j is in w_k, (k, j): by the tolerance, by rounding at most, by rounding."""
        w = self.left.conj().T
        between = np.abs(w) @ np.abs(self.A) @ np.abs(right)
        gap = self.eigenvalues - self.eigenvalues[:, None]
        scale = gap * np.einsum("ij,ij->j", self.left.conj(), right)
        residual = w @ self.A - self.eigenvalues[:, None] * w
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            mixing = _below_one(self.tolerance * between / np.abs(scale))
            blur = _below_one(4 * EPSILON * self.size / np.abs(scale))
            actual = (residual @ right) / scale
        return mixing, blur, np.where((mixing + blur < STEADY) & (blur > 0), actual, 0.0)

    def _groups(self) -> list[np.ndarray]:
        unclear = self.in_doubt & (self.gain > self.tolerance * self.own)
        links = (self.mixing > LINKED) & unclear[:, None]
        links |= (self.blur > STEADY) & self.in_doubt[:, None]
        n_groups, label = connected_components(links, directed=False)
        order = np.argsort(label, kind="stable")
        return np.split(order, np.searchsorted(label[order], np.arange(1, n_groups)))

    def _judge_one(self, k: int) -> None:
        gain, noise = self.gain[k], self.noise[k]
        if self.in_doubt[k] and gain > self.tolerance * self.own[k]:
            # No cancellation in w' B itself: the gain may be a product of small couplings.
            gain, noise = self._precisely(k)
        if not np.isfinite(gain + noise):
            self.is_reached[k] = None
        elif gain <= noise:
            self._lose([k], self.left[:, [k]], "cancellation")
        elif gain <= DOUBT * noise:
            self.is_reached[k] = None
        elif self._is_weak(k):
            self.causes[k] = "weak path"

    def _precisely(self, k: int) -> tuple[float, float]:
        self.work += self.n**3
        if self.work > MOST_WORK:
            return np.nan, np.nan
        vectors = self.left[:, k], self.right[:, k]
        gain, change = precise_gain(self.A, self.B, self.eigenvalues[k], *vectors)
        return gain, self.tolerance * change

    def _is_weak(self, k: int) -> bool:
        """Whether the gain is below rounding beside the others, and for the mode's own rate."""
        vector = self._given(self.left[:, [k]])
        gain = float(np.linalg.norm(vector.conj().T @ self.B_given))
        rate = abs(self.eigenvalues[k] - (1.0 if self.is_map else 0.0))
        return bool(gain * self.size_given < self.tolerance * min(rate, self.size_given))

    def _judge_group(self, members: np.ndarray) -> None:
        """Modes that noise mixes: the staircase in the axes of their left-invariant subspace."""
        values = self.eigenvalues[members]
        partner = np.array([np.abs(self.eigenvalues - v.conjugate()).argmin() for v in values])
        self.grouped.update(members.tolist(), partner.tolist())
        is_own_conjugate = np.isin(partner, members).any()
        if not is_own_conjugate and np.imag(values).mean() < 0:
            return  # judged with its conjugate
        axes = self._left_invariant(members, real=bool(is_own_conjugate))
        a, b = axes.conj().T @ self.A @ axes, axes.conj().T @ self.B
        outside = np.setdiff1d(np.arange(self.n), members)
        leak = (self.mixing[members][:, outside] @ self.gain[outside]).max(initial=0.0)
        split = split_reached(
            a, b, of_A=self.tolerance * self.size, of_B=self.tolerance + float(leak)
        )
        is_repeated = self._multiplicity(a) > b.shape[1]
        cause = "repeated eigenvalue" if is_repeated else "cancellation"
        self._record(members, a, axes, split, cause)
        if not is_own_conjugate:
            self._record(partner, a.conj(), axes.conj(), split.conjugate(), cause)

    def _record(
        self, members: np.ndarray, a: np.ndarray, axes: np.ndarray, split: Split, cause: str
    ) -> None:
        reached, unreached = split.reached, split.unreached
        n = reached.shape[1]
        parts = [np.linalg.eigvals(part.conj().T @ a @ part) for part in (reached, unreached)]
        self.eigenvalues[members] = np.concatenate(parts)
        for k in members[:n]:
            self.is_reached[k] = True if split.is_decided else None
        if len(members) > n:
            self._lose(members[n:].tolist(), axes @ unreached, cause)

    def _lose(self, members: list[int], directions: np.ndarray, cause: str) -> None:
        for k in members:
            self.is_reached[k], self.causes[k] = False, cause
        self.lost.append((members, directions))

    def _doubt_what_exists_as_stored(self) -> None:
        """Keep what relative changes of the entries explain (Oettli & Prager 1964)."""
        kept = []
        for members, directions in self.lost:
            axes, _ = np.linalg.qr(directions)
            values, vectors = np.linalg.eig((axes.conj().T @ self.A @ axes).conj().T)
            w = (axes @ vectors).conj().T
            defects = w @ self.A - values.conj()[:, None] * w, w @ self.B
            part, room = DOUBT * self.tolerance * np.abs(w), 10 * EPSILON  # each w_i is rounded too
            # A group was not looked at in many digits: w may be small where B is, and not zero.
            rooms = room, 0.0 if members[0] in self.grouped else room
            pairs = zip(defects, (np.abs(self.A), np.abs(self.B)), rooms, strict=True)
            if all((np.abs(a) <= part @ b + r * b.sum(axis=0)).all() for a, b, r in pairs):
                kept.append((members, directions))
                continue
            for k in members:
                self.is_reached[k], self.causes[k] = None, ""
        self.lost = kept

    def _multiplicity(self, a: np.ndarray) -> int:
        """Geometric multiplicity of the mean eigenvalue, to the tolerance."""
        sizes = np.linalg.svd(a - np.trace(a) / len(a) * np.eye(len(a)), compute_uv=False)
        return int((sizes <= DOUBT * self.tolerance * self.size).sum())

    def _left_invariant(self, members: np.ndarray, real: bool) -> np.ndarray:
        """Orthonormal axes of the span of the left eigenvectors of some modes."""
        if len(members) == self.n:
            return np.eye(self.n)
        vectors = self.left[:, members]
        left, sizes, _ = np.linalg.svd(vectors, full_matrices=False)
        if sizes[-1] < APART:
            left = self._from_schur(members)
        if real:
            left = np.linalg.svd(_parts(left))[0]
            left = left[:, : len(members)]
        return left

    def _from_schur(self, members: np.ndarray) -> np.ndarray:
        """The same where eigenvectors are nearly parallel: reorder the Schur form of A'."""
        if self.schur is None:
            self.schur = schur(self.A.T, output="complex", check_finite=False)[:2]
        triangle, axes = self.schur
        near = np.abs(np.diag(triangle).conj()[:, None] - self.eigenvalues).argmin(axis=1)
        select = np.isin(near, members)
        if select.sum() != len(members):  # nearest first, as many as there are members
            far = np.abs(np.diag(triangle).conj()[:, None] - self.eigenvalues[members]).min(axis=1)
            select = np.zeros(self.n, dtype=bool)
            select[np.argsort(far, kind="stable")[: len(members)]] = True
        reorder = lapack.ztrsen  # pyright: ignore[reportAttributeAccessIssue]
        work = max(1, 2 * self.n**2)
        ordered = reorder(select.astype(np.int32), triangle, axes, job="N", lwork=work)[1]
        return ordered[:, : len(members)]

    def _given(self, vectors: np.ndarray) -> np.ndarray:
        """Left vectors in the axes of the system as it was given, of length 1."""
        given = vectors / self.balance[:, None]
        return given / np.linalg.norm(given, axis=0)

    def _together(self, count: int) -> tuple[np.ndarray, float]:
        """A real orthonormal basis of all unreached directions, and how nearly it is one."""
        if not count:
            return np.zeros((self.n, 0)), 0.0
        found = self._given(np.concatenate([vectors for _, vectors in self.lost], axis=1))
        basis = np.linalg.svd(_parts(found))[0][:, :count]
        # In balanced axes, where sizes can be compared
        z, _ = np.linalg.qr(basis * self.balance[:, None])
        defect = z.T @ self.A - (z.T @ self.A @ z) @ z.T
        distance = max(np.linalg.norm(defect, 2) / self.size, np.linalg.norm(z.T @ self.B, 2))
        return basis, float(distance)


def _parts(vectors: np.ndarray) -> Float[np.ndarray, "state part"]:
    """Real and imaginary parts side by side."""
    return np.concatenate([np.real(vectors), np.imag(vectors)], axis=1)


def _below_one(mixing: np.ndarray) -> np.ndarray:
    """No more than all; nothing with itself."""
    bounded = np.where(np.isfinite(mixing), np.minimum(mixing, 1.0), 1.0)
    np.fill_diagonal(bounded, 0.0)
    return bounded
