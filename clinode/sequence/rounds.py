"""How the loops over packed rounds are run: views of rounds, on buffers, and once more plainly."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def heads_of_rounds(rows: Tensor, sizes: list[int]) -> list[Tensor]:
    """Views: of each round, what belongs to the records that are still there in the next one."""
    ends = [*sizes[1:], 0]
    pieces = [n for size, end in zip(sizes, ends, strict=True) for n in (end, size - end)]
    return list(rows.split(pieces)[::2])


@contextmanager
def on_buffers() -> Iterator[None]:
    """Small operations as fast as they come: nothing is recorded and no garbage collected.

    Ten thousand views would set off collections of all that the program holds, a fifth of the time
    of a training step; none of them is in a cycle, so there is nothing to collect. They should be
    gone at the end. A tensor made meanwhile must not leave an autograd function: make it before, or
    after.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        if was_enabled:
            gc.enable()


def again(
    plainly: Callable[..., tuple[Tensor, ...]],
    arguments: Sequence[Tensor | None],
    needs: Sequence[bool],
    grads: Sequence[Tensor],
) -> list[Tensor | None]:
    """Gradients of a function at its arguments, which can be differentiated once more.

    Args:
        plainly: The function, in operations that autograd follows.
        arguments: Of the function, as they were saved.
        needs: Which gradients are wanted.
        grads: At what it gives.
    """
    # views, since one argument may be made from another: only what goes through it counts here
    own = [None if part is None else part.view_as(part) for part in arguments]
    wanted = [p for p, need in zip(own, needs, strict=True) if need and p is not None]
    found = torch.autograd.grad(
        plainly(*own), wanted, grads, create_graph=True, materialize_grads=True
    )
    given = iter(found)
    return [next(given) if need else None for need in needs]
