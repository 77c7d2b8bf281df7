"""How trajectories move with initial state and constants: the variational equations as a system.

With S = dx / d(x0, theta), dS/dt = (df/dx) S + df/dtheta is solved beside dx/dt = f, by the same
solver and steps. A fixed-step solution's S is then the exact derivative of that solution.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, vjp

from clinode.system import Quantity, System, Time


class Variational(System):
    """State and sensitivities of a system: z = (x, S), S stored by directions.

    Directions are the n_states initial states, then the values of the constants.

    Args:
        base: A flow or a map without events or delays, in float64.
        names: Constants whose values are directions; without batch axes.
    """

    theta: Tensor

    def __init__(self, base: System, names: tuple[str, ...]):
        super().__init__()
        self.base = base
        self.names = names
        self.time_unit, self.step, self.inputs = base.time_unit, base.step, base.inputs
        values = [getattr(base, name).detach() for name in names]
        self.widths = [len(value) for value in values]
        self.register_buffer("theta", torch.cat(values))
        self.n, self.n_directions = base.n_states, base.n_states + len(self.theta)
        labels = [str(k) for k in range(self.n * (1 + self.n_directions))]
        self.states = (Quantity("z", "1", labels=tuple(labels)),)

    def start(self, x0: Float[Tensor, "... state"]) -> Float[Tensor, "... z"]:
        """x0 with the sensitivities of a start: the identity, and zero for constants."""
        directions = torch.eye(self.n_directions, self.n, dtype=x0.dtype)
        flat = directions.flatten().expand(*x0.shape[:-1], -1)
        return torch.cat([x0, flat], dim=-1)

    def parts(
        self, z: Float[Tensor, "... z"]
    ) -> tuple[Float[Tensor, "... state"], Float[Tensor, "... direction state"]]:
        """States, and their derivatives by direction."""
        x, flat = z[..., : self.n], z[..., self.n :]
        return x, flat.unflatten(-1, (self.n_directions, self.n))

    def with_theta(self, theta: Float[Tensor, " value"]) -> "Variational":
        """At other values of the constants."""
        changed = object.__new__(Variational)
        vars(changed).update(vars(self) | {"_buffers": {"theta": theta}})
        return changed

    def vector_field(
        self, t: Time, x: Float[Tensor, "... z"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... z"]:
        """(f, df/dx S + df/dtheta)."""
        return self._moved(t, x, u)

    def next_state(
        self, k: Time, x: Float[Tensor, "... z"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... z"]:
        """(F, dF/dx S + dF/dtheta), of a map."""
        return self._moved(k, x, u)

    def read_out(
        self, t: Tensor, z: Float[Tensor, "... z"], u: Float[Tensor, "... input"]
    ) -> tuple[Float[Tensor, "... output"], Float[Tensor, "... direction output"]]:
        """Outputs, and their derivatives by direction."""

        def output(x: Tensor, theta: Tensor) -> Tensor:
            tensors = {f"system.{name}": value for name, value in self._constants(theta).items()}
            return functional_call(_Readout(self.base), tensors, (t, x, u))

        return self._derivatives(output, z, self.base.n_outputs)

    def _moved(self, t: Time, z: Tensor, u: Tensor) -> Tensor:
        def rate(x: Tensor, theta: Tensor) -> Tensor:
            return functional_call(self.base, self._constants(theta), (t, x, u))

        value, derivatives = self._derivatives(rate, z, self.n)
        batch = torch.broadcast_shapes(value.shape[:-1], derivatives.shape[:-2])
        flat = derivatives.flatten(-2)
        whole = [part.expand(*batch, part.shape[-1]) for part in (value, flat)]
        return torch.cat(whole, dim=-1)

    def _derivatives(
        self, function: Callable[[Tensor, Tensor], Tensor], z: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        """A function of (x, theta) with `size` values at z, and its derivatives by direction.

        One reverse pass over as many copies as there are values, each of which pulls back one of
        them: several times cheaper than a forward pass for each direction.
        """
        x, S = self.parts(z)
        copies = x.expand(size, *x.shape)
        thetas = self.theta.to(z).expand(size, *x.shape[:-1], len(self.theta))
        value, pull = vjp(function, copies, thetas)[:2]
        each = torch.eye(size, dtype=z.dtype).view(size, *[1] * (value.ndim - 2), size)
        of_x, of_theta = pull(each.expand_as(value).contiguous())
        through_state = S @ of_x.movedim(0, -1)
        direct = of_theta.movedim(0, -1)
        none = direct.new_zeros(*direct.shape[:-2], self.n, size)
        return value[0], through_state + torch.cat([none, direct], dim=-2)

    def _constants(self, theta: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, theta.split(self.widths, dim=-1), strict=True))


class _Readout(torch.nn.Module):
    def __init__(self, system: System):
        super().__init__()
        self.system = system

    def forward(self, t: Tensor, x: Tensor, u: Tensor) -> Tensor:
        return self.system.output(t, x, u)
