"""What all networks on a connectome share: regions, weights, delays, noise, stimuli by region."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.brain.connectome import Connectome
from clinode.errors import ArgumentError
from clinode.system import Delay, Past, Quantity, System, Time, Values
from clinode.system.values import times_vector

State = Float[Tensor, "... state"]
Input = Float[Tensor, "... input"]
Blocks = Mapping[str, Tensor]  # by state, (..., region); of the past (..., target, source)

PER_MILLISECOND = {"ms": 1.0, "s": 1e-3, "1": 1.0}  # time units of a system


class Network(System):
    """The same population in each region, coupled by what the regions receive of one another.

    A class names the quantities of one region; an instance has each of them once a region, flat
    names read `E:lh_precuneus`. W is the connectome's weights divided by the largest total that a
    region receives, so that their arbitrary unit does not matter and K bounds the coupling. It is a
    constant of n x n members named "target<-source": `with_constants(W=...)` takes another network
    (W.flatten(-2)) or a batch of them. Every network takes

        speed: Of conduction, mm/ms; None is a network without delays. The delay of a weight is its
            tract's length over the speed; what has no weight in the connectome has no delay.
        delay_step: Delays are rounded to whole multiples of it, in the system's time unit, as most
            simulators do; None keeps them. Short tracts then need no short steps.
        sigma: Strength of the white noise, Ito, which drives the states of `noisy`; None is a
            network without noise, which then has no such constant.

    Attributes:
        connectome: Regions and weights.
        by_region: Constants that may differ between regions.
        delayed: States of which regions see one another's past.
        noisy: States that the noise drives.
    """

    connectome: Connectome
    by_region: tuple[str, ...] = ()
    delayed: tuple[str, ...] = ()
    noisy: tuple[str, ...] = ()

    def _place(
        self,
        connectome: Connectome,
        values: Mapping[str, Values],
        *,
        speed: float | None,
        delay_step: float | None,
        sigma: Values | None,
        inputs: tuple[str, ...] = (),
        further: tuple[Quantity, ...] = (),
    ) -> None:
        """Give every region its quantities, and all of them their constants.

        Args:
            connectome: Regions, weights, tract lengths.
            values: Constants of the class, and of `further`.
            speed: As of the class.
            delay_step: As of the class.
            sigma: As of the class.
            inputs: Labels of the inputs, the regions by default.
            further: Constants that are known only now.

        Raises:
            ArgumentError: A speed or step that is not positive, delays without tract lengths.
        """
        kind, regions = type(self), connectome.labels
        self.connectome = connectome
        self.is_noisy = sigma is not None
        self.states = tuple(replace(q, labels=regions) for q in kind.states)
        self.inputs = tuple(replace(q, labels=inputs or regions) for q in kind.inputs)
        if kind.outputs:
            self.outputs = tuple(replace(q, labels=regions) for q in kind.outputs)
        pairs = tuple(f"{target}<-{source}" for target in regions for source in regions)
        own = (
            replace(q, labels=regions) if q.name in self.by_region else q for q in kind.constants
        )
        self.constants = (*own, Quantity("W", "1", pairs), *further)
        values = {**values, "W": connectome.scaled().weights.flatten()}
        if sigma is not None:
            self.constants = (*self.constants, Quantity("sigma", self._noise_unit()))
            values["sigma"] = sigma
        if speed is not None:
            times = _delays(connectome, speed, self.time_unit, delay_step)
            self.register_buffer("delay_times", times)
            self.delays = tuple(Delay(name, "delay_times") for name in self.delayed)
        elif delay_step is not None:
            raise ArgumentError("delay_step rounds delays, and without a speed there are none")
        self.register_constants(**values)

    @property
    def weights(self) -> Float[Tensor, "... region region"]:
        """W as a matrix: row k holds what region k receives."""
        n = len(self.states[0].labels)
        return self.W.unflatten(-1, (n, n))

    @property
    def noise(self):  # pyright: ignore[reportIncompatibleVariableOverride]  (its type is the same)
        """Standard deviation of the white noise on each state (Ito), or None."""
        return self._noise if self.is_noisy else None

    def _noise(self, t: Time, x: State, u: Input) -> State:
        driven = {
            name: torch.zeros_like(block) + (self.sigma if name in self.noisy else 0.0)
            for name, block in self.split(x).items()
        }
        return self.join(**driven)

    def _noise_unit(self) -> str:
        unit = next(q.unit for q in type(self).states if q.name == self.noisy[0])
        per = f"{self.time_unit}**0.5" if self.time_unit != "1" else "1"
        return f"{unit}/{per}"

    def received(
        self, sent: Callable[[Blocks], Tensor], states: Blocks, past: Past | None
    ) -> Float[Tensor, "... region"]:
        """sum_j W_kj sent_j at every region k, of what the others were when k sees them.

        Args:
            sent: What a region sends, elementwise, given its states.
            states: Of the regions now.
            past: Of the delayed states, past[state][..., k, j] is j's as region k sees it; None
                where there are no delays.
        """
        if past is None:
            return times_vector(self.weights, sent(states))
        n_batch = max(getattr(self, q.name).ndim for q in self.constants) - 1
        seen = {}
        for name, block in past.items():
            block = block.reshape(*[1] * (n_batch + 2 - block.ndim), *block.shape)
            seen[name] = block.movedim(-2, 0)  # targets lead, so that constants meet sources
        return (self.weights * sent(seen).movedim(0, -2)).sum(-1)


def _delays(
    connectome: Connectome, speed: float, time_unit: str, delay_step: float | None
) -> Float[Tensor, "target source"]:
    """Lengths over speed, in the time unit."""
    if connectome.tract_lengths is None:
        raise ArgumentError(
            "delays need tract lengths and the connectome has none",
            fix="speed=None for a network without delays",
        )
    if not speed > 0:
        raise ArgumentError(f"speed must be positive, got {speed} mm/ms")
    used = connectome.weights != 0  # a pair without a weight needs no history
    times = connectome.tract_lengths / speed * PER_MILLISECOND[time_unit]
    times = torch.where(used, times, 0.0)
    if delay_step is None:
        return times
    if not delay_step > 0:
        raise ArgumentError(f"delay_step must be positive, got {delay_step} {time_unit}")
    return (times / delay_step).round() * delay_step
