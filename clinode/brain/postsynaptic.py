"""A neuron that a synapse drives, in the two forms that its input can take.

Through a conductance the current depends on the voltage, which shortens the membrane's time
constant to C / (g_L + g) and pulls V towards the reversal potential (shunting). A current of the
same kernel does neither: it only adds.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.system import Quantity, System, Time, Values, connect


def conductance_input(neuron: System, synapse: System) -> System:
    """The neuron and the synapse, whose current follows the neuron's voltage.

    Their parts are "cell" and "synapse": states `cell.V`, `synapse.s`, ..., inputs `cell.I`, to
    which the synaptic current is added, and `synapse.spikes`. Spikes of a neuron that resets stay
    its events, `cell.spike`.

    Args:
        neuron: With an input I in pA and a readout V in mV.
        synapse: Of `clinode.brain`, or any system with an input V and an output I.

    Raises:
        ArgumentError: A neuron without I or V.
        UnitError: A neuron of another unit: a density takes uA/cm^2, not pA.

    Example:
        >>> from clinode.brain import LIF, ExponentialSynapse
        >>> cell = conductance_input(LIF(), ExponentialSynapse(g=2.0, E=0.0, tau=5.0))
        >>> cell.state_names, cell.input_names
        (('cell.V', 'synapse.s'), ('cell.I', 'synapse.spikes'))
    """
    links = [("synapse.I", "cell.I"), ("cell.V", "synapse.V")]
    return connect({"cell": neuron, "synapse": synapse}, links, inputs=["cell.I"])


def current_input(neuron: System, synapse: System, V: Values = -70.0) -> System:
    """The same with the current that flows at one voltage, whatever the neuron's voltage is.

    The synapse is linearised where the cell rests: a spike drives the current g (E - V) s. V is the
    constant `rest.V` of what is returned.

    Args:
        neuron: As in `conductance_input`.
        synapse: As in `conductance_input`.
        V: At which the synapse is held, mV.

    Raises:
        ArgumentError: As in `conductance_input`.
        UnitError: As in `conductance_input`.

    Example:
        >>> from clinode.brain import LIF, ExponentialSynapse
        >>> current_input(LIF(), ExponentialSynapse()).input_names
        ('cell.I', 'synapse.spikes')
    """
    links = [("synapse.I", "cell.I"), ("rest.V", "synapse.V")]
    parts = {"cell": neuron, "synapse": synapse, "rest": HeldVoltage(V)}
    shown = [f"{name}.{q.name}" for name in ("cell", "synapse") for q in parts[name].outputs]
    return connect(parts, links, inputs=["cell.I"], outputs=shown)


class HeldVoltage(System):
    """A voltage and nothing else: what a synapse sees in `current_input`. It has no states."""

    time_unit = "ms"
    outputs = (Quantity("V", "mV"),)
    constants = (Quantity("V", "mV"),)

    def __init__(self, V: Values = -70.0):
        super().__init__()
        self.register_constants(V=V)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Nothing moves."""
        return torch.zeros_like(x)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The voltage."""
        return self.V.expand(*torch.broadcast_shapes(self.V.shape[:-1], x.shape[:-1]), 1)
