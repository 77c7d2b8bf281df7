"""Synapses of two strengths with hidden states: what is left of a memory as others are stored.

A plasticity event potentiates a synapse or depresses it, and its state steps by one of two Markov
matrices. Between them stands the mean step M = f M+ + (1 - f) M-, a linear system. Columns are the
states left, rows those entered. Time is counted in events.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, Quantity, Values

FURTHEST = 2**52  # events: beyond, a count of them has no exact float
SCANNED = 400  # times, spaced evenly in their logarithm, at which a last crossing is looked for


class MarkovSynapse(ABC):
    """A synapse whose events step hidden states, each weak (-1) or strong (+1).

    Args:
        potentiation: f, the share of events that potentiate.

    Raises:
        ArgumentError: `potentiation` is not inside (0, 1).
    """

    def __init__(self, potentiation: float = 0.5):
        if not 0 < potentiation < 1:
            raise ArgumentError(f"potentiation must lie inside (0, 1), got {potentiation}")
        self.potentiation = float(potentiation)

    @property
    @abstractmethod
    def M_plus(self) -> Float[Tensor, "state state"]:
        """One step of potentiation, float64; each column sums to 1."""

    @property
    @abstractmethod
    def M_minus(self) -> Float[Tensor, "state state"]:
        """One step of depression."""

    @property
    @abstractmethod
    def strength(self) -> Float[Tensor, " state"]:
        """-1 where the synapse is weak, 1 where it is strong."""

    @property
    def n_states(self) -> int:
        """Weak and strong ones together."""
        return len(self.strength)

    @property
    def M(self) -> Float[Tensor, "state state"]:
        """The mean step."""
        f = self.potentiation
        return f * self.M_plus + (1 - f) * self.M_minus

    def equilibrium(self) -> Float[Tensor, " state"]:
        """The distribution over states that ongoing events leave unchanged.

        Raises:
            SolverError: There is more than one: some states are never left for others.
        """
        # Grassmann, Taksar & Heyman 1985, Oper. Res. 33:1107-1116: states are taken out one by one
        # without a subtraction, so that the smallest probabilities are as accurate as the largest
        step = self.M.clone()
        n = self.n_states
        for k in range(n - 1, 0, -1):
            leaving = step[:k, k].sum()
            if not leaving > 0:
                raise SolverError(
                    "the synapse has more than one equilibrium, or states that no event leaves",
                    where=type(self).__name__,
                    fix="give every state a way to every other",
                )
            step[k, :k] /= leaving
            step[:k, :k] += torch.outer(step[:k, k], step[k, :k])
        share = torch.ones(n).double()
        for k in range(1, n):
            share[k] = step[k, :k] @ share[:k]
        return share / share.sum()

    def signal(self, t: Values) -> Float[Tensor, "*time"]:
        """How much likelier a synapse potentiated at event 0 is to be strong than one depressed.

        s' M^t (M+ - M-) p with p the equilibrium and s = 1 on strong states, after t further
        events; t holds whole numbers from 0.

        Raises:
            ArgumentError: Negative, broken or too large numbers of events.
        """
        events = torch.as_tensor(t, dtype=torch.float64)
        if bool(((events < 0) | (events != events.round()) | (events > FURTHEST)).any()):
            raise ArgumentError("t counts events: whole numbers from 0 to 2^52")
        left = events.reshape(-1).long()
        trace = (self.M_plus - self.M_minus) @ self.equilibrium()
        traces = trace.expand(len(left), -1)
        power = self.M
        while bool((left > 0).any()):  # binary powers: one product of matrices a doubling
            traces = torch.where((left % 2 == 1).unsqueeze(1), traces @ power.T, traces)
            left, power = left // 2, power @ power
        strong = (self.strength > 0).double()
        return (traces @ strong).reshape(events.shape)

    def snr(self, t: Values, N: float | int) -> Float[Tensor, "*time"]:
        """sqrt(N) times the signal: that of N synapses over the noise of a +-1 readout of them.

        The noise is that of independent synapses that are strong half of the time, which is exact
        for f = 1/2.
        """
        _check_synapses(N)
        return math.sqrt(N) * self.signal(t)

    def time_constants(self) -> Float[Tensor, " state_less_one"]:
        """-1 / ln |eigenvalue| of the mean step, in events, slowest first.

        The stationary one is left out; a mode that is gone after one event has 0.
        """
        sizes = torch.linalg.eigvals(self.M).abs().sort(descending=True).values[1:]
        return torch.where(sizes > 1e-12, -1 / torch.log(sizes.clamp(1e-300, 1 - 1e-16)), 0.0)

    def lifetime(self, N: float | int, threshold: float = 1.0) -> float:
        """The last whole number of events at which the SNR is above the threshold; else 0.

        Args:
            N: Synapses.
            threshold: Of the SNR, positive.
        """
        if not threshold > 0:
            raise ArgumentError(f"threshold must be positive, got {threshold}")
        slowest = float(self.time_constants()[0])
        size = max(float(self.snr(0, N)), math.sqrt(N))
        end = min(FURTHEST, 10 + 2 * slowest * (1 + math.log(1 + size / threshold)) * self.n_states)
        times = torch.logspace(0, math.log10(end), SCANNED).double().round().unique()
        times = torch.cat([torch.zeros(1).double(), times])
        above = (self.snr(times, N) > threshold).nonzero().flatten()
        if not len(above):
            return 0.0
        last = int(above[-1])
        if last == len(times) - 1:
            raise SolverError(
                "the memory outlasts the events that can be counted", where=type(self).__name__
            )
        low, high = int(times[last]), int(times[last + 1])
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if float(self.snr(middle, N)) > threshold else (low, middle)
        return float(low)

    def system(self, rate: float = 1.0) -> LinearSystem:
        """The mean of the states as a linear system, where events come at random times.

        dp/dt = rate (M - I)(p - p0) + (M+ - M-) p0 u / 2, with an impulse of 1 in u for a memory
        that is stored; the output is the mean strength.

        Args:
            rate: Events in a time unit.
        """
        if not (rate > 0 and math.isfinite(rate)):
            raise ArgumentError(f"rate must be positive and finite, got {rate}")
        p = self.equilibrium()
        stored = ((self.M_plus - self.M_minus) @ p / 2).unsqueeze(1)
        n = self.n_states
        return LinearSystem(
            rate * (self.M - torch.eye(n).double()),
            stored,
            self.strength.unsqueeze(0),
            offset=(p, torch.zeros(1).double()),
            states=[
                Quantity(f"p{k}", "1", range=(0.0, 1.0), default=1 / n) for k in range(1, n + 1)
            ],
            inputs=[Quantity("memory", "1", default=0.0)],
            outputs=[Quantity("strength", "1", range=(-1.0, 1.0))],
        )


class CascadeSynapse(MarkovSynapse):
    """Metaplastic cascade. Fusi, Drew & Abbott 2005, Neuron 45:599-611.

    Either strength has n depths. An event against the strength flips a synapse of depth i with
    probability x^(i - 1) (x^(n - 1) / (1 - x) at the last), into depth 1 of the other strength; one
    along it deepens it from i to i + 1 with x^i / (1 - x). At f = 1/2 all states are then equally
    likely. States are weak 1 to n, then strong 1 to n.

    Args:
        n: Depths, at least 1.
        x: Ratio of one depth's probability to the last's, in (0, 1/2].
        potentiation: f, the share of events that potentiate.

    Raises:
        ArgumentError: n below 1, or x outside (0, 1/2], where x / (1 - x) is no probability.

    Example:
        >>> round(float(CascadeSynapse(n=10, x=0.5).time_constants()[0]), 3)
        509.784
    """

    def __init__(self, n: int = 10, x: float = 0.5, potentiation: float = 0.5):
        super().__init__(potentiation)
        _check_depths(n)
        if not 0 < x <= 0.5:
            raise ArgumentError(
                f"x must lie in (0, 1/2], got {x}",
                fix="above 1/2 the first depth deepens with x / (1 - x) > 1, no probability",
            )
        self.n, self.x = n, float(x)

    @property
    def M_plus(self) -> Float[Tensor, "state state"]:
        """Weak synapses flip, strong ones deepen."""
        return self._step(flips=0, deepens=self.n)

    @property
    def M_minus(self) -> Float[Tensor, "state state"]:
        """Strong synapses flip, weak ones deepen."""
        return self._step(flips=self.n, deepens=0)

    @property
    def strength(self) -> Float[Tensor, " state"]:
        """-1 for weak 1 to n, 1 for strong 1 to n."""
        one = torch.ones(self.n).double()
        return torch.cat([-one, one])

    def _step(self, flips: int, deepens: int) -> Float[Tensor, "state state"]:
        n, x = self.n, self.x
        depth = torch.arange(n)
        flip, deepen = x ** depth.double(), x ** (depth[1:].double()) / (1 - x)
        if n > 1:
            flip[-1] = x ** (n - 1) / (1 - x)
        step = torch.eye(2 * n).double()
        step[flips + depth, flips + depth] -= flip
        step[deepens, flips + depth] += flip
        step[deepens + depth[:-1], deepens + depth[:-1]] -= deepen
        step[deepens + depth[1:], deepens + depth[:-1]] += deepen
        return step


class SerialSynapse(MarkovSynapse):
    """States in a row, the lower half weak: an event moves a synapse one state up or down.

    Leibold & Kempter 2008, Cereb. Cortex 18:67-77; Lahiri & Ganguli 2013, NeurIPS 26. The two end
    states are left with probability `end`, the others with probability `step`.

    Args:
        n: Depths of either strength, at least 1.
        step: Probability of a step.
        end: Probability of leaving an end; None takes `step`.
        potentiation: f, the share of events that potentiate.

    Raises:
        ArgumentError: n below 1, or a probability outside (0, 1].

    Example:
        >>> SerialSynapse(n=2).M_plus[:, 0]
        tensor([0., 1., 0., 0.], dtype=torch.float64)
    """

    def __init__(
        self, n: int = 10, step: float = 1.0, end: float | None = None, potentiation: float = 0.5
    ):
        super().__init__(potentiation)
        _check_depths(n)
        self.n, self.step, self.end = n, float(step), float(step if end is None else end)
        if not (0 < self.step <= 1 and 0 < self.end <= 1):
            raise ArgumentError("step and end are probabilities in (0, 1]")

    @property
    def M_plus(self) -> Float[Tensor, "state state"]:
        """One state up."""
        up = torch.full((2 * self.n - 1,), self.step).double()
        up[0] = self.end
        return torch.diag(torch.cat([1 - up, torch.ones(1).double()])) + torch.diag(up, -1)

    @property
    def M_minus(self) -> Float[Tensor, "state state"]:
        """One state down."""
        return self.M_plus.flip(0, 1)

    @property
    def strength(self) -> Float[Tensor, " state"]:
        """-1 for the lower half, 1 for the upper."""
        one = torch.ones(self.n).double()
        return torch.cat([-one, one])


@dataclass(frozen=True)
class OptimalDepth:
    """The number of depths that keeps a memory longest.

    Attributes:
        n: That number.
        lifetimes: By number of depths, in events.
        N: Synapses.
    """

    n: int
    lifetimes: dict[int, float]
    N: float | int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "n": self.n,
            "N": self.N,
            "lifetimes": {str(k): v for k, v in self.lifetimes.items()},
        }


def optimal_depth(
    make: Callable[[int], MarkovSynapse],
    N: float | int,
    depths: Sequence[int] = tuple(range(1, 21)),
    threshold: float = 1.0,
) -> OptimalDepth:
    """Which number of depths outlives the others at a fixed number of synapses.

    Deeper synapses forget more slowly, and start from a smaller signal: time constants grow without
    end, lifetimes have a maximum.

    Args:
        make: Gives the synapse of a number of depths, `CascadeSynapse` say.
        N: Synapses.
        depths: Numbers of depths to try.
        threshold: Of the SNR.

    Raises:
        ArgumentError: No depths, or a threshold or an N that is not positive.

    Example:
        >>> optimal_depth(CascadeSynapse, N=1e5, depths=range(6, 13)).n
        10
    """
    if not len(depths):
        raise ArgumentError("there are no depths to try")
    lifetimes = {n: make(n).lifetime(N, threshold) for n in depths}
    return OptimalDepth(max(lifetimes, key=lambda n: lifetimes[n]), lifetimes, float(N))


def _check_depths(n: int) -> None:
    if n < 1:
        raise ArgumentError(f"n must be at least 1, got {n}")


def _check_synapses(N: float | int) -> None:
    if not (N > 0 and math.isfinite(N)):
        raise ArgumentError(f"N must be a positive number of synapses, got {N}")
