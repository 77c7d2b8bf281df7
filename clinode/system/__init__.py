"""Systems: vector fields dx/dt = f(t, x, u) whose states, inputs, outputs and constants have names.

A neuron is a `System`, a circulation is one, the latent dynamics of a trained model are one. A
`Quantity` names what stands on the last axis of a tensor, a `Signal` is an input over time. Every
axis before the last is a batch axis and broadcasts, over trajectories and over constants alike.

Solving a system is the business of `clinode.dynamics`.
"""

from .composition import closed_loop, connect
from .hybrid import Delay, Event, Past, delay_times, present
from .interventions import Intervention, clamp, cut, inject, intervene, silence
from .linear import LinearSystem
from .quantity import Quantity, flat_names, positions
from .signal import FunctionSignal, Signal, as_signal
from .system import AnySystem, DiscreteSystem, System
from .unit import ONE, Unit, UnitError, check_units_agree, parse_unit
from .values import Time, Values

__all__ = [
    "ONE",
    "AnySystem",
    "Delay",
    "DiscreteSystem",
    "Event",
    "FunctionSignal",
    "Intervention",
    "LinearSystem",
    "Past",
    "Quantity",
    "Signal",
    "System",
    "Time",
    "Unit",
    "UnitError",
    "Values",
    "as_signal",
    "check_units_agree",
    "clamp",
    "closed_loop",
    "connect",
    "cut",
    "delay_times",
    "flat_names",
    "inject",
    "intervene",
    "parse_unit",
    "positions",
    "present",
    "silence",
]
