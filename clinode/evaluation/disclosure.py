"""Which counts of a table to hide so that no small one can be read off or worked out.

A count from 1 to 10 of subjects may tell who they are. Hiding it alone is not enough where totals
are known: the others give it away by subtraction, and two hidden ones do when their sum leaves one
possibility. So further counts are hidden until every hidden one could be several numbers, by what a
reader knows: the totals, the sizes of the groups, and that something was hidden in each.
"""

import numpy as np
from jaxtyping import Bool, Int, Shaped

from clinode.errors import ArgumentError

SMALLEST_CELL = 11
_FEWEST_POSSIBLE = 4  # values that every hidden count could have, for all that a reader knows


def hide_small(
    count: Shaped[np.ndarray, " group"],
    size: Shaped[np.ndarray, " group"] | None = None,
    *,
    unknown: Bool[np.ndarray, " group"] | None = None,
    smallest: int = SMALLEST_CELL,
) -> Bool[np.ndarray, " group"]:
    """Groups whose count must not be shown, where the total over all groups is known.

    Args:
        count: How many of each group.
        size: Of each group, known to the reader too, so that the rest of a group is a count as
            well; None where the counts are those of the groups themselves.
        unknown: Groups that are hidden whatever their count, and whose size the reader does not
            know.
        smallest: Counts from 1 to below this are small. A count of 0 is shown.

    Returns:
        True where count (and rest) are to be hidden. Where all are hidden and the total is small
        the total gives them away; hide that too.

    Raises:
        ArgumentError: A count is negative or above its group's size.

    Example:
        >>> hide_small(np.array([40, 3, 25, 60])).tolist()
        [False, True, True, False]
    """
    count = np.asarray(count, dtype=np.int64)
    if (count < 0).any() or (size is not None and (count > size).any()):
        raise ArgumentError("a count lies between 0 and the size of its group")
    rest = count if size is None else np.asarray(size, dtype=np.int64) - count
    hidden = _is_small(count, smallest) | _is_small(rest, smallest)
    without = np.zeros(len(count), dtype=bool) if unknown is None else unknown
    hidden = hidden | without
    room = np.full(len(count), np.inf) if size is None else np.asarray(size, dtype=float)
    room = np.where(without, np.inf, room)
    # the least revealing company first: small ones, but 0 only when nothing else is left
    company = np.minimum(count, rest)
    order = np.lexsort((company, company == 0))
    while hidden.any() and not hidden.all() and _is_narrow(count, room, hidden):
        hidden[order[~hidden[order]][0]] = True
    return hidden


def possible_values(
    count: Int[np.ndarray, " group"],
    room: Shaped[np.ndarray, " group"],
    hidden: Bool[np.ndarray, " group"],
) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest value that a reader must allow each hidden count, given their sum.

    Args:
        count: The counts.
        room: Size of each group, infinite where it is not known.
        hidden: Which are hidden; each of them is taken to be neither 0 nor all of its group.
    """
    total = float(count[hidden].sum())
    most = np.where(np.isinf(room[hidden]), total, room[hidden] - 1)
    low = np.maximum(1.0, total - (most.sum() - most))
    high = np.minimum(most, total - (len(most) - 1))
    return low, high


def _is_narrow(count: np.ndarray, room: np.ndarray, hidden: np.ndarray) -> bool:
    low, high = possible_values(count, room, hidden)
    return bool((high - low + 1 < _FEWEST_POSSIBLE).any())


def _is_small(count: np.ndarray, smallest: int) -> np.ndarray:
    return (count > 0) & (count < smallest)
