"""The flow of a recurrence: one Runge-Kutta step of a network's field, its way back written out.

The field is x' = -a x + N(x) + d: decay, a network of tanh layers, a drive that is constant on the
way. Steps are exponential, exact for the decay and the drive's share of it; where nothing decays
they are the explicit Euler, midpoint and classical fourth-order methods. How each stage is put
together is a table (`Scheme`), whose coefficients are columns: one number a visit, or one for each
state where states decay at rates of their own.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from clinode.sequence.exponential_steps import exponential_steps, phi_functions
from clinode.sequence.recurrence import Part, PlainStep


class Place(NamedTuple):
    """Where a stage evaluates the field, or where a step ends: keep x + sum of slopes + added.

    Args:
        keep: Column with the coefficients of the state before the step; None stands for 1.
        slopes: Stage, and column with the coefficients of the network's slope there.
        added: Column that is added, the drive's share; None for nothing.
    """

    keep: int | None
    slopes: tuple[tuple[int, int], ...]
    added: int | None = None


class Scheme(NamedTuple):
    """How the steps of all visits are put together.

    Args:
        columns: (visit, 1) or (visit, state) each.
        places: Of the second stage and those after it, and of the end.
    """

    columns: tuple[Float[Tensor, "visit column"], ...]
    places: tuple[Place, ...]


Size = Float[Tensor, "visit 1"]  # of the step of each visit, hours
Decay = Float[Tensor, "... state"] | None  # a, per hour, of all visits or each; or nothing decays


def euler(h: Size, decay: Decay) -> Scheme:
    """First order, one evaluation of N."""
    if decay is None:
        return Scheme((h,), (Place(None, ((0, 0),)),))
    z = -decay * h
    one, _, _ = phi_functions(z)
    return Scheme((torch.exp(z), h * one), (Place(0, ((0, 1),)),))


def midpoint(h: Size, decay: Decay) -> Scheme:
    """Second order, two evaluations of N."""
    if decay is None:
        return Scheme((h / 2, h), (Place(None, ((0, 0),)), Place(None, ((1, 1),))))
    z = -decay * h
    near, _, _ = phi_functions(z / 2)
    one, _, _ = phi_functions(z)
    columns = (torch.exp(z / 2), h / 2 * near, torch.exp(z), h * one)
    return Scheme(columns, (Place(0, ((0, 1),)), Place(2, ((1, 3),))))


def rk4(h: Size, decay: Decay) -> Scheme:
    """Fourth order, four evaluations (Cox & Matthews 2002, J. Comput. Phys. 176:430-455)."""
    if decay is None:
        places = (
            Place(None, ((0, 0),)),
            Place(None, ((1, 0),)),
            Place(None, ((2, 1),)),
            Place(None, ((0, 2), (1, 3), (2, 3), (3, 2))),
        )
        return Scheme((h / 2, h, h / 6, h / 3), places)
    steps = exponential_steps(decay, h.squeeze(1), torch.ones_like(h.squeeze(1)))
    columns = (
        steps.half,
        steps.to_half,
        steps.whole,
        (steps.half - 1) * steps.to_half,
        2 * steps.to_half,
        steps.first,
        steps.middle,
        steps.last,
    )
    places = (
        Place(0, ((0, 1),)),
        Place(0, ((1, 1),)),
        Place(2, ((0, 3), (2, 4))),
        Place(2, ((0, 5), (1, 6), (2, 6), (3, 7))),
    )
    return Scheme(columns, places)


def driven(
    scheme: Scheme, drive: Float[Tensor, "visit state"], jump: Float[Tensor, "visit state"]
) -> Scheme:
    """The same steps under a drive that is constant on the way, with a jump at their end."""
    columns, places = list(scheme.columns), []
    for place in scheme.places:
        share = sum(
            (scheme.columns[column] for _, column in place.slopes[1:]),
            scheme.columns[place.slopes[0][1]],
        )
        added = share * drive
        columns.append(added if len(places) + 1 < len(scheme.places) else added + jump)
        places.append(place._replace(added=len(columns) - 1))
    return Scheme(tuple(columns), tuple(places))


class FieldFlow(Part):
    """One step of x' = -a x + N(x) + d for each visit, N a network of tanh layers.

    Args:
        layers: Weight and offset of each layer of N, the last without tanh; None for no offset.
        scheme: Of the visits; holds decay and drive.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor | None]], scheme: Scheme):
        self.layers, self.scheme = tuple(layers), scheme
        super().__init__([part for layer in self.layers for part in layer] + list(scheme.columns))

    def on(self, leaves: Sequence[Any]) -> "Part":
        n = 2 * len(self.layers)
        layers = list(zip(leaves[:n:2], leaves[1:n:2], strict=True))
        return FieldFlow(layers, self.scheme._replace(columns=tuple(leaves[n:])))

    def plain(self, sizes: list[int]) -> PlainStep:
        rounds = list(zip(*(part.split(sizes) for part in self.scheme.columns), strict=True))

        def step_from(step: int, state: Tensor) -> Tensor:
            columns, at, slopes = rounds[step], state, []
            for keep, shares, added in self.scheme.places:
                slopes.append(network(self.layers, at))
                at = state if keep is None else columns[keep] * state
                for stage, column in shares:
                    at = at + columns[column] * slopes[stage]
                if added is not None:
                    at = at + columns[added]
            return at

        return step_from

    def begin(self, sizes: list[int]) -> None:
        self.sizes, self.n_stages = sizes, len(self.scheme.places)
        shape = self.n_stages, sum(sizes)
        some = self.layers[0][0]
        # the first stage is at the state before, which is written here only on the way back
        self.places = some.new_empty(*shape, some.shape[1])
        # offsets stand in the buffers already: each product adds to them
        self.made = [
            weight.new_zeros(*shape, len(weight))
            if offset is None
            else offset.expand(*shape, len(offset)).clone()
            for weight, offset in self.layers
        ]
        self.weights = [weight.T.contiguous() for weight, _ in self.layers]
        self.rounds = list(
            zip(
                self._split(self.places),
                zip(*(self._split(made) for made in self.made), strict=True),
                zip(*(column.split(sizes) for column in self.scheme.columns), strict=True),
                strict=True,
            )
        )

    def _split(self, staged: Float[Tensor, "stage visit width"]) -> list[tuple[Tensor, ...]]:
        """For each round, the part of each stage."""
        return list(zip(*(stage.split(self.sizes) for stage in staged), strict=True))

    def forward(self, step: int, before: Tensor, out: Tensor) -> None:
        places, made, columns = self.rounds[step]
        weights, last, slopes, at = self.weights, len(made) - 1, made[-1], before
        for stage, (keep, shares, added) in enumerate(self.scheme.places):
            x = at
            for k, weight in enumerate(weights):
                x = made[k][stage].addmm_(x, weight)
                if k < last:
                    x.tanh_()
            at = out if stage + 1 == self.n_stages else places[stage + 1]
            if keep is not None:
                if added is None:
                    torch.mul(before, columns[keep], out=at)
                else:
                    torch.addcmul(columns[added], before, columns[keep], out=at)
            elif added is not None:
                torch.add(before, columns[added], out=at)
            else:
                first, column = shares[0]
                torch.addcmul(before, slopes[first], columns[column], out=at)
                shares = shares[1:]
            for share, column in shares:
                at.addcmul_(slopes[share], columns[column])

    def begin_backward(self, before: Float[Tensor, "visit state"]) -> None:
        self.places[0].copy_(before)
        self.on_places = torch.empty_like(self.places)
        self.on_slopes = torch.empty_like(self.made[-1])
        # the slope of each tanh, which what comes back is multiplied by in its place
        one = before.new_ones(())
        self.on_layers = [torch.addcmul(one, made, made, value=-1) for made in self.made[:-1]]
        scratch = [made.new_empty(self.sizes[0], made.shape[2]) for made in self.made[:-1]]
        heads = {n: [part[:n] for part in scratch] for n in set(self.sizes)}
        self.rounds = list(
            zip(
                self._split(self.on_places),
                self._split(self.on_slopes),
                zip(*(self._split(part) for part in self.on_layers), strict=True)
                if self.on_layers
                else [()] * len(self.sizes),
                (heads[n] for n in self.sizes),
                zip(*(column.split(self.sizes) for column in self.scheme.columns), strict=True),
                strict=True,
            )
        )
        seen: set[int] = set()
        self.is_first = []  # whether a place is the first, going back, to give to a slope
        for _, shares, _ in reversed(self.scheme.places):
            self.is_first.append([stage not in seen for stage, _ in shares])
            seen.update(stage for stage, _ in shares)
        self.is_first.reverse()

    def backward(self, step: int, after: Tensor, into: Tensor) -> None:
        on_places, on_slopes, on_layers, scratch, columns = self.rounds[step]
        for stage in range(self.n_stages - 1, -1, -1):
            keep, shares, _ = self.scheme.places[stage]
            at = after if stage + 1 == self.n_stages else on_places[stage + 1]
            if keep is None:
                into.add_(at)
            else:
                into.addcmul_(at, columns[keep])
            for (share, column), is_first in zip(shares, self.is_first[stage], strict=True):
                if is_first:
                    torch.mul(at, columns[column], out=on_slopes[share])
                else:
                    on_slopes[share].addcmul_(at, columns[column])
            back = on_slopes[stage]
            for k in range(len(on_layers) - 1, -1, -1):
                torch.mm(back, self.layers[k + 1][0], out=scratch[k])
                back = on_layers[k][stage].mul_(scratch[k])
            if stage:
                torch.mm(back, self.layers[0][0], out=on_places[stage])
            else:
                into.addmm_(back, self.layers[0][0])

    def gradients(
        self, after: Float[Tensor, "visit state"], needs: Sequence[bool]
    ) -> list[Tensor | None]:
        given = [self.places, *self.made[:-1]]  # to each layer
        back = [*self.on_layers, self.on_slopes]
        found: list[Tensor | None] = []
        for k, (x, on_made) in enumerate(zip(given, back, strict=True)):
            flat = on_made.flatten(0, 1)
            found.append(flat.T @ x.flatten(0, 1) if needs[2 * k] else None)
            found.append(flat.sum(dim=0) if needs[2 * k + 1] else None)
        columns = zip(range(len(self.scheme.columns)), needs[len(found) :], strict=True)
        return found + [self._on_column(k, after) if need else None for k, need in columns]

    def _on_column(self, k: int, after: Float[Tensor, "visit state"]) -> Tensor:
        """Gradient at one column of the scheme."""
        column = self.scheme.columns[k]
        total = torch.zeros_like(after)
        for stage, (keep, shares, added) in enumerate(self.scheme.places):
            at = after if stage + 1 == self.n_stages else self.on_places[stage + 1]
            if keep == k:
                total.addcmul_(at, self.places[0])
            for share, column_of_share in shares:
                if column_of_share == k:
                    total.addcmul_(at, self.made[-1][share])
            if added == k:
                total.add_(at)
        return total if column.shape[1] == total.shape[1] else total.sum(dim=1, keepdim=True)


def network(layers: Sequence[tuple[Tensor, Tensor | None]], x: Tensor) -> Tensor:
    """N(x): tanh behind every layer but the last."""
    for weight, offset in layers[:-1]:
        x = linear(x, weight, offset).tanh()
    weight, offset = layers[-1]
    return linear(x, weight, offset)
