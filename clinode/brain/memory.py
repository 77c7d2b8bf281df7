"""Memories: networks whose attractors are stored patterns, and how many they can hold.

The binary network is a map of single flips, the graded one a flow, the modern one a map that
retrieves in one step. `recalled_overlap` and `critical_load` are the mean-field theory of the first
for many random patterns.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from scipy import optimize, special
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.system import DiscreteSystem, Quantity, System, Time, Values

State = Float[Tensor, "... state"]
Input = Float[Tensor, "... input"]


@dataclass(frozen=True, eq=False)
class Recall:
    """A pattern completed from a cue.

    Attributes:
        state: (..., unit), where it came to rest.
        energy: (sweep, ...), at the start and after each sweep over all units; it never rises.
        n_sweeps: Sweeps made, the last of which changed nothing.
    """

    state: State
    energy: Float[Tensor, "sweep ..."]
    n_sweeps: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for JSON."""
        return {
            "state": self.state.tolist(),
            "energy": self.energy.tolist(),
            "n_sweeps": self.n_sweeps,
        }


class Hopfield(DiscreteSystem):
    """Binary units s = +-1, of which one a step takes the sign of its field.

        s_i <- sign(sum_j W_ij s_j + h_i)   for i = order[k mod n], unchanged where the field is 0

    Hopfield 1982, PNAS 79:2554-2558. With symmetric weights and no weight of a unit on itself the
    energy -1/2 s' W s - h' s never rises. `store` makes the weights from patterns.

    Args:
        weights: (unit, unit), symmetric, zero diagonal.
        order: In which the units are asked in turn, a permutation; 0, 1, ..., n - 1 by default.

    Raises:
        ArgumentError: Weights that are not square, finite, symmetric and free of self-coupling, or
            an order that is no permutation.
    """

    weights: Tensor
    turn: Tensor

    def __init__(self, weights: Values, *, order: Tensor | None = None):
        super().__init__()
        weights = _checked_weights(weights, self_coupling=False)
        n = len(weights)
        order = torch.arange(n) if order is None else order
        if order.shape != (n,) or not torch.equal(order.sort().values, torch.arange(n)):
            raise ArgumentError(f"order must be a permutation of 0 to {n - 1}")
        self.states = (Quantity("s", "1", _units(n), range=(-1.0, 1.0), default=1.0),)
        self.inputs = (Quantity("h", "1", _units(n), range=(-1.0, 1.0), default=0.0),)
        self.register_buffer("weights", weights)
        self.register_buffer("turn", order.argsort())

    @classmethod
    def store(cls, patterns: Values) -> "Hopfield":
        """The network of the patterns' outer products, W = X' X / n without its diagonal.

        Args:
            patterns: (pattern, unit), of +1 and -1.

        Raises:
            ArgumentError: Entries other than +1 and -1, no patterns.
        """
        patterns = torch.as_tensor(patterns, dtype=torch.float64)
        if patterns.ndim != 2 or not patterns.numel() or not (patterns.abs() == 1).all():
            raise ArgumentError("patterns are rows of +1 and -1, at least one")
        weights = patterns.T @ patterns / patterns.shape[1]
        return cls(weights.fill_diagonal_(0.0))

    def next_state(self, k: Time, x: State, u: Input) -> State:
        """The state after one unit, number order[k mod n], has taken the sign of its field."""
        asked = torch.remainder(torch.as_tensor(k), self.n_states).unsqueeze(-1) == self.turn
        field = torch.nn.functional.linear(x, self.weights) + u
        return torch.where(asked & (field != 0), torch.sign(field), x)

    def energy(self, x: State, u: Values = 0.0) -> Float[Tensor, "..."]:
        """-1/2 s' W s - h' s."""
        field = torch.as_tensor(u, dtype=x.dtype)
        return -(x * (torch.nn.functional.linear(x, self.weights) / 2 + field)).sum(-1)

    def complete(
        self,
        cue: State,
        mask: Bool[Tensor, "... state"] | None = None,
        *,
        generator: torch.Generator,
        max_sweeps: int = 200,
    ) -> Recall:
        """Ask all units in random order, one at a time, sweep after sweep until none changes.

        Args:
            cue: (..., unit), of +1 and -1.
            mask: Where the cue is known; elsewhere a unit starts silent (0) and takes part from its
                first turn on. All is known by default. Known units may change too.
            generator: Draws the order of each sweep, shared by the batch.
            max_sweeps: After which it is given up.

        Raises:
            ArgumentError: A cue with other values than +1 and -1 where it is known.
            SolverError: No rest within `max_sweeps`.
        """
        state = cue if mask is None else torch.where(mask, cue, torch.zeros_like(cue))
        known = torch.ones_like(state, dtype=torch.bool) if mask is None else mask
        if state.shape[-1] != self.n_states or not (state.abs() == known.to(state.dtype)).all():
            raise ArgumentError(f"a cue is {self.n_states} values of +1 and -1 where it is known")
        flat = state.reshape(-1, self.n_states).T.contiguous()  # one row a unit
        energy = [self.energy(flat.T)]
        for _ in range(max_sweeps):
            order = torch.randperm(self.n_states, generator=generator)
            changed = _sweep(flat, self.weights, order.tolist())
            energy.append(self.energy(flat.T))
            if not changed:
                shape = state.shape[:-1]
                energies = torch.stack(energy).reshape(len(energy), *shape)
                return Recall(flat.T.reshape(state.shape), energies, len(energy) - 1)
        raise SolverError(
            f"units still change after {max_sweeps} sweeps",
            where="Hopfield",
            fix="a larger max_sweeps",
        )


class GradedHopfield(System):
    """Graded units that charge toward what the others send: a flow with an energy.

        tau du_i/dt = -u_i + sum_j W_ij V_j + I_i,   V = tanh(beta u)

    Hopfield 1984, PNAS 81:3088-3092, with one time constant and potentials relative to the scale of
    the weights. With symmetric weights `energy` never rises; the states +-V(pattern) are attractors
    once beta is well above 1.

    Args:
        weights: (unit, unit), symmetric.
        beta: Gain of the units.
        tau: Time constant.

    Raises:
        ArgumentError: Weights that are not square, finite and symmetric.
    """

    time_unit = "ms"
    constants = (Quantity("beta", "1"), Quantity("tau", "ms"))
    weights: Tensor

    def __init__(self, weights: Values, *, beta: Values = 4.0, tau: Values = 10.0):
        super().__init__()
        weights = _checked_weights(weights, self_coupling=True)
        n = len(weights)
        self.states = (Quantity("u", "1", _units(n), range=(-2.0, 2.0), default=0.0),)
        self.inputs = (Quantity("I", "1", _units(n), range=(-1.0, 1.0), default=0.0),)
        self.outputs = (Quantity("V", "1", _units(n), range=(-1.0, 1.0)),)
        self.register_constants(beta=beta, tau=tau)
        self.register_buffer("weights", weights)

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """Rates of change, as in the class's docstring."""
        recurrent = torch.nn.functional.linear(torch.tanh(self.beta * x), self.weights)
        return (recurrent + u - x) / self.tau

    def output(self, t: Time, x: State, u: Input) -> State:
        """V, what the units send."""
        return torch.tanh(self.beta * x)

    def energy(self, x: State, u: Values = 0.0) -> Float[Tensor, "..."]:
        """-1/2 V' W V - I' V + sum_i int_0^V_i artanh(v) / beta dv."""
        V = torch.tanh(self.beta * x)
        field = torch.nn.functional.linear(V, self.weights) / 2 + torch.as_tensor(u, dtype=x.dtype)
        # V artanh V + log(1 - V^2) / 2, without the logarithm of 0 where V has rounded to 1
        size = (self.beta * x).abs()
        log_cosh = size + torch.log1p(torch.exp(-2 * size)) - math.log(2)
        kept = (V * x - log_cosh / self.beta).sum(-1)
        return kept - (V * field).sum(-1)


class ModernHopfield(DiscreteSystem):
    """Patterns retrieved by attention to them: x <- X' softmax(beta X x).

    Ramsauer et al. 2021, "Hopfield networks is all you need", ICLR (arXiv:2008.02217). One step
    retrieves a pattern that is well apart from the others, with an error that falls exponentially
    in beta times its separation; holds exponentially many of them in the number of units.

    Args:
        patterns: (pattern, unit), real.
        beta: Inverse temperature; 1 / sqrt(unit) is attention's.

    Raises:
        ArgumentError: No patterns, or entries that are not finite.
    """

    constants = (Quantity("beta", "1"),)
    patterns: Tensor

    def __init__(self, patterns: Values, *, beta: Values = 1.0):
        super().__init__()
        patterns = torch.as_tensor(patterns, dtype=torch.float64)
        if patterns.ndim != 2 or not patterns.numel() or not patterns.isfinite().all():
            raise ArgumentError("patterns are rows of finite numbers, at least one")
        n, size = patterns.shape[1], float(patterns.abs().max()) or 1.0
        self.states = (Quantity("x", "1", _units(n), range=(-size, size), default=0.0),)
        self.register_constants(beta=beta)
        self.register_buffer("patterns", patterns)

    def next_state(self, k: Time, x: State, u: Input) -> State:
        """X' softmax(beta X x)."""
        match = self.beta * torch.nn.functional.linear(x, self.patterns)
        return torch.softmax(match, dim=-1) @ self.patterns

    def energy(self, x: State) -> Float[Tensor, "..."]:
        """-lse(beta, X x) + x' x / 2 + log(M) / beta + max |pattern|^2 / 2.

        It never rises, and is never below 0.
        """
        match = self.beta * torch.nn.functional.linear(x, self.patterns)
        beta = self.beta.squeeze(-1)
        most = (self.patterns**2).sum(-1).max()
        evidence = (torch.logsumexp(match, dim=-1) - math.log(len(self.patterns))) / beta
        return (x * x).sum(-1) / 2 + most / 2 - evidence

    def complete(
        self,
        cue: State,
        mask: Bool[Tensor, "... state"] | None = None,
        *,
        tolerance: float = 1e-12,
        max_sweeps: int = 1000,
    ) -> Recall:
        """Iterate from a cue until no unit moves by more than `tolerance`.

        Args:
            cue: (..., unit).
            mask: Where the cue is known; elsewhere it starts at 0. All is known by default.
            tolerance: Largest change of the last step.
            max_sweeps: Steps after which it is given up.

        Raises:
            SolverError: No rest within `max_sweeps`.
        """
        state = cue if mask is None else torch.where(mask, cue, torch.zeros_like(cue))
        energy = [self.energy(state)]
        for sweep in range(max_sweeps):
            new = self.next_state(sweep, state, state.new_zeros(0))
            change = float((new - state).abs().max().detach())
            state = new
            energy.append(self.energy(state))
            if change <= tolerance:
                return Recall(state, torch.stack(energy), len(energy) - 1)
        raise SolverError(
            f"units still move by more than {tolerance} after {max_sweeps} steps",
            where="ModernHopfield",
            fix="a larger max_sweeps or tolerance",
        )


def recalled_overlap(load: float) -> float:
    """Overlap with a stored pattern that the binary network keeps, for many random patterns.

    Mean field of Amit, Gutfreund & Sompolinsky 1985, Phys Rev Lett 55:1530-1533, at zero
    temperature with replica symmetry: y (sqrt(2 load) + 2 / sqrt(pi) exp(-y^2)) = erf(y) has its
    largest root y, and the overlap is erf(y); 0 above the critical load, where no root is left.

    Args:
        load: Patterns per unit.

    Raises:
        ArgumentError: A load that is not positive.
    """
    if not (math.isfinite(load) and load > 0):
        raise ArgumentError(f"the load must be positive, got {load}")
    peak = _critical_argument()
    if load > _load_at(peak):
        return 0.0
    # With y at most 1 / sqrt(2 load) the left side is at least the right one's limit, 1.
    high = 1 / math.sqrt(2 * load)
    ends = (peak, max(high, peak) + 1e-9)
    y = optimize.root_scalar(lambda y: _load_at(y) - load, bracket=ends, xtol=1e-14).root
    return math.erf(y)


def critical_load() -> float:
    """Patterns per unit above which no stored pattern is kept: the largest with a root.

    Amit, Gutfreund & Sompolinsky 1985; solved here, 0.138.
    """
    return _load_at(_critical_argument())


def one_step_error(load: float) -> float:
    """Probability that a unit of a stored random pattern flips at once, erfc(1 / sqrt(2 load)) / 2.

    The crosstalk of the other patterns is then Gaussian with variance `load`; Hertz, Krogh & Palmer
    1991, "Introduction to the Theory of Neural Computation", section 2.2.
    """
    if not (math.isfinite(load) and load > 0):
        raise ArgumentError(f"the load must be positive, got {load}")
    return math.erfc(1 / math.sqrt(2 * load)) / 2


def _load_at(y: float) -> float:
    """The load whose mean field has the root y."""
    return (special.erf(y) / y - 2 / math.sqrt(math.pi) * math.exp(-y * y)) ** 2 / 2


def _critical_argument() -> float:
    """Where the load is largest: the slope of erf(y) / y - 2 / sqrt(pi) exp(-y^2) is zero."""

    def slope(y: float) -> float:
        bell = 2 / math.sqrt(math.pi) * math.exp(-y * y)
        return (bell - math.erf(y) / y) / y + 2 * y * bell

    return optimize.root_scalar(slope, bracket=(1.0, 2.0), xtol=1e-15).root


def _sweep(state: Float[Tensor, "unit cue"], weights: Tensor, order: list[int]) -> bool:
    """Each unit in turn takes the sign of its field, in place; whether any changed."""
    changed = False
    for i in order:
        field = weights[i] @ state
        new = torch.where(field == 0, state[i], torch.sign(field))
        if not torch.equal(new, state[i]):
            state[i] = new
            changed = True
    return changed


def _checked_weights(weights: Values, *, self_coupling: bool) -> Tensor:
    """Symmetric weights in float64."""
    weights = torch.as_tensor(weights, dtype=torch.float64)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not len(weights):
        raise ArgumentError(f"weights must be square, got shape {tuple(weights.shape)}")
    if not weights.isfinite().all():
        raise ArgumentError("weights have entries that are not finite")
    scale = weights.abs().max()
    if ((weights - weights.T).abs() > 1e-12 * scale).any():
        raise ArgumentError(
            "weights must be symmetric: only then does an energy fall",
            fix="(weights + weights.T) / 2",
        )
    if not self_coupling and weights.diagonal().any():
        raise ArgumentError(
            "weights of units on themselves must be zero", fix="weights.fill_diagonal_(0)"
        )
    return weights


def _units(n: int) -> tuple[str, ...]:
    return tuple(str(i + 1) for i in range(n))
