"""Differential dynamic programming: improve a path of inputs, many problems at once.

Around the path the motion is linear, the cost quadratic, and the noise linear in state and input;
the best corrections follow backward (Todorov & Li 2005, Proc. American Control Conf. 300-306; with
limits on the input Tassa, Mansard & Todorov 2014, ICRA 1168-1175). What this is for, in words and
as a public function: `iterative.ilqg`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import hessian, jacfwd, jacrev, vmap

from clinode.errors import SolverError

from .box import box_minimum
from .stages import Stages

FRACTIONS = tuple(0.5**i for i in range(12))  # of a correction, tried at once
TRUSTED = 0.8  # share of the foretold improvement that a correction must bring
LEAST_DAMPING, UNDAMPED, MOST_DAMPING = 1e-6, 1e-2, 1e8  # relative to the cost of the input


@dataclass(frozen=True, eq=False)
class Plan:
    """Paths and gains, one a problem of the batch.

    Attributes:
        states: (step + 1, problem, state).
        inputs: (step, problem, input).
        gains: L, (step, problem, input, state): u = input + L (x - state).
        curvature: S, (step + 1, problem, state, state): half of it is the cost of a deviation.
        cost: Expected, to second order about the path, (problem).
        noise_cost: What of it is owed to noise, (problem).
        converged: Whether no correction promised more than the tolerance, (problem).
        n_iterations: Corrections made, (problem).
    """

    states: Tensor
    inputs: Tensor
    gains: Tensor
    curvature: Tensor
    cost: Tensor
    noise_cost: Tensor
    converged: Tensor
    n_iterations: Tensor

    def only(self, i: int) -> "Plan":
        """One problem of the batch."""
        over_time = (self.states, self.inputs, self.gains, self.curvature)
        others = (self.cost, self.noise_cost, self.converged, self.n_iterations)
        return Plan(*(v[:, i : i + 1] for v in over_time), *(v[i : i + 1] for v in others))


def plan_along(
    parts: Stages,
    x0: Tensor,
    inputs: Tensor,
    *,
    max_iterations: int = 200,
    tolerance: float = 1e-9,
    bent: bool = False,
) -> Plan:
    """Improve inputs until no correction promises more; a batch of problems at once.

    Args:
        parts: The problem in steps.
        x0: (problem, state).
        inputs: First guess, (step, problem, input).
        max_iterations: Corrections.
        tolerance: Promised improvement, relative to the cost.
        bent: Whether the second derivatives of motion and noise are counted with (differential
            dynamic programming). Beliefs need it: their cost is linear in a covariance that bends.

    Raises:
        SolverError: The path of the first guess is not finite.
    """
    with torch.no_grad():
        return _Improvement(parts, x0, inputs, tolerance, bent).run(max_iterations)


class _Improvement:
    def __init__(self, parts: Stages, x0: Tensor, inputs: Tensor, tolerance: float, bent: bool):
        self.parts, self.tolerance, self.bent = parts, tolerance, bent
        self.n, self.m, self.count = x0.shape[-1], inputs.shape[-1], len(x0)
        self.u = parts.clipped(inputs)
        self.x = self._rolled(x0)
        if not bool(self.x.isfinite().all()):
            raise SolverError(
                "the path of the first guess of inputs is not finite",
                fix="another guess, a shorter step, or a shorter horizon",
            )
        self.steps = torch.arange(len(inputs)).repeat_interleave(self.count)
        self.damping = torch.zeros(self.count, dtype=torch.float64)

    def run(self, max_iterations: int) -> Plan:
        done = torch.zeros(self.count, dtype=torch.bool)
        made = torch.zeros(self.count, dtype=torch.long)
        back = self._backward(self._local(), self.damping)
        for iteration in range(max_iterations + 1):
            settled = back.promise(1.0) <= self.tolerance * (back.cost.abs() + 1e-300)
            done = settled & (self.damping < UNDAMPED)
            if bool(done.all()) or iteration == max_iterations:
                break
            active = ~done & (self.damping < MOST_DAMPING)
            if not bool(active.any()):
                break
            improved = self._improve(back, active)
            made += improved
            harder = (self.damping * 10).clamp(min=LEAST_DAMPING)
            softer = torch.where(self.damping > LEAST_DAMPING, self.damping / 10, 0.0)
            self.damping = torch.where(active, torch.where(improved, softer, harder), self.damping)
            back = self._backward(self._local(), self.damping)
        if bool((self.damping > 0).any()):  # gains without the damping that the search needed
            back = self._backward(self._local(), torch.zeros_like(self.damping))
        return Plan(self.x, self.u, back.gains, back.S, back.cost, back.noise, done, made)

    def _rolled(self, x0: Tensor) -> Tensor:
        x = [x0]
        for k, u in enumerate(self.u):
            x.append(self.parts.move(k, x[-1], u))
        return torch.stack(x)

    def _local(self) -> "_Local":
        """Derivatives along the path."""
        n, parts, T = self.n, self.parts, len(self.u)
        z = torch.cat([self.x[:-1], self.u], dim=-1).reshape(-1, n + self.m)

        def at(function: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda k, z: function(k, z[..., :n], z[..., n:])

        def along(values: Tensor) -> Tensor:
            return values.reshape(T, self.count, *values.shape[1:])

        per_step = functools.partial(vmap, in_dims=(0, 0))
        noise = parts.noise
        bends = {}
        if self.bent:
            twice = lambda f: along(per_step(jacfwd(jacrev(at(f), 1), 1))(self.steps, z))  # noqa: E731
            bends = {"move_bend": twice(parts.move)}
            bends |= {} if noise is None else {"noise_bend": twice(noise)}
        end = self.x[-1]
        return _Local(
            moves=along(per_step(jacrev(at(parts.move), argnums=1))(self.steps, z)),
            noise=None if noise is None else along(per_step(at(noise))(self.steps, z)),
            noise_slope=None
            if noise is None
            else along(per_step(jacrev(at(noise), argnums=1))(self.steps, z)),
            cost=along(per_step(at(parts.cost))(self.steps, z)),
            slope=along(per_step(jacrev(at(parts.cost), argnums=1))(self.steps, z)),
            bend=along(_nonnegative(per_step(hessian(at(parts.cost), argnums=1))(self.steps, z))),
            end_cost=parts.final(end),
            end_slope=vmap(jacrev(parts.final))(end),
            end_bend=_nonnegative(vmap(hessian(parts.final))(end)),
            **bends,
        )

    def _backward(self, local: "_Local", damping: Tensor) -> "_Backward":
        n, T = self.n, len(self.u)
        s, S = local.end_slope, local.end_bend
        noise_cost = torch.zeros_like(local.end_cost)
        corrections, gains, curvature = [], [], [S]
        fall, bend = torch.zeros_like(local.end_cost), torch.zeros_like(local.end_cost)
        for k in reversed(range(T)):
            M = local.moves[k]
            q = local.slope[k] + (M.mT @ s.unsqueeze(-1)).squeeze(-1)
            Q = local.bend[k] + M.mT @ S @ M
            if local.move_bend is not None:
                Q = Q + torch.einsum("ba,bazw->bzw", s, local.move_bend[k])
            if local.noise is not None and local.noise_slope is not None:
                c, slope = local.noise[k], local.noise_slope[k]  # (.., n, source), (.., z)
                Sc = S @ c
                q = q + torch.einsum("bas,basz->bz", Sc, slope)
                Q = Q + torch.einsum("basz,bac,bcsw->bzw", slope, S, slope)
                if local.noise_bend is not None:
                    Q = Q + torch.einsum("bas,baszw->bzw", Sc, local.noise_bend[k])
                noise_cost = noise_cost + (c * Sc).sum((-1, -2)) / 2
            Q = (Q + Q.mT) / 2
            qu, Quu, Qux = q[..., n:], Q[..., n:, n:], Q[..., n:, :n]
            scale = Quu.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-12)
            damped = Quu + torch.diag_embed((damping * scale).unsqueeze(-1).expand(-1, self.m))
            l, L = self._best(damped, qu, Qux, self.u[k])
            fall, bend = fall - (l * qu).sum(-1), bend + 0.5 * _form(l, Quu)
            back = Qux.mT
            s = q[..., :n] + _times(L.mT, _times(Quu, l) + qu) + _times(back, l)
            S = Q[..., :n, :n] + L.mT @ Quu @ L + L.mT @ Qux + back @ L
            S = (S + S.mT) / 2
            corrections.append(l)
            gains.append(L)
            curvature.append(S)
        path_cost = local.cost.sum(0) + local.end_cost
        return _Backward(
            torch.stack(corrections[::-1]), torch.stack(gains[::-1]), torch.stack(curvature[::-1]),
            path_cost + noise_cost, noise_cost, fall, bend,
        )  # fmt: skip

    def _best(self, Quu: Tensor, qu: Tensor, Qux: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Correction and gain of one step; the inputs at a limit have no gain."""
        if self.bent:
            Quu = _curved_up(Quu)
        try:
            root = torch.linalg.cholesky(Quu)
        except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
            raise SolverError(
                "neither input_cost nor the cost to come weighs some input", fix="give it a weight"
            ) from error
        if self.parts.limits is None:
            both = -torch.cholesky_solve(torch.cat([qu.unsqueeze(-1), Qux], dim=-1), root)
            return both[..., 0], both[..., 1:]
        low, high = self.parts.limits
        l, free = box_minimum(Quu, qu, low - u, high - u)
        return l, -torch.linalg.solve(_only(Quu, free), Qux * free.unsqueeze(-1))

    def _improve(self, back: "_Backward", active: Tensor) -> Tensor:
        """Take for each problem the largest part of its correction that lowers its cost."""
        fraction = torch.tensor(FRACTIONS, dtype=torch.float64)[:, None, None]
        x = self.x[0].expand(len(FRACTIONS), -1, -1)
        states, inputs, cost = [x], [], torch.zeros(x.shape[:-1], dtype=torch.float64)
        for k, (l, L) in enumerate(zip(back.corrections, back.gains, strict=True)):
            u = self.u[k] + fraction * l + _times(L, x - self.x[k])
            u = self.parts.clipped(u)
            cost = cost + self.parts.cost(k, x, u)
            if self.parts.noise is not None:
                c = self.parts.noise(k, x, u)
                cost = cost + (c * (back.S[k + 1] @ c)).sum((-1, -2)) / 2
            x = self.parts.move(k, x, u)
            states.append(x)
            inputs.append(u)
        cost = cost + self.parts.final(x)
        # A correction is trusted only while the cost falls as foretold: one that lands far away may
        # end in a worse basin. The cost of beliefs seldom falls so, and they are tried from afar.
        saved, least = back.cost - cost, 0.0 if self.bent else TRUSTED
        foretold = back.promise(fraction.squeeze(-1))
        better = cost.isfinite() & (saved >= least * foretold) & (saved > 0) & active
        improved = better.any(0)
        choice = torch.where(better, cost, torch.inf).argmin(0)
        which = torch.arange(self.count)
        new_x = torch.stack(states)[:, choice, which]
        new_u = torch.stack(inputs)[:, choice, which]
        self.x = torch.where(improved.unsqueeze(-1), new_x, self.x)
        self.u = torch.where(improved.unsqueeze(-1), new_u, self.u)
        return improved


@dataclass(frozen=True, eq=False)
class _Local:
    moves: Tensor
    noise: Tensor | None
    noise_slope: Tensor | None
    cost: Tensor
    slope: Tensor
    bend: Tensor
    end_cost: Tensor
    end_slope: Tensor
    end_bend: Tensor
    move_bend: Tensor | None = None
    noise_bend: Tensor | None = None


@dataclass(frozen=True, eq=False)
class _Backward:
    corrections: Tensor
    gains: Tensor
    S: Tensor
    cost: Tensor
    noise: Tensor
    fall: Tensor
    bend: Tensor

    def promise(self, part: Tensor | float) -> Tensor:
        """What a part of the correction is foretold to save."""
        return part * self.fall - part**2 * self.bend


def _nonnegative(H: Tensor) -> Tensor:
    """Symmetric matrices without their negative eigenvalues."""
    values, vectors = torch.linalg.eigh((H + H.mT) / 2)
    return (vectors * values.clamp(min=0).unsqueeze(-2)) @ vectors.mT


def _curved_up(H: Tensor) -> Tensor:
    """Symmetric matrices with the sizes of their eigenvalues: a step downhill also at a saddle."""
    values, vectors = torch.linalg.eigh(H)
    sizes = values.abs()
    sizes = sizes.maximum(1e-8 * sizes.amax(-1, keepdim=True))
    return (vectors * sizes.unsqueeze(-2)) @ vectors.mT


def _only(Q: Tensor, free: Tensor) -> Tensor:
    """Q among the free inputs, the identity among the others."""
    free = free.to(Q.dtype)
    return Q * free.unsqueeze(-1) * free.unsqueeze(-2) + torch.diag_embed(1 - free)


def _times(M: Tensor, v: Tensor) -> Tensor:
    return (M @ v.unsqueeze(-1)).squeeze(-1)


def _form(v: Tensor, M: Tensor) -> Tensor:
    return (v * _times(M, v)).sum(-1)
