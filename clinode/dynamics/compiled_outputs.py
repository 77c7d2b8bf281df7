"""States at output times from the log of a compiled solution."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .compiled_loop import Method
from .compiled_trace import Spec
from .runge_kutta import interpolate


def states_between(
    method: Method,
    times: Tensor,
    log_t: Tensor,
    count: Tensor,
    known: Sequence[Tensor],
) -> Tensor:
    """The states at each row's own times; NaN after its last step.

    Args:
        method: Whose curve lies between two steps.
        times: (row, time).
        log_t: (row, slot), times after the attempts, that of the last one repeated or +inf.
        count: (row,), attempts of each row.
        known: (row, slot, state) each: the node, and what the curve that ends there needs.

    Returns:
        (row, time, state).
    """
    row = torch.arange(times.shape[0], device=times.device).unsqueeze(-1)
    last = count.unsqueeze(-1)
    found = torch.searchsorted(log_t, times, right=True) - 1
    before = torch.minimum(found, last - 1).clamp(min=0)
    after = torch.minimum(before + 1, last)
    start, end = log_t.gather(1, before), log_t.gather(1, after)
    width = torch.where(end > start, end - start, 1.0)
    node, curve = known[: method.n_node], known[method.n_node :]
    left = tuple(value[row, before] for value in node)
    right = tuple(value[row, after] for value in node)
    curve = method.curve(end - start, left, right, tuple(value[row, after] for value in curve))
    states = interpolate((times - start) / width, left[0], right[0], curve)
    at_start = (times <= start).unsqueeze(-1)
    unknown = (times > log_t.gather(1, last)).unsqueeze(-1)
    return torch.where(at_start, left[0], states).masked_fill(unknown, torch.nan)


def output_specs(method: Method, n_states: int, dtype: torch.dtype, device: torch.device):
    """Arguments of `states_between` as it is compiled."""
    state = n_states if n_states == 1 else "state"
    plain = [
        Spec(("row", "time"), torch.float64, device),
        Spec(("row", "slot"), torch.float64, device),
        Spec(("row",), torch.int64, device),
    ]
    known = Spec((method.n_node + method.n_curve, "row", "slot", state), dtype, device)
    return [*plain, known]
