"""Attribution by leaving out: what a model answers when only some of its entries are there.

A player is a group of entries that come and go together: one event, all values of a variable, those
of a variable in one window of time. What is away stands at its baseline or, with the baseline
"delete", was never measured. Nothing here takes a gradient, so any function will do.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import KernelShap
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from clinode.attribution.draws import seeded
from clinode.errors import ArgumentError

MOST_EXACT = 10  # players whose 2^n coalitions are all evaluated
MOST_KERNEL = 64  # players of Kernel SHAP
KERNEL_SAMPLES = 2048  # beside two for each player

Value = Callable[[Bool[Tensor, "version entry"], Int64[Tensor, " version"]], Tensor]
"""v(present, which) -> one number a version: `which` says of which row each is a version."""


@dataclass(frozen=True)
class Game:
    """Players of some rows, and what a coalition of them is worth.

    Args:
        value: Of entries that are present.
        player: (row, entry), of each entry its player's number within the row, -1 for no entry.
    """

    value: Value
    player: np.ndarray

    def n_players(self, row: int) -> int:
        """Players of a row."""
        return int(self.player[row].max(initial=-1)) + 1

    def worth(
        self, row: int, coalitions: Bool[np.ndarray, "coalition player"], batch_size: int
    ) -> Float[np.ndarray, " coalition"]:
        """What each coalition of a row is worth."""
        player = self.player[row]
        found = np.empty(len(coalitions))
        with torch.no_grad():
            for start in range(0, len(coalitions), batch_size):
                some = coalitions[start : start + batch_size]
                present = np.zeros((len(some), len(player)), dtype=bool)
                present[:, player >= 0] = some[:, player[player >= 0]]
                which = torch.full((len(some),), row, dtype=torch.int64)
                worth = self.value(torch.from_numpy(present), which)
                found[start : start + len(some)] = worth.double().numpy(force=True)
        return found


@dataclass(frozen=True)
class Shares:
    """What the players of a row received.

    Args:
        share: Of each player.
        error: Standard error of each; zeros where nothing was drawn.
        output, base: Worth of all players, and of none.
        n_evaluations: Of the function.
    """

    share: np.ndarray
    error: np.ndarray
    output: float
    base: float
    n_evaluations: int


def against(
    function: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "row entry"],
    baseline: Float[Tensor, "row entry"],
) -> Value:
    """Worth where an entry that is away stands at its baseline."""

    def worth(present: Tensor, which: Tensor) -> Tensor:
        present, which = present.to(x.device), which.to(x.device)
        return function(torch.where(present, x[which], baseline[which]), which)

    return worth


def leave_one_out(game: Game, row: int, batch_size: int) -> Shares:
    """What the worth of all loses without each player."""
    n = game.n_players(row)
    worth = game.worth(row, np.concatenate([_all_and_none(n), ~np.eye(n, dtype=bool)]), batch_size)
    return Shares(worth[0] - worth[2:], np.zeros(n), worth[0], worth[1], n + 2)


def exact_shapley(game: Game, row: int, batch_size: int) -> Shares:
    """Shapley values from every coalition, 2^n of them."""
    n = game.n_players(row)
    coalitions = np.array(list(itertools.product([False, True], repeat=n)), dtype=bool)
    worth = game.worth(row, coalitions.reshape(2**n, n), batch_size)
    size = coalitions.reshape(2**n, n).sum(axis=1)
    share = np.empty(n)
    place = 2 ** np.arange(n - 1, -1, -1)  # of a player in the number of a coalition
    for player in range(n):
        without = np.flatnonzero(~coalitions[:, player])
        weight = np.array([1 / (n * math.comb(n - 1, s)) for s in size[without]])
        share[player] = weight @ (worth[without + place[player]] - worth[without])
    return Shares(share, np.zeros(n), worth[-1], worth[0], 2**n)


def sampled_shapley(
    game: Game, row: int, batch_size: int, *, n_pairs: int, generator: np.random.Generator
) -> Shares:
    """Shapley values from orders drawn in pairs, each with its reverse (Mitchell et al. 2022).

    In every order the shares sum to the worth of all without that of none, and so do their means.
    The error is that of the means of pairs.
    """
    n = game.n_players(row)
    orders = np.array([generator.permutation(n) for _ in range(n_pairs)]).reshape(n_pairs, n)
    orders = np.stack([orders, orders[:, ::-1]], axis=1)  # (pair, one and its reverse, player)
    joined = np.argsort(orders, axis=2)  # when each player comes
    between = np.arange(1, n)[:, None]  # how many are there; all and none are the same for all
    coalitions = joined[:, :, None, :] < between
    ends = game.worth(row, _all_and_none(n), batch_size)
    worth = np.empty((n_pairs, 2, n + 1))
    worth[..., 0], worth[..., n] = ends[1], ends[0]
    if n > 1:
        inside = game.worth(row, coalitions.reshape(-1, n), batch_size)
        worth[..., 1:n] = inside.reshape(n_pairs, 2, n - 1)
    gained = np.take_along_axis(np.diff(worth, axis=2), joined, axis=2)
    of_pair = gained.mean(axis=1)
    error = of_pair.std(axis=0, ddof=1) / math.sqrt(n_pairs)
    return Shares(of_pair.mean(axis=0), error, ends[0], ends[1], 2 + 2 * n_pairs * max(n - 1, 0))


def kernel_shap(game: Game, row: int, batch_size: int, *, seed: int) -> Shares:
    """Shapley values by Captum's weighted regression over drawn coalitions.

    Raises:
        ArgumentError: More than 64 players.
    """
    n = game.n_players(row)
    if n > MOST_KERNEL:
        raise ArgumentError(
            f"kernel_shap has {n} players here and is refused above {MOST_KERNEL}: its regression "
            "over drawn coalitions is noise at that size (on 2,500 cells an average precision of "
            "0.57 after 2,000 coalitions, where sampled orders reach 1)",
            fix='let whole variables be the players (players="variable"), or use "shapley"',
        )
    ends = game.worth(row, _all_and_none(n), batch_size)
    if n < 2:
        return Shares(np.full(n, ends[0] - ends[1]), np.zeros(n), ends[0], ends[1], 2)

    def of_players(present: Tensor) -> Tensor:
        worth = game.worth(row, present.numpy(force=True) > 0.5, batch_size)
        return torch.from_numpy(worth)

    n_samples = 2 * n + KERNEL_SAMPLES
    with seeded(seed):
        share = KernelShap(of_players).attribute(
            torch.ones(1, n, dtype=torch.float64),
            baselines=torch.zeros(1, n, dtype=torch.float64),
            n_samples=n_samples,
            perturbations_per_eval=batch_size,
        )
    values = share[0].double().numpy()
    return Shares(values, np.full(n, np.nan), ends[0], ends[1], n_samples + 2)


def _all_and_none(n: int) -> np.ndarray:
    return np.array([[True] * n, [False] * n], dtype=bool).reshape(2, n)
