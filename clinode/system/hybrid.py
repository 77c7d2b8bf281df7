"""What a vector field alone does not say: events that make a state jump, and delays.

Declared here, checked when the constants of a system are registered, solved in
`clinode.dynamics`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError

from .quantity import Quantity, listed, nearest, positions

if TYPE_CHECKING:
    from .system import System

Past = dict[str, Float[Tensor, "..."]]  # of a delayed state by name: its values at each delay


@dataclass(frozen=True)
class Event:
    """Something that happens when a function of time and state crosses zero: a spike, a refill.

    Written in the class body after the functions it names, which are called as unbound functions of
    the system, so that `torch.func.functional_call` sees swapped constants::

        def _at_threshold(self, t, x):
            return self.split(x)["V"] - self.V_th

        def _after_spike(self, x):
            parts = self.split(x)
            return self.join(V=self.V_r.expand_as(parts["V"]), w=parts["w"] + self.b)

        events = (Event("spike", _at_threshold, _after_spike, refractory="t_ref", held=("V",)),)

    The reset takes the state just before the event to the state just after it. For the refractory
    time after an event its guard is not looked at, the states `held` stay at their reset values
    and the others flow on. Gradients through an event carry the saltation term. What crossings can
    stay unseen, `clinode.dynamics.simulate` says; a guard that is not a number ends the solution.

    Args:
        name: How the table of events calls it.
        guard: (system, t, x) -> (..., 1).
        reset: (system, x) -> (..., n_states); None: the event is noted and the state goes on.
        direction: 1: the guard crosses zero upward; -1: downward; 0: either way.
        refractory: Name of a constant of one value, a time; None for no such time.
        held: Names of states, blocks or flat ones, that stand still during the refractory time.

    Raises:
        ArgumentError: No name, a direction that is none of the three, a guard or reset that cannot
            be called, states held without a refractory time.
    """

    name: str
    guard: Callable[..., Tensor]
    reset: Callable[..., Tensor] | None = None
    direction: int = 1
    refractory: str | None = None
    held: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "held", tuple(self.held))
        if not self.name:
            raise ArgumentError("an event needs a name")
        if not callable(self.guard) or not (self.reset is None or callable(self.reset)):
            raise ArgumentError(f"event '{self.name}': guard and reset must be functions")
        if self.direction not in (-1, 0, 1):
            raise ArgumentError(
                f"event '{self.name}': direction must be 1 (upward), -1 (downward) or 0 (either), "
                f"got {self.direction}"
            )
        if self.held and self.refractory is None:
            raise ArgumentError(
                f"event '{self.name}' holds {listed(self.held)}, but for no time",
                fix="name the constant that holds the refractory time",
            )


@dataclass(frozen=True)
class Delay:
    """A state whose past the vector field reads: then `vector_field(t, x, u, past)`.

    `past[state][..., k, i]` is x_{state, i} at t - times[..., k, i]. A constant of times has batch
    axes and then its own last axis, 1 or the block's size; `past[state]` is then (..., block size).
    A buffer of times has no batch axes: of shape (*d, 1) or (*d, block size) it gives `past[state]`
    of shape (..., *d, block size). A matrix of delays (region, region) so gives each receiving
    region the block as that region sees it. Before the start the history is the initial state,
    unless the caller gives another; at an equilibrium past and present are the same.

    Args:
        state: Name of a state, of a whole block if it is one.
        times: Name of the constant or buffer with the delays, in time units, not negative.
    """

    state: str
    times: str


def check_events(owner: str, events: Sequence[Event]) -> None:
    """Raise ArgumentError where two events of a class have one name."""
    names = [event.name for event in events]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ArgumentError(f"{owner} has more than one event {listed(repeated)}")


def check_jumps(system: "System") -> None:
    """Raise ArgumentError where events or delays name a state or constant that there is not."""
    owner = type(system).__name__
    check_events(owner, system.events)
    constants = {quantity.name: quantity for quantity in system.constants}
    for event in system.events:
        for name in event.held:
            positions(system.states, name, f"state held by event '{event.name}' of {owner}")
        _check_refractory(owner, event, constants)
    known = [quantity.name for quantity in system.states]
    for delay in system.delays:
        if delay.state not in known:
            raise ArgumentError(
                f"{owner} has no state '{delay.state}' to delay: {nearest(delay.state, known)}"
            )
    delayed = [delay.state for delay in system.delays]
    if len(set(delayed)) < len(delayed):
        raise ArgumentError(
            f"{owner} delays a state twice",
            fix="give the state one buffer of delays, (kinds, block size)",
        )


def delay_times(system: "System") -> dict[str, Tensor]:
    """The delays of a system by delayed state, in time units, as `Delay` describes their shape.

    Raises:
        ArgumentError: Delays that are missing, negative, not finite, or of another last axis than
            1 or the block's size.
    """
    check_jumps(system)
    sizes = {quantity.name: quantity.size for quantity in system.states}
    return {d.state: _times_of(system, d, sizes[d.state]) for d in system.delays}


def present(system: "System", x: Float[Tensor, "... state"]) -> Past:
    """The past of a system that has always been at x: what it reads at an equilibrium."""
    blocks = system.split(x)
    declared = {quantity.name for quantity in system.constants}
    past: Past = {}
    for delay in system.delays:
        block, times = blocks[delay.state], getattr(system, delay.times)
        own = 0 if delay.times in declared else times.ndim - 1
        view = block.reshape(*block.shape[:-1], *[1] * own, block.shape[-1])
        past[delay.state] = view.expand(
            *block.shape[:-1], *times.shape[times.ndim - 1 - own : -1], block.shape[-1]
        )
    return past


def _check_refractory(owner: str, event: Event, constants: dict[str, Quantity]) -> None:
    if event.refractory is None:
        return
    if event.refractory not in constants:
        raise ArgumentError(
            f"event '{event.name}': {owner} has no constant '{event.refractory}' to be its "
            f"refractory time: {nearest(event.refractory, constants)}"
        )
    if constants[event.refractory].size != 1:
        raise ArgumentError(
            f"event '{event.name}': its refractory time '{event.refractory}' must be one value"
        )


def _times_of(system: "System", delay: Delay, size: int) -> Tensor:
    owner = type(system).__name__
    times: Any = getattr(system, delay.times, None)
    if not isinstance(times, Tensor):
        raise ArgumentError(
            f"{owner} has no constant or buffer '{delay.times}' with the delays of '{delay.state}'"
        )
    if times.ndim == 0 or times.shape[-1] not in (1, size):
        raise ArgumentError(
            f"delays '{delay.times}' have shape {tuple(times.shape)}, expected a last axis of 1"
            + (f" or {size}" if size > 1 else "")
        )
    if not times.isfinite().all() or (times < 0).any():
        raise ArgumentError(f"delays '{delay.times}' must be finite and not negative")
    return times
