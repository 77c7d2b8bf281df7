"""What electrodes on the head see of a network: a weighted sum of its sources."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Past, Quantity, System, Time, Values, positions
from clinode.system.values import floating, times_vector


class LeadFieldReadout(System):
    """A network as electrodes see it: its output is lead field times sources.

    States, inputs, constants, delays and noise are those of the network and keep their names; the
    output is L y, y a block of the network's outputs with one value a region. L is a further
    constant of members "channel<-region": `with_constants(lead_field=...)` takes another head, or
    a batch of them. It comes from a head model, of sources with their orientation fixed.

    Args:
        network: Any system with an output block of sources.
        lead_field: L, (..., channel, region), in channel unit per source unit.
        channels: Names of the electrodes.
        source: Name of the output block of the network.
        unit: Of the channels.

    Raises:
        ArgumentError: No such block, a lead field that does not fit or is not finite, a map.

    Example:
        >>> from clinode.brain.connectome import simulate_connectome
        >>> from clinode.brain.networks import JansenRitNetwork
        >>> columns = JansenRitNetwork(simulate_connectome(4))
        >>> L = [[1.0, 0.2, 0.0, 0.0], [0.0, 0.0, 0.2, 1.0]]
        >>> LeadFieldReadout(columns, L, ["C3", "C4"], source="EEG").output_names
        ('EEG:C3', 'EEG:C4')
    """

    def __init__(
        self,
        network: System,
        lead_field: Values,
        channels: Sequence[str],
        source: str,
        unit: str = "uV",
    ):
        super().__init__()
        if network.step is not None:
            raise ArgumentError("a lead field reads out a flow, and this is a map")
        places = positions(network.outputs, source, f"output of {type(network).__name__}")
        quantity = next(q for q in network.outputs if source in (q.name, *q.names))
        labels = quantity.labels or (quantity.name,)
        L = floating(lead_field)
        if L.ndim < 2 or tuple(L.shape[-2:]) != (len(channels), len(places)):
            raise ArgumentError(
                f"the lead field has shape {tuple(L.shape)}, expected "
                f"{(len(channels), len(places))}: channels by regions of '{source}'"
            )
        if not L.isfinite().all():
            raise ArgumentError("the lead field has entries that are not finite")
        # Its tensors stand here under the very names that they have in the network, where
        # functional calls look for them; the network is no submodule, or they would stand twice.
        self._parameters = dict(network._parameters)
        self._buffers = dict(network._buffers)
        self._modules = dict(network._modules)
        vars(self)["network"] = network
        self.time_unit, self.latent = network.time_unit, network.latent
        self.states, self.inputs = network.states, network.inputs
        self.outputs = (Quantity("EEG", unit, tuple(channels)),)
        self.events, self.delays = network.events, network.delays
        per = unit if quantity.unit == "1" else f"{unit}/({quantity.unit})"
        pairs = tuple(f"{channel}<-{region}" for channel in channels for region in labels)
        own = Quantity("lead_field", per, pairs)
        self.constants = (*network.constants, own)
        self._places = tuple(places)
        self._store(own, L.flatten(-2).to(network.device, network.dtype))

    def __getattr__(self, name: str) -> Any:
        """A constant of a part where the network is a composition, "brain.K"."""
        head, dot, rest = name.partition(".")
        return getattr(getattr(self, head), rest) if dot else super().__getattr__(name)

    @property
    def noise(self) -> Callable[..., Tensor] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The network's."""
        return self.view().noise

    def vector_field(
        self,
        t: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
        past: Past | None = None,
    ) -> Float[Tensor, "... state"]:
        """The network's."""
        return self.view().forward(t, x, u, past)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """Lead field times sources."""
        sources = self.view().output(t, x, u)[..., list(self._places)]
        n = len(self._places)
        return times_vector(self.lead_field.unflatten(-1, (-1, n)), sources)

    def view(self) -> System:
        """The network with the tensors that stand here now: other constants, or swapped ones."""
        seen = object.__new__(type(self.network))
        own = {name: vars(self)[name] for name in ("_parameters", "_buffers", "_modules")}
        vars(seen).update(vars(self.network) | own)
        return seen
