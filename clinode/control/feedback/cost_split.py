"""What an expected cost consists of."""

from dataclasses import dataclass

from torch import Tensor

from .deviations import Deviations


@dataclass(frozen=True)
class CostSplit:
    """What the cost consists of; of a step or time unit without a horizon.

    Attributes:
        start: Of the state at time 0 (0 without a horizon).
        process: Of the process noise, to who sees the state.
        estimation: Of not seeing it.
    """

    start: float
    process: float
    estimation: float

    @property
    def total(self) -> float:
        """The cost."""
        return self.start + self.process + self.estimation

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"start": self.start, "process": self.process, "estimation": self.estimation}


def start_cost(d: Deviations, P: Tensor) -> float:
    """Cost from the initial state, its covariance included, by the cost to go P."""
    return number(((P @ d.mean) * d.mean).sum() + (P * d.spread).sum())


def number(value: Tensor) -> float:
    """As a number, without its gradient."""
    return float(value.detach())
