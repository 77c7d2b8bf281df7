"""What is known of a state from noisy readings: a mean and a covariance, moved by a Kalman filter.

    before a reading   m = f(m, u),            S = F S F' + G G'
    after it           m + K (y - h(m)),       S - K H S,     K = S H' (H S H' + V)^-1

with F, H the Jacobians at the mean (extended Kalman filter) and V averaged over the belief. It is
exact where, given what is read without noise and the inputs, the rest is linear and Gaussian:
linear systems, unknown gains of systems whose state is seen. Else it is an approximation, good
while S is small beside the curvature.

A belief is one vector: the mean, then the lower triangle of the covariance, row by row.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacfwd, jacrev, vmap

from clinode.errors import SolverError
from clinode.system import Quantity, System, Time

from .controllers import estimates
from .problem import ControlProblem
from .riccati import symmetric
from .separation import Separation, largest_difference, verdict
from .stages import Stages, stages

Act = Callable[[int, Tensor], Tensor]  # (k, belief after the reading) -> input


@dataclass(frozen=True, eq=False)
class Filter:
    """How beliefs move, in batches (...).

    Attributes:
        stages: The problem in steps.
        n_states: Length of a mean.
    """

    stages: Stages
    n_states: int

    def joined(self, mean: Tensor, covariance: Tensor) -> Tensor:
        """(..., belief)."""
        low = torch.tril_indices(self.n_states, self.n_states)
        flat = covariance[..., low[0], low[1]]
        batch = torch.broadcast_shapes(mean.shape[:-1], flat.shape[:-1])
        return torch.cat([mean.expand(*batch, -1), flat.expand(*batch, -1)], dim=-1)

    def split(self, belief: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (..., state) and covariance (..., state, state)."""
        n = self.n_states
        place = torch.zeros(n, n, dtype=torch.long)
        low = torch.tril_indices(n, n)
        place[low[0], low[1]] = torch.arange(len(low[0]))
        place = torch.maximum(place, place.T)
        return belief[..., :n], belief[..., n:][..., place]

    def predicted(self, k: int | Tensor, belief: Tensor, u: Tensor) -> Tensor:
        """The belief one step later, before its reading."""
        mean, S = self.split(belief)
        F = jacobian(lambda x, u: self.stages.move(k, x, u), mean, u)
        moved = F @ S @ F.mT
        if self.stages.noise is not None:
            G = self.stages.noise(k, mean, u)
            moved = moved + G @ G.mT
        return self.joined(self.stages.move(k, mean, u), symmetric(moved))

    def gain(self, k: int | Tensor, belief: Tensor) -> tuple[Tensor, Tensor]:
        """After the reading to come: the covariance, and the factor G of how it spreads the mean.

        G G' = S - S_after, (..., state, sensor).
        """
        _, S, seen, root = self._reading(k, belief)
        G = torch.linalg.solve_triangular(root, seen, upper=False).mT
        return symmetric(S - G @ G.mT), G

    def corrected(self, k: int | Tensor, belief: Tensor, y: Tensor) -> Tensor:
        """The belief after a reading."""
        mean, S, seen, root = self._reading(k, belief)
        K = torch.cholesky_solve(seen, root).mT
        wrong = (y - self.stages.read(k, mean)).unsqueeze(-1)
        return self.joined(mean + (K @ wrong).squeeze(-1), symmetric(S - K @ seen))

    def _reading(self, k: int | Tensor, belief: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean and covariance, H S, and the root of the innovation's covariance.

        Raises:
            SolverError: The innovation's covariance is not positive definite.
        """
        mean, S = self.split(belief)
        H = jacobian(lambda x, _: self.stages.read(k, x), mean, mean)
        seen = H @ S
        innovation = seen @ H.mT + self._sensing(k, mean, S)
        # What is known already and read without noise tells nothing: a 1 there keeps the rest.
        silent = (innovation.diagonal(dim1=-2, dim2=-1) == 0).to(S.dtype)
        try:
            root = torch.linalg.cholesky(innovation + torch.diag_embed(silent))
        except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
            raise SolverError(
                "readings without noise repeat each other, so that the filter has no gain",
                fix="give each its sensor_noise, or leave one out",
            ) from error
        return mean, S, seen, root

    def _sensing(self, k: int | Tensor, mean: Tensor, S: Tensor) -> Tensor:
        """Covariance of the reading's noise, averaged over the belief to second order.

        At the mean alone a filter would be too sure of itself wherever readings are best.
        """
        sensing = self.stages.sensing
        if not self.stages.sensing_bends:
            return sensing(k, mean)

        def twice(x: Tensor, _: Tensor) -> Tensor:
            return jacfwd(jacrev(lambda z: sensing(k, z)))(x)

        return sensing(k, mean) + 0.5 * torch.einsum("...pqij,...ij->...pq", rows(twice, mean), S)

    def as_stages(self, learns: bool = True) -> Stages:
        """The problem of controlling the belief: after a reading its mean is random, S is not.

        Args:
            learns: Whether the readings to come are counted with; without, nothing is gained by
                looking, and what is left is caution.
        """
        base = self.stages

        def move(k: int | Tensor, belief: Tensor, u: Tensor) -> Tensor:
            before = self.predicted(k, belief, u)
            if not learns:
                return before
            after, _ = self.gain(k + 1, before)
            return self.joined(self.split(before)[0], after)

        def noise(k: int | Tensor, belief: Tensor, u: Tensor) -> Tensor:
            _, G = self.gain(k + 1, self.predicted(k, belief, u))
            still = G.new_zeros(*G.shape[:-2], belief.shape[-1] - self.n_states, G.shape[-1])
            return torch.cat([G, still], dim=-2)

        def cost(k: int | Tensor, belief: Tensor, u: Tensor) -> Tensor:
            mean, S = self.split(belief)
            return base.cost(k, mean, u) + (base.curvature(mean, False) * S).sum((-1, -2))

        def final(belief: Tensor) -> Tensor:
            mean, S = self.split(belief)
            return base.final(mean) + (base.curvature(mean, True) * S).sum((-1, -2))

        return replace(base, move=move, noise=noise if learns else None, cost=cost, final=final)


class BeliefPolicy(System):
    """A filter and what it acts on: reads the sensors, drives the inputs, its state is a belief.

    Kalman 1960, J. Basic Eng. 82:35-45, extended by linearization at the mean.

    Args:
        problem: Of a map.
        act: From the belief after a reading to the input.
    """

    def __init__(self, problem: ControlProblem, act: Act):
        super().__init__()
        system = problem.system
        self.filter = filter_of(problem, n_steps=1)
        self.act = act
        n = system.n_states
        labels = tuple(f"{i + 1},{j + 1}" for i in range(n) for j in range(i + 1))
        self.states = (*estimates(system.states), Quantity("covariance", "1", labels=labels))
        self.inputs, self.outputs = problem.sensor_quantities, system.inputs
        self.step, self.time_unit = system.step, system.time_unit

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Refused: see `next_state`."""
        return super().next_state(t, x, u)

    def next_state(
        self, k: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """The belief before the next reading, from that before this one and this reading u."""
        known = self._known(k, x, u)
        after = self.filter.predicted(_whole(k), known, self.act(_whole(k), known))
        return after.to(x.dtype)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The input, from the belief before the reading and the reading u."""
        command = self.act(_whole(t), self._known(t, x, u)).to(u.dtype)
        return command + 0 * u.sum(-1, keepdim=True)  # composition must see that it depends on u

    def _known(self, k: Time, belief: Tensor, reading: Tensor) -> Tensor:
        """The belief after a reading, in float64 as all of a filter."""
        return self.filter.corrected(_whole(k), belief.double(), reading.double())


def filter_of(problem: ControlProblem, n_steps: int | None = None) -> Filter:
    """The filter of a problem of a map."""
    return Filter(stages(problem, n_steps), problem.system.n_states)


def first_belief(problem: ControlProblem, filter: Filter) -> Tensor:
    """What is known before the first reading, (..., belief)."""
    return filter.joined(problem.start, problem.spread)


def separation(problem: ControlProblem, n_steps: int = 20, seed: int = 0) -> Separation:
    """Whether estimation and control separate, measured along two random input sequences.

    Args:
        problem: Of a map; a flow is asked through `sampled_problem`.
        n_steps: Length of the sequences.
        seed: Of the sequences.
    """
    if problem.sees_state:
        return verdict(problem, 0.0)
    filter, m = filter_of(problem, n_steps), problem.system.n_inputs
    generator = torch.Generator().manual_seed(seed)
    paths = []
    with torch.no_grad():
        for _ in range(2):
            belief, path = first_belief(problem, filter), []
            for k in range(n_steps):
                u = filter.stages.rest + torch.randn(m, generator=generator, dtype=torch.float64)
                belief = filter.predicted(k, belief, filter.stages.clipped(u))
                mean, _ = filter.split(belief)
                after, _ = filter.gain(k + 1, belief)
                belief = filter.joined(mean, after)
                path.append(after)
            paths.append(torch.stack(path))
    return verdict(problem, largest_difference(*paths))


def jacobian(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, u: Tensor) -> Tensor:
    """d function / dx of (..., x), (..., u), one row a time."""
    return rows(jacrev(function), x, u)


def rows(one: Callable[..., Tensor], x: Tensor, u: Tensor | None = None) -> Tensor:
    """A function of single (x), (u) over their batch axes."""
    u = x if u is None else u
    batch = torch.broadcast_shapes(x.shape[:-1], u.shape[:-1])
    if not batch:
        return one(x, u)
    flat = [part.expand(*batch, -1).reshape(-1, part.shape[-1]) for part in (x, u)]
    values = vmap(one)(*flat)
    return values.reshape(*batch, *values.shape[1:])


def _whole(k: Time) -> int:
    """A number of steps; all trajectories of a batch are at the same one."""
    return int(torch.as_tensor(k).flatten()[0].round()) if not isinstance(k, int) else k
