"""Follow-up after a prediction time, cut into intervals: the clock of survival models.

Interval j runs from end j-1, exclusive, to end j, inclusive; the first begins at 0, the prediction
time. In each, a subject who is still there has some chance of an event of each cause. Within an
interval these chances are spread as constant hazards spread them, which settles everything that
happens inside of one: with p the chance to come through the whole interval, p^w is that of coming
through a share w of it, and the causes keep their shares. That assumption costs little where
intervals are short, as they are where events are many (`cut` puts ends at quantiles of the event
times), and nothing is said behind the last end.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional

from clinode.errors import ArgumentError, SchemaError

MOST_INTERVALS = 20
EVENTS_AN_INTERVAL = 8  # fewer say too little of a hazard
HORIZON_QUANTILES = (0.25, 0.5, 0.75)  # of the event times: the hours at which answers are given


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Ends of the intervals, how many causes compete, and where answers are given.

    Args:
        ends: Hours after the prediction time, ascending and positive.
        n_causes: Causes are 1 to this number.
        horizons: Hours after the prediction time, none behind the last end; the middle one is the
            horizon of `probability`, and the one that is explained.
    """

    ends: tuple[float, ...]
    n_causes: int
    horizons: tuple[float, ...]

    @classmethod
    def cut(
        cls, event_hours: Float[np.ndarray, " event"], cause: Integer[np.ndarray, " event"]
    ) -> "Intervals":
        """Choose them from the events of a training part.

        Args:
            event_hours: After the prediction time of each event.
            cause: 1, 2, ...

        Raises:
            SchemaError: There is no event, or none of a cause below the highest.
        """
        if not len(cause):
            raise SchemaError(
                "no subject of the training part has an event after its prediction time",
                where="outcomes",
                fix="check the column of events, or give an earlier landmark",
            )
        n_causes = int(cause.max())
        absent = sorted(set(range(1, n_causes + 1)) - set(cause.tolist()))
        if absent:
            raise SchemaError(
                f"the training part has causes up to {n_causes}, but no event of cause {absent[0]}",
                where="outcomes",
                fix="number the causes 1, 2, ... without a gap",
            )
        n = min(MOST_INTERVALS, max(1, len(cause) // EVENTS_AN_INTERVAL))
        ends = np.unique(np.quantile(event_hours, np.arange(1, n + 1) / n))
        horizons = np.unique(np.quantile(event_hours, HORIZON_QUANTILES))
        return cls(ends=tuple(ends.tolist()), n_causes=n_causes, horizons=tuple(horizons.tolist()))

    @property
    def horizon(self) -> float:
        """Hours at which the one number of a subject is given."""
        return self.horizons[len(self.horizons) // 2]

    @property
    def starts(self) -> tuple[float, ...]:
        """Hours after which each interval runs."""
        return (0.0, *self.ends[:-1])

    def check_horizons(self, hours: Sequence[float] | None) -> tuple[float, ...]:
        """Asked horizons; their own for None.

        Raises:
            ArgumentError: None, one that is not positive, or one behind the last end.
        """
        if hours is None:
            return self.horizons
        asked = tuple(float(hour) for hour in hours)
        if not asked or not all(0 < hour <= self.ends[-1] for hour in asked):
            raise ArgumentError(
                f"horizons must be hours in (0, {self.ends[-1]:g}], the time that the training "
                f"part speaks of, got {', '.join(f'{hour:g}' for hour in asked) or 'none'}"
            )
        return asked

    def share_until(self, hours: Float[Tensor, "..."]) -> Float[Tensor, "... interval"]:
        """Share of each interval that has passed at these hours, 0 to 1, float64."""
        start = torch.tensor(self.starts, dtype=torch.float64, device=hours.device)
        end = torch.tensor(self.ends, dtype=torch.float64, device=hours.device)
        return ((hours.double().unsqueeze(-1) - start) / (end - start)).clamp(0, 1)

    def interval_of(self, hours: Float[Tensor, "..."]) -> Integer[Tensor, "..."]:
        """The interval in which these hours lie; their number behind the last end."""
        end = torch.tensor(self.ends, dtype=torch.float64, device=hours.device)
        return torch.searchsorted(end, hours.double().contiguous())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Intervals":
        """What `to_dict` wrote; JSON knows no tuples."""
        return cls(
            ends=tuple(data["ends"]), n_causes=data["n_causes"], horizons=tuple(data["horizons"])
        )


def log_survived(logit: Float[Tensor, "... cause"]) -> Float[Tensor, "..."]:
    """Log of the chance to come through an interval: log odds of each cause against survival."""
    return -functional.softplus(torch.logsumexp(logit, dim=-1))


def log_likelihood(
    logit: Float[Tensor, "*tower batch interval cause"],
    intervals: Intervals,
    entry: Float[Tensor, " batch"],
    event: Float[Tensor, " batch"],
    cause: Integer[Tensor, " batch"],
) -> Float[Tensor, "*tower batch"]:
    """Log likelihood of what is known of each subject, given that it was there at its entry.

    The event counts as known to its interval; survival counts by the share of each interval that
    was watched, from the entry (left truncation) to the end of follow-up. Follow-up behind the last
    end counts up to there.

    Args:
        logit: Log odds of each cause against coming through each interval.
        intervals: Which ones.
        entry: Hours after the prediction time from which a subject was watched.
        event: Hours after the prediction time at which it ended.
        cause: 0 where it ended without an event, else the cause.
    """
    through = log_survived(logit)
    end = torch.tensor(intervals.ends, dtype=torch.float64, device=event.device)
    entered, left = intervals.share_until(entry), intervals.share_until(event)
    has_event = (cause > 0) & (event <= end[-1])
    held = intervals.interval_of(event).clamp(max=len(end) - 1)
    is_held = functional.one_hot(held, len(end)).bool() & has_event.unsqueeze(-1)
    watched = torch.where(is_held, 0.0, (left - entered).clamp(min=0)).to(logit.dtype)
    survived = (through * watched).sum(dim=-1)
    # the rest of the event's interval, from the entry if that lies inside: log(1 - p^rest)
    place = held.view(-1, 1)
    rest = (1 - entered.gather(1, place)).squeeze(1).to(logit.dtype)
    at_event = held.view(-1, 1, 1).expand(*logit.shape[:-2], 1, logit.shape[-1])
    odds = logit.gather(-2, at_event).squeeze(-2)
    through_rest = (-functional.softplus(torch.logsumexp(odds, dim=-1)) * rest).clamp(max=-1e-30)
    share = functional.log_softmax(odds, dim=-1)
    which = (cause - 1).clamp(min=0).view(-1, 1).expand(*share.shape[:-1], 1)
    happened = torch.log(-torch.expm1(through_rest)) + share.gather(-1, which).squeeze(-1)
    return survived + torch.where(has_event, happened, 0.0)


def cumulative_incidence(
    logit: Float[Tensor, "batch interval cause"],
    intervals: Intervals,
    hours: Float[Tensor, " hour"],
) -> Float[Tensor, "batch hour cause"]:
    """Chance of an event of each cause by these hours after the prediction time.

    1 - its sum over the causes is the survival. Inside an interval as constant hazards have it, so
    it rises without a step. Differentiable in the log odds.
    """
    through = log_survived(logit).unsqueeze(1)  # (batch, 1, interval)
    passed = intervals.share_until(hours).to(logit.dtype).unsqueeze(0)
    before = torch.cumsum(through, dim=2) - through
    ended = torch.exp(before) * -torch.expm1(through * passed)
    return ended @ torch.softmax(logit, dim=-1)
