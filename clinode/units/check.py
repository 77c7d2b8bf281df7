"""Check the units of a system by evaluating it once on tensors that know them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clinode.system import ONE, Event, LinearSystem, Quantity, System, Unit, UnitError
from clinode.system.interventions import Intervened

from .terms import ANYTHING, Table, Term
from .tracked import terms_of, track


def check_dimensions(system: System, t: float | int = 0.0) -> None:
    """Prove that a system's equations agree with the units of its quantities.

    The vector field (of a map the next state), the output, the noise, and guard and reset of every
    event are evaluated once, at a plausible state, with a unit on each element. What is added or
    compared must agree in dimension and in factor, as the numbers are used without conversion: nS
    times mV is pA, mS times mV is not. Functions such as exp take numbers without dimension; a bare
    number has none, except 0 and infinity, which fit everywhere.

    Constants and states have the units that they are declared with. Other buffers are numbers
    without dimension; those of delays are times, those of a `LinearSystem` have the units that
    their place asks for. Trained weights, and all tensors of a learned (latent) system that are no
    declared constants, take the unit that their place asks for, too. Simulating the system costs
    nothing for having been checked.

    Args:
        system: Any system.
        t: The time at which it is evaluated.

    Raises:
        UnitError: Something does not agree; the error names the term. Or a unit is not known, or an
            operation whose effect on units is not known.

    Example:
        >>> from clinode.physiology import Circulation
        >>> check_dimensions(Circulation())
    """
    while isinstance(system, Intervened):  # held and injected values are given in their units
        system = system.base
    _Check(system, t).run()


class _Check:
    def __init__(self, system: System, t: float | int):
        self.system = system
        self.table = Table()
        self.table.where = type(system).__name__
        self.time = self.table.parse("the time unit", system.time_unit)
        self.t = self._tracked(torch.tensor(t, dtype=system.dtype), Term(self.time, "t"))
        if system.step is not None:
            self.t = self._tracked(torch.tensor(0.0, dtype=system.dtype), Term(ONE, "k"))
        self.x = self._quantities(system.states)
        self.u = self._quantities(system.inputs)
        self.tensors = self._tensors()

    def run(self) -> None:
        """Everything that the system says of itself."""
        system, states = self.system, self.table.of_quantities(self.system.states)
        per = self.time if system.step is None else ONE
        rates = self.table.of_quantities(system.states, per)
        what = "the rate of {}" if system.step is None else "the next {}"
        self._check("equations", type(system).forward, (self.t, self.x, self.u), rates, what)
        outputs = self._output_terms()
        read = (self.t, self.x, self.u)
        self._check("readout", type(system).output, read, outputs, "the output {}")
        if system.noise is not None:
            self._check_noise()
        for event in system.events:
            self._check_event(event, states)

    def _check(
        self, part: str, function: Callable[..., Any], args: tuple, expected: Tensor, what: str
    ) -> None:
        terms = self._evaluate(part, function, args)
        self.table.check_expected(terms.expand(*terms.shape[:-1], len(expected)), expected, what)

    def _check_noise(self) -> None:
        noise = self._evaluate("noise", _noise, (self.t, self.x, self.u))
        expected = self.table.of_quantities(self.system.states, self.time**0.5)
        is_diagonal = noise.shape[-1] == self.system.n_states and (
            noise.ndim < 2 or noise.shape[-2] != self.system.n_states
        )
        columns = noise if is_diagonal else noise.movedim(-1, 0)
        self.table.check_expected(columns, expected, "the noise of {}")

    def _check_event(self, event: Event, states: Tensor) -> None:
        self._evaluate(f"guard of '{event.name}'", event.guard, (self.t, self.x))
        if event.reset is not None:
            part, what = f"reset of '{event.name}'", "{} after the event"
            self._check(part, event.reset, (self.x,), states, what)
        if event.refractory is not None:
            unit = next(q.unit for q in self.system.constants if q.name == event.refractory)
            term = self.table.row(Term(self.table.parse(event.refractory, unit), event.refractory))
            wanted = self.table.row(Term(self.time, "the refractory time"))
            self.table.check_expected(torch.tensor([term]), torch.tensor([wanted]), "{}")

    def _evaluate(self, part: str, function: Callable[..., Any], args: tuple) -> Tensor:
        self.table.where = f"{part} of {type(self.system).__name__}"
        tensors = {f"system.{name}": tensor for name, tensor in self.tensors.items()}
        with torch.no_grad():
            result = functional_call(_Asked(self.system), tensors, (function, *args))
        return terms_of(result, self.table)

    def _output_terms(self) -> Tensor:
        """Terms of the outputs; of a learned system an unknown unit is a unit like another."""
        try:
            return self.table.of_quantities(self.system.outputs)
        except UnitError:
            if not self.system.latent:
                raise
            return self.table.full(torch.Size([self.system.n_outputs]), ANYTHING)

    def _quantities(self, quantities: tuple[Quantity, ...]) -> Tensor:
        values = [_plausible(q) for q in quantities for _ in q.names]
        value = torch.tensor(values, dtype=self.system.dtype, device=self.system.device)
        try:
            terms = self.table.of_quantities(quantities)
        except UnitError:
            if not self.system.latent:
                raise
            terms = self.table.full(value.shape, ANYTHING)
        return track(value, terms, self.table)

    def _tracked(self, value: Tensor, term: Term) -> Tensor:
        return track(value, self.table.full(value.shape, term), self.table)

    def _tensors(self) -> dict[str, Tensor]:
        """Every floating tensor of the system with its unit; of a batch of constants the first."""
        system, declared = self.system, {q.name: q for q in self.system.constants}
        delays = {delay.times for delay in system.delays}
        linear = _linear_units(system, self.table, self.time)
        weights = dict(system.named_parameters())
        made = {}
        for name, tensor in {**weights, **dict(system.named_buffers())}.items():
            if not tensor.is_floating_point():
                continue
            if name in declared:
                first = tensor[tuple(slice(0, 1) for _ in tensor.shape[:-1])]
                unit = self.table.parse(f"constant '{name}'", declared[name].unit)
                made[name] = self._tracked(first, Term(unit, name))
            elif name in linear:
                first = tensor[tuple(slice(0, 1) for _ in tensor.shape[: -linear[name].ndim])]
                made[name] = track(first, linear[name], self.table)
            elif name in delays:
                made[name] = self._tracked(tensor, Term(self.time, name))
            elif name in weights or system.latent:
                made[name] = self._tracked(tensor, Term(None, name))
            else:
                made[name] = track(tensor, self.table.of_numbers(tensor, name), self.table)
        return made


class _Asked(nn.Module):
    """Any function of a system as a forward, for `functional_call`."""

    def __init__(self, system: System):
        super().__init__()
        self.system = system

    def forward(self, function: Callable[..., Tensor], *args: Any) -> Tensor:
        return function(self.system, *args)


def _noise(system: System, t: Tensor, x: Tensor, u: Tensor) -> Tensor:
    noise = system.noise
    return x.new_zeros(x.shape) if noise is None else noise(t, x, u)


def _plausible(quantity: Quantity) -> float:
    """The default, the middle of the range, or 1."""
    if quantity.default is not None:
        return quantity.default
    if quantity.range is not None:
        return sum(quantity.range) / 2
    return 1.0


def _linear_units(system: System, table: Table, time: Unit) -> dict[str, Tensor]:
    """Terms of the matrices and the operating point of a `LinearSystem`; of others nothing."""
    if not isinstance(system, LinearSystem) or system.latent:
        return {}
    per = time if system.step is None else ONE

    def terms(name: str, above: tuple[Quantity, ...], below: tuple[Quantity, ...], per: Unit):
        over = [table.parse(q.name, q.unit) for q in below for _ in q.names]
        rows = [
            [table.row(Term(table.parse(q.name, q.unit) / unit / per, name)) for unit in over]
            for q in above
            for _ in q.names
        ]
        return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), len(over))

    x, u, y = system.states, system.inputs, system.outputs
    matrices = {
        "A": terms("A", x, x, per),
        "B": terms("B", x, u, per),
        "C": terms("C", y, x, ONE),
        "D": terms("D", y, u, ONE),
    }
    points = {"x0": x, "u0": u, "y0": y}
    return matrices | {name: table.of_quantities(q) for name, q in points.items()}
