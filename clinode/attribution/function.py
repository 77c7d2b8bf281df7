"""Attributions of any differentiable function: an image network, a region -> output map.

The same code explains the events of a cohort (`clinode.attribution.explain`). Here the caller
chooses the baseline, and should say why: an attribution answers "compared with what".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinode.attribution.coalitions import Game, against
from clinode.attribution.methods import (
    COALITIONS,
    MethodConfig,
    check_method,
    explain_game,
    explain_rows,
)
from clinode.errors import ArgumentError


@dataclass(frozen=True)
class AttributionMap:
    """What `attribute` found, one row of the batch at a time.

    Args:
        values: Attributions, the shape of x, float64; NaN where a row is withheld.
        output, base: f at x and at the baseline, (batch,).
        gap: Completeness gap relative to max(|f(x) - f(b)|, 0.1), (batch,); NaN for "saliency".
        withheld: (batch,) bool; the map of such a row is not to be shown.
        why: Words, one a row; empty where there is nothing to say.
        rows_used: Evaluations of the function, (batch,).
        error: Standard errors of `values` where they were drawn at random, the shape of x; else
            None. NaN for "kernel_shap", which does not know its own.
        method: The word that chose the method.
    """

    values: Tensor
    output: np.ndarray
    base: np.ndarray
    gap: np.ndarray
    withheld: np.ndarray
    why: tuple[str, ...]
    rows_used: np.ndarray
    method: str
    error: Tensor | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists; None where a number is undefined."""
        plain = torch.where(self.values.isfinite(), self.values, torch.nan)
        return {
            "method": self.method,
            "values": _without_nan(plain.tolist()),
            "output": _without_nan(self.output.tolist()),
            "base": _without_nan(self.base.tolist()),
            "gap": _without_nan(self.gap.tolist()),
            "withheld": self.withheld.tolist(),
            "why": list(self.why),
            "rows_used": self.rows_used.tolist(),
            "error": None if self.error is None else _without_nan(self.error.tolist()),
        }


def attribute(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    baseline: Tensor,
    *,
    method: str = "integrated_gradients",
    groups: Tensor | None = None,
    tolerance: float = 0.01,
    n_steps: int = 50,
    n_samples: int = 200,
    n_pairs: int = 16,
    seed: int = 0,
    batch_size: int = 256,
) -> AttributionMap:
    """What each entry of x adds to function(x) compared with function(baseline).

    Integrated gradients is adaptive (see `clinode.attribution.path`) and withholds a row whose
    attributions do not sum to the change of the output within the tolerance. "saliency" is the
    gradient at x with its sign and knows no baseline.

    Args:
        function: x (n, ...) -> one number a row (n,), rows independent of each other; n varies.
        x: (batch, ...) floating point. The arithmetic of the function is that of this dtype; sums
            are float64.
        baseline: The reference, of the shape of x or broadcast to it.
        method: By gradients: "integrated_gradients", "captum_integrated_gradients", "saliency",
            "input_x_gradient" (gradient at x times the difference from the baseline) or
            "gradient_shap" (drawn, with its error). By setting entries to their baseline: "shapley"
            (exact up to 10 groups), "kernel_shap" (up to 64), "event_deletion" or "occlusion" (each
            group alone).
        groups: Of the shape of one row of x, whole numbers: entries that come and go together, as
            the pixels of a patch. None: every entry by itself. What a group receives is shared
            equally by its entries. Only for methods that leave entries out; these give a group
            that stands at its baseline anyway exactly 0, without asking.
        tolerance: Largest completeness gap relative to max(|f(x) - f(b)|, 0.1).
        n_steps: Nodes of "captum_integrated_gradients".
        n_samples: Draws of "gradient_shap".
        n_pairs: Orders that "shapley" draws, each with its reverse.
        seed: Of what is drawn.
        batch_size: Rows in one call of the function.

    Raises:
        ArgumentError: The method is refused or unknown, x is not floating point, the baseline does
            not fit it, or the function does not return one number a row.

    Example:
        A linear function is its own explanation:

        >>> x, baseline = torch.tensor([[1.0, 2.0, 3.0]]).double(), torch.zeros(3).double()
        >>> attribute(lambda x: x @ torch.tensor([1.0, -1.0, 0.5]).double(), x, baseline).values
        tensor([[ 1.0000, -2.0000,  1.5000]], dtype=torch.float64)
    """
    config = MethodConfig(
        tolerance=tolerance,
        n_steps=n_steps,
        n_samples=n_samples,
        n_pairs=n_pairs,
        seed=seed,
        batch_size=batch_size,
    )
    check_method(method)
    if not x.is_floating_point() or x.numel() == 0:
        raise ArgumentError(
            "x must be a floating point tensor (batch, ...) with at least one entry, "
            f"got {x.dtype} of {tuple(x.shape)}"
        )
    try:
        start = torch.broadcast_to(baseline, x.shape).to(x)
    except RuntimeError:
        raise ArgumentError(
            f"a baseline of {tuple(baseline.shape)} does not fit x of {tuple(x.shape)}"
        ) from None

    def of_rows(rows: Tensor, _which: Tensor) -> Tensor:
        value = function(rows.reshape(-1, *x.shape[1:]))
        if value.shape != (len(rows),):
            raise ArgumentError(
                f"the function must return one number a row, ({len(rows)},), "
                f"got {tuple(value.shape)}",
                fix="select one output, as in lambda x: network(x)[:, 3]",
            )
        return value

    n = len(x)
    flat, reference = x.detach().reshape(n, -1), start.detach().reshape(n, -1)
    if method in COALITIONS:
        player = _moved(players_of(groups, x), (flat != reference).numpy(force=True))
        found = explain_game(Game(against(of_rows, flat, reference), player), method, config)
    elif groups is not None:
        raise ArgumentError(f"{method!r} leaves nothing out and takes no groups")
    else:
        found = explain_rows(of_rows, flat, reference, method, config)
    values = found.values.clone()
    values[torch.from_numpy(found.withheld)] = torch.nan
    return AttributionMap(
        values=values.reshape(x.shape),
        output=found.output,
        base=found.base,
        gap=found.gap,
        withheld=found.withheld,
        why=tuple(found.why),
        rows_used=found.rows_used,
        method=method,
        error=None if found.error is None else found.error.reshape(x.shape),
    )


def players_of(groups: Tensor | None, x: Tensor) -> np.ndarray:
    """Of each entry of a flat row, the number of its group.

    Raises:
        ArgumentError: The groups do not fit x.
    """
    if groups is None:
        return np.arange(x[0].numel())
    if groups.shape != x.shape[1:] or groups.is_floating_point() or groups.is_complex():
        raise ArgumentError(
            f"groups must be whole numbers of the shape of a row, {tuple(x.shape[1:])}, "
            f"got {groups.dtype} of {tuple(groups.shape)}"
        )
    return np.unique(groups.reshape(-1).numpy(force=True), return_inverse=True)[1]


def _moved(player: np.ndarray, differs: np.ndarray) -> np.ndarray:
    """Players of each row: the groups in which some entry differs from its baseline.

    The others would receive what rounding makes of the same input in another place of a batch.

    Args:
        player: (entry,) number of its group.
        differs: (row, entry).

    Returns:
        (row, entry), numbered anew in each row, -1 for no player.
    """
    found = np.full(differs.shape, -1, dtype=np.int64)
    for row, here in enumerate(differs):
        number = np.full(int(player.max()) + 1, -1, dtype=np.int64)
        moved = np.unique(player[here])
        number[moved] = np.arange(len(moved))
        found[row] = number[player]
    return found


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_without_nan(leaf) for leaf in tree]
    return tree if np.isfinite(tree) else None
