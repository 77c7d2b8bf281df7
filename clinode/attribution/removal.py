"""Whether what an attribution points at matters: entries removed by rank, and in random order.

An entry is removed by setting it to the baseline. If an attribution is right about a function, the
output falls faster along its ranks than along random ones. It is a necessary sign, not proof: a
baseline that the function never saw may fool both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.attribution.function import AttributionMap, players_of
from clinode.errors import ArgumentError
from clinode.statistics import Estimate, bootstrap_interval
from clinode.system import Values

_SMALLEST_CHANGE = 0.1  # as of completeness gaps: of a change of nothing nothing can be kept


@dataclass(frozen=True)
class RemovalCurves:
    """What is left of the change of the output while entries are removed.

    Attributes:
        fractions: (step,) of the entries or groups that are removed, 0 first.
        by_rank: (row, step), share of the change that is left, largest contributions first.
        at_random: The same, mean over random orders.
        advantage: Mean over rows and steps of `at_random` - `by_rank`, with its interval over rows.
        n_withheld: Rows whose attribution is withheld, and which are not here.
    """

    fractions: Float[np.ndarray, " step"]
    by_rank: Float[np.ndarray, "row step"]
    at_random: Float[np.ndarray, "row step"]
    advantage: Estimate
    n_withheld: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON, curves as means over rows."""
        return {
            "fractions": self.fractions.tolist(),
            "by_rank": self.by_rank.mean(axis=0).tolist(),
            "at_random": self.at_random.mean(axis=0).tolist(),
            "advantage": self.advantage.to_dict(),
            "n_withheld": self.n_withheld,
        }


def removal_curves(
    function: Callable[[Tensor], Tensor],
    found: AttributionMap,
    x: Tensor,
    baseline: Tensor,
    *,
    groups: Tensor | None = None,
    fractions: Values = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
    n_random: int = 20,
    seed: int = 0,
) -> RemovalCurves:
    """Remove entries from each row, those first that contribute most to the change of the output.

    Where the output is below that at the baseline, those first that lower it most. Shares are
    relative to max(|f(x) - f(b)|, 0.1).

    Args:
        function: As for `attribute`.
        found: Attributions of this function at `x` against `baseline`, by any method.
        x: (row, ...).
        baseline: Of the shape of x or broadcast to it.
        groups: As for `attribute`: entries that are removed together.
        fractions: Of the entries or groups, from 0 to 1.
        n_random: Random orders a row.
        seed: Of these.

    Raises:
        ArgumentError: The attributions are of another shape or all withheld, fractions out of
            range or order, no random order.

    Example:
        >>> from clinode.attribution import attribute
        >>> x, dark = torch.tensor([[3.0, 0.0, 0.0, 1.0]]), torch.zeros(4)
        >>> found = attribute(lambda x: x.sum(1), x, dark)
        >>> removal_curves(lambda x: x.sum(1), found, x, dark, fractions=(0.0, 0.25, 0.5)).by_rank
        array([[1.  , 0.25, 0.  ]])
    """
    steps = np.asarray(fractions, dtype=np.float64).ravel()
    if not len(steps) or not (0 <= steps[0] and steps[-1] <= 1 and (np.diff(steps) > 0).all()):
        raise ArgumentError("fractions must increase and lie from 0 to 1")
    if found.values.shape != x.shape or n_random < 1:
        raise ArgumentError(
            f"attributions of {tuple(found.values.shape)} for x of {tuple(x.shape)}, and at least "
            "one random order, are needed"
        )
    rows = np.flatnonzero(~found.withheld)
    if not len(rows):
        raise ArgumentError("every row is withheld, so there is nothing to remove by")
    start = torch.broadcast_to(baseline, x.shape).to(x)
    player = players_of(groups, x)
    n_players = int(player.max()) + 1
    counts = np.rint(steps * n_players).astype(int)
    draw = np.random.default_rng(seed)
    by_rank, at_random = [], []
    for row in rows:
        change = found.output[row] - found.base[row]
        values = found.values[row].reshape(-1).numpy(force=True) * np.sign(change)
        share = np.bincount(player, weights=values, minlength=n_players)
        orders = [np.argsort(-share, kind="stable")]
        orders += [draw.permutation(n_players) for _ in range(n_random)]
        gone = np.argsort(orders, axis=1)[:, None, :] < counts[:, None]  # (order, step, player)
        removed = torch.from_numpy(gone.reshape(-1, n_players)[:, player]).to(x.device)
        shown = torch.where(removed.reshape(-1, *x.shape[1:]), start[row], x[row])
        with torch.no_grad():
            output = function(shown).double().numpy(force=True).reshape(len(orders), -1)
        left = (output - found.base[row]) * np.sign(change) / max(abs(change), _SMALLEST_CHANGE)
        by_rank.append(left[0])
        at_random.append(left[1:].mean(axis=0))
    curves = np.array(by_rank), np.array(at_random)
    ahead = (curves[1] - curves[0]).mean(axis=1)
    return RemovalCurves(
        fractions=steps,
        by_rank=curves[0],
        at_random=curves[1],
        advantage=bootstrap_interval(
            lambda drawn: float(ahead[drawn].mean()), len(ahead), seed=seed
        ),
        n_withheld=int(found.withheld.sum()),
    )
