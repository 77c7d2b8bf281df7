"""The attribution methods, each the same question asked of rows: which entry moved f, and how much.

A method takes a function of rows, the rows and their baselines, and returns one number an entry
with what is known about its error. Those that take gradients are here, those that leave entries out
in `coalitions`. Captum computes all that it has but the default; it is called with rows of one
batch size at a time, with the subject of each row as its only extra argument (Captum repeats that
along the rows, as it must), and without a fixed grid that subjects share.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
import torch
from captum.attr import GradientShap, InputXGradient, IntegratedGradients, Saliency
from jaxtyping import Float
from torch import Tensor

from clinode.attribution.coalitions import (
    MOST_EXACT,
    Game,
    Shares,
    exact_shapley,
    kernel_shap,
    leave_one_out,
    sampled_shapley,
)
from clinode.attribution.draws import seeded
from clinode.attribution.path import RowFunction, integrate_path, relative_gap
from clinode.errors import ArgumentError

_PARTS = 10  # of the draws of "gradient_shap"


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """How a method runs.

    Args:
        tolerance: Largest completeness gap, relative to max(|f(x) - f(b)|, 0.1).
        n_steps: Gauss-Legendre nodes of "captum_integrated_gradients"; nobody else uses it.
        n_samples: Draws of "gradient_shap", in ten parts whose spread is its error.
        n_pairs: Orders of "shapley", each with its reverse.
        seed: Of what is drawn.
        batch_size: Rows in one call of the function.
        progress: Called with (subjects done, all subjects).
    """

    tolerance: float = 0.01
    n_steps: int = 50
    n_samples: int = 200
    n_pairs: int = 16
    seed: int = 0
    batch_size: int = 256
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self):
        if not 0 < self.tolerance < 1:
            raise ArgumentError(f"tolerance must lie between 0 and 1, got {self.tolerance}")
        if self.n_steps < 2:
            raise ArgumentError(f"n_steps must be at least 2, got {self.n_steps}")
        if self.n_samples < 2 * _PARTS:
            raise ArgumentError(f"n_samples must be at least {2 * _PARTS}, got {self.n_samples}")
        if self.n_pairs < 2:
            raise ArgumentError(f"n_pairs must be at least 2, got {self.n_pairs}")
        if self.batch_size < 1:
            raise ArgumentError(f"batch_size must be at least 1, got {self.batch_size}")


@dataclass(frozen=True)
class RowAttributions:
    """Attributions of n rows with what is known about each.

    `gap` is relative to max(|df|, 0.1), NaN for a method that has no baseline; `why` is empty or
    says in words what is wrong, or what the method does not promise; what is `withheld` must not
    be shown. `error` is the standard error of each value where it was drawn at random, else None;
    Kernel SHAP does not know its own, and has NaN.
    """

    values: Tensor  # (n, d) float64
    output: np.ndarray  # (n,) f at x
    base: np.ndarray  # (n,) f at the baseline
    gap: np.ndarray
    rows_used: np.ndarray
    withheld: np.ndarray
    why: list[str]
    error: Tensor | None = None  # (n, d)


def check_method(name: str) -> None:
    """Refuse a word that picks no method.

    Raises:
        ArgumentError: It is refused, with the reason, or unknown.
    """
    if name in METHODS:
        return
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
    """Attributions of every row of x against its baseline, by a method that takes gradients.

    cuDNN refuses the backward pass of a recurrent layer in evaluation mode; it is switched off
    here, rather than the model put into training mode, which would turn its dropout on.
    """
    with torch.backends.cudnn.flags(enabled=False):
        return GRADIENTS[method](function, x, baseline, config)


def explain_game(game: Game, method: str, config: MethodConfig) -> RowAttributions:
    """Attributions of the players of every row, by a method that leaves some of them out.

    What a player receives is shared equally by its entries.

    Raises:
        ArgumentError: More players than the method allows.
    """
    n, width = game.player.shape
    values = torch.zeros(n, width, dtype=torch.float64)
    error = torch.zeros_like(values)
    found = []
    for row in range(n):
        with torch.backends.cudnn.flags(enabled=False):  # as for gradients: the same arithmetic
            one = COALITIONS[method](game, row, config)
        found.append(one)
        player = game.player[row]
        held = np.flatnonzero(player >= 0)
        size = np.bincount(player[held], minlength=1)
        values[row, held] = torch.from_numpy(one.share[player[held]] / size[player[held]])
        error[row, held] = torch.from_numpy(one.error[player[held]] / size[player[held]])
        if config.progress is not None:
            config.progress(row + 1, n)
    output = np.array([one.output for one in found])
    base = np.array([one.base for one in found])
    gap = relative_gap(values, torch.from_numpy(output), torch.from_numpy(base))
    promise = _PROMISES.get(method, "")
    why = _why(gap, values, np.inf if promise else config.tolerance)
    return RowAttributions(
        values=values,
        output=output,
        base=base,
        gap=gap,
        rows_used=np.array([one.n_evaluations for one in found]),
        withheld=np.array([bool(reason) for reason in why], dtype=bool),
        why=[reason or promise for reason in why],
        error=error if method in ("shapley", "kernel_shap") else None,
    )


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


def _gradient_shap(
    function: RowFunction, x: Tensor, baseline: Tensor, config: MethodConfig
) -> RowAttributions:
    """Gradients at random places of the path by Captum: integrated gradients by chance.

    The draws come in parts; the value is the mean of the parts and the error that of their mean.
    Every row has the same draws, so that none depends on which others are explained.
    """
    n_parts = max(_PARTS, -(-config.n_samples // config.batch_size))
    each = config.n_samples // n_parts
    error = torch.zeros(x.shape, dtype=torch.float64)

    def values_of(piece: slice) -> Tensor:
        which = torch.arange(piece.start, piece.stop)
        change = x[piece] - baseline[piece]

        def from_baseline(difference: Tensor, index: Tensor) -> Tensor:
            return function(baseline[index] + difference, index)

        with seeded(config.seed):
            parts = [
                GradientShap(from_baseline).attribute(
                    change,
                    baselines=torch.zeros_like(change),
                    n_samples=each,
                    stdevs=0.0,
                    additional_forward_args=(which,),
                )
                for _ in range(n_parts)
            ]
        drawn = torch.stack(parts).double().cpu()
        error[piece] = drawn.std(dim=0) / n_parts**0.5
        return drawn.mean(dim=0)

    found = _gated(
        function,
        x,
        baseline,
        values_of,
        config,
        rows_a_piece=1,
        rows_used=each * n_parts,
        promise="drawn at random: complete only in expectation, see its standard error",
    )
    return replace(found, error=error)


def _shapley(game: Game, row: int, config: MethodConfig) -> Shares:
    if game.n_players(row) <= MOST_EXACT:
        return exact_shapley(game, row, config.batch_size)
    generator = np.random.default_rng((config.seed, game.n_players(row)))
    return sampled_shapley(
        game, row, config.batch_size, n_pairs=config.n_pairs, generator=generator
    )


GRADIENTS: dict[str, Callable[..., RowAttributions]] = {
    "integrated_gradients": _adaptive,
    "captum_integrated_gradients": _captum_integrated_gradients,
    "saliency": _saliency,
    "input_x_gradient": _input_x_gradient,
    "gradient_shap": _gradient_shap,
}
COALITIONS: dict[str, Callable[[Game, int, MethodConfig], Shares]] = {
    "shapley": _shapley,
    "kernel_shap": lambda game, row, config: kernel_shap(
        game, row, config.batch_size, seed=config.seed
    ),
    "event_deletion": lambda game, row, config: leave_one_out(game, row, config.batch_size),
    "occlusion": lambda game, row, config: leave_one_out(game, row, config.batch_size),
}
METHODS = {
    "integrated_gradients": "integrated gradients with error control for every subject",
    "captum_integrated_gradients": "integrated gradients (Captum, fixed steps)",
    "saliency": "saliency (gradient of the output; no completeness)",
    "input_x_gradient": "input times gradient (no completeness)",
    "gradient_shap": "gradient SHAP (Captum, drawn at random, with its standard error)",
    "shapley": "Shapley values (exact or from drawn orders, with their standard error)",
    "kernel_shap": "Kernel SHAP (Captum, up to 64 players)",
    "event_deletion": "each event left out alone (no completeness)",
    "occlusion": "each variable left out alone in each stretch of time (no completeness)",
}
_ALONE = "each left out alone: what several do together counts for each of them or for none"
_PROMISES = {"event_deletion": _ALONE, "occlusion": _ALONE}


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
            percent = 100 * gap[row]
            told = f"{percent:,.0f}" if percent >= 10 else f"{percent:.2g}"
            words.append(
                f"not converged: the completeness gap is {told} % of the change of "
                f"the output, above {100 * tolerance:g} %"
            )
        else:
            words.append("")
    return words
