"""The attribution methods, each the same question asked of rows: which entry moved f, and how much.

A method takes a function of rows, the rows and their baselines, and returns one number an entry
with what is known about its error. Captum computes all but the default; it is called with rows of
one batch size at a time, with the subject of each row as its only extra argument (Captum repeats
that along the rows, as it must), and without a fixed grid that subjects share.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from jaxtyping import Float
from torch import Tensor

from clinode.attribution.path import RowFunction, integrate_path, relative_gap
from clinode.errors import ArgumentError


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """How a method runs.

    Args:
        tolerance: Largest completeness gap, relative to max(|f(x) - f(b)|, 0.1).
        n_steps: Gauss-Legendre nodes of "captum_integrated_gradients"; nobody else uses it.
        batch_size: Rows in one call of the function.
        progress: Called with (subjects done, all subjects).
    """

    tolerance: float = 0.01
    n_steps: int = 50
    batch_size: int = 256
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self):
        if not 0 < self.tolerance < 1:
            raise ArgumentError(f"tolerance must lie between 0 and 1, got {self.tolerance}")
        if self.n_steps < 2:
            raise ArgumentError(f"n_steps must be at least 2, got {self.n_steps}")
        if self.batch_size < 1:
            raise ArgumentError(f"batch_size must be at least 1, got {self.batch_size}")


@dataclass(frozen=True)
class RowAttributions:
    """Attributions of n rows with what is known about each.

    `gap` is relative to max(|df|, 0.1), NaN for a method that has no baseline; `why` is empty or
    says in words what is wrong, or what the method does not promise; what is `withheld` must not
    be shown.
    """

    values: Tensor  # (n, d) float64
    output: np.ndarray  # (n,) f at x
    base: np.ndarray  # (n,) f at the baseline
    gap: np.ndarray
    rows_used: np.ndarray
    withheld: np.ndarray
    why: list[str]


def method_named(name: str) -> Callable[..., RowAttributions]:
    """The method that a word picks.

    Raises:
        ArgumentError: It is refused, with the reason, or unknown.
    """
    if name in METHODS:
        return METHODS[name]
    if name.lower().replace("_", "").replace("-", "") in ("deeplift", "deepliftshap"):
        raise ArgumentError(
            f"{name!r} is refused: DeepLIFT raises on every model that reuses a layer, as all "
            "that run over time do, or silently returns attributions that do not add up (on a "
            "recurrent layer off by 38 to 83 % of the largest change of the output)",
            fix='use "integrated_gradients"',
        )
    near = get_close_matches(name, METHODS, n=1)
    raise ArgumentError(
        f"unknown attribution method {name!r}; there are: {', '.join(METHODS)}",
        fix=f"use {(near or ['integrated_gradients'])[0]!r}",
    )


def explain_rows(
    function: RowFunction,
    x: Float[Tensor, "n d"],
    baseline: Float[Tensor, "n d"],
    method: str,
    config: MethodConfig,
) -> RowAttributions:
    """Attributions of every row of x against its baseline.

    cuDNN refuses the backward pass of a recurrent layer in evaluation mode; it is switched off
    here, rather than the model put into training mode, which would turn its dropout on.
    """
    chosen = method_named(method)
    with torch.backends.cudnn.flags(enabled=False):
        return chosen(function, x, baseline, config)


def _adaptive(
    function: RowFunction, x: Tensor, baseline: Tensor, config: MethodConfig
) -> RowAttributions:
    """Integrated gradients, refined until each subject's sum is right: the default."""
    path = integrate_path(
        function,
        x,
        baseline,
        tolerance=config.tolerance,
        batch_size=config.batch_size,
        progress=config.progress,
    )
    gap = relative_gap(path.values, path.output, path.base)
    why = _why(gap, path.values, config.tolerance)
    for row in np.flatnonzero(~path.converged):
        why[row] = why[row] or "the path integral did not converge"
    return RowAttributions(
        values=path.values,
        output=path.output.numpy(),
        base=path.base.numpy(),
        gap=gap,
        rows_used=path.rows_used,
        withheld=np.array([bool(reason) for reason in why], dtype=bool),
        why=why,
    )


def _captum_integrated_gradients(
    function: RowFunction, x: Tensor, baseline: Tensor, config: MethodConfig
) -> RowAttributions:
    """Integrated gradients by Captum, with a fixed number of steps."""

    def values(piece: slice) -> Tensor:
        which = torch.arange(piece.start, piece.stop)
        return IntegratedGradients(function).attribute(
            x[piece],
            baselines=baseline[piece],
            additional_forward_args=(which,),
            n_steps=config.n_steps,
            internal_batch_size=max(config.batch_size, piece.stop - piece.start),
        )

    # an eighth of a batch, so that eight nodes of the path go into one call
    return _gated(
        function,
        x,
        baseline,
        values,
        config,
        rows_a_piece=max(1, config.batch_size // 8),
        rows_used=config.n_steps,
    )


def _saliency(
    function: RowFunction, x: Tensor, baseline: Tensor, config: MethodConfig
) -> RowAttributions:
    """The gradient by Captum, with its sign: a slope, not a share of the output."""

    def values(piece: slice) -> Tensor:
        which = torch.arange(piece.start, piece.stop)
        rows = x[piece].detach().requires_grad_()
        # Captum's default is the absolute value, which loses what raised and what lowered
        return Saliency(function).attribute(rows, abs=False, additional_forward_args=(which,))

    return _gated(
        function,
        x,
        baseline,
        values,
        config,
        rows_a_piece=config.batch_size,
        rows_used=1,
        promise="a gradient, not a share of the output: completeness does not apply",
        has_gap=False,
    )


def _input_x_gradient(
    function: RowFunction, x: Tensor, baseline: Tensor, config: MethodConfig
) -> RowAttributions:
    """Gradient times change from the baseline by Captum: first order only."""

    def values(piece: slice) -> Tensor:
        which = torch.arange(piece.start, piece.stop)
        change = (x[piece] - baseline[piece]).detach().requires_grad_()

        def from_baseline(difference: Tensor, index: Tensor) -> Tensor:
            return function(baseline[index] + difference, index)

        return InputXGradient(from_baseline).attribute(change, additional_forward_args=(which,))

    return _gated(
        function,
        x,
        baseline,
        values,
        config,
        rows_a_piece=config.batch_size,
        rows_used=1,
        promise="first order only: completeness is reported but not promised",
    )


METHODS: dict[str, Callable[..., RowAttributions]] = {
    "integrated_gradients": _adaptive,
    "captum_integrated_gradients": _captum_integrated_gradients,
    "saliency": _saliency,
    "input_x_gradient": _input_x_gradient,
}


def _gated(
    function: RowFunction,
    x: Tensor,
    baseline: Tensor,
    values_of: Callable[[slice], Tensor],
    config: MethodConfig,
    *,
    rows_a_piece: int,
    rows_used: int,
    promise: str = "",
    has_gap: bool = True,
) -> RowAttributions:
    """Run a method piece by piece, and measure its completeness with the same function.

    With a `promise` the gap withholds nothing: the method never claimed to be complete.
    """
    n = len(x)
    values = torch.empty(x.shape, dtype=torch.float64)
    output, base = np.empty(n), np.empty(n)
    for piece in _pieces(n, rows_a_piece):
        which = torch.arange(piece.start, piece.stop)
        values[piece] = values_of(piece).detach().double().cpu()
        with torch.no_grad():
            output[piece] = function(x[piece], which).double().numpy(force=True)
            base[piece] = function(baseline[piece], which).double().numpy(force=True)
        if config.progress is not None:
            config.progress(piece.stop, n)
    gap = relative_gap(values, torch.from_numpy(output), torch.from_numpy(base))
    why = _why(gap, values, np.inf if promise else config.tolerance)
    withheld = np.array([bool(reason) for reason in why], dtype=bool)
    return RowAttributions(
        values=values,
        output=output,
        base=base,
        gap=gap if has_gap else np.full(n, np.nan),
        rows_used=np.full(n, rows_used + 2),
        withheld=withheld,
        why=[reason or promise for reason in why],
    )


def _pieces(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _why(gap: np.ndarray, values: Tensor, tolerance: float) -> list[str]:
    """What is wrong with each row, or nothing."""
    finite = torch.isfinite(values).all(dim=1).numpy() & np.isfinite(gap)
    words = []
    for row in range(len(gap)):
        if not finite[row]:
            words.append("the output or its gradient is not finite along the path")
        elif gap[row] > tolerance:
            words.append(
                f"not converged: the completeness gap is {100 * gap[row]:.2g} % of the change of "
                f"the output, above {100 * tolerance:g} %"
            )
        else:
            words.append("")
    return words
