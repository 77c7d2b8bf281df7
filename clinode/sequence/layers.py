"""Small parts that every family uses: layers drawn from a generator, dropout, sums by subject."""

import math

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

_SIXTEEN_BITS = 2**16


def linear(
    n_in: int, n_out: int, generator: torch.Generator, *, bias: float | None = None
) -> nn.Linear:
    """A linear layer drawn uniformly from +-1/sqrt(n_in); `bias` sets all its offsets instead."""
    bound = 1 / math.sqrt(max(n_in, 1))
    layer = nn.Linear(1, n_out, device="meta")  # draws nothing; its tensors are set here
    layer.in_features = n_in
    layer.weight = matrix(n_out, n_in, generator)
    offset = torch.empty(n_out).uniform_(-bound, bound, generator=generator)
    layer.bias = nn.Parameter(offset if bias is None else torch.full((n_out,), bias))
    return layer


class MemberLinear(nn.Module):
    """One linear layer for each member of a committee, drawn like that of `linear`.

    Args:
        n_members: Members, each with weights of its own.
        n_in, n_out: Widths.
        generator: Draws the weights.
        bias: Sets all offsets instead of drawing them.
    """

    def __init__(
        self,
        n_members: int,
        n_in: int,
        n_out: int,
        generator: torch.Generator,
        *,
        bias: float | None = None,
    ):
        super().__init__()
        bound = 1 / math.sqrt(max(n_in, 1))
        weight = torch.empty(n_members, n_out, n_in)
        self.weight = nn.Parameter(weight.uniform_(-bound, bound, generator=generator))
        # one axis, so that no optimiser takes the offsets for a matrix and decays them
        offset = torch.empty(n_members * n_out).uniform_(-bound, bound, generator=generator)
        self.bias = nn.Parameter(offset if bias is None else torch.full_like(offset, bias))

    def forward(self, x: Float[Tensor, "member batch in"]) -> Float[Tensor, "member batch out"]:
        """Each member's layer on its own input."""
        offset = self.bias.view(len(self.weight), 1, -1)
        return torch.baddbmm(offset, x, self.weight.mT)


def matrix(n_out: int, n_in: int, generator: torch.Generator) -> nn.Parameter:
    """A weight matrix without an offset, drawn like that of `linear`."""
    bound = 1 / math.sqrt(max(n_in, 1))
    return nn.Parameter(torch.empty(n_out, n_in).uniform_(-bound, bound, generator=generator))


def dropout(
    x: Float[Tensor, "*shape"], share: float, generator: torch.Generator | None
) -> Float[Tensor, "*shape"]:
    """Set a share of the entries to zero and scale the rest; the identity without a generator.

    Each entry takes sixteen bits of the generator, so the share is one in 65,536 exact; a draw of
    its own each would be a sixth of a training step.
    """
    if generator is None or share == 0:
        return x
    lost = round(share * _SIXTEEN_BITS)
    words = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None, generator=generator)  # pyright: ignore[reportCallIssue]
    drawn = words.view(torch.int16)[: x.numel()].view(x.shape)
    keep = drawn >= lost - _SIXTEEN_BITS // 2
    return x * keep.to(x.dtype).mul_(_SIXTEEN_BITS / (_SIXTEEN_BITS - lost))


def gated_update(
    inward: Float[Tensor, "batch three_states"],
    state: Float[Tensor, "batch state"],
    weight: Float[Tensor, "state three_states"],
    observed: Float[Tensor, "batch 1"],
) -> Float[Tensor, "batch state"]:
    """A gated recurrent unit (Cho et al. 2014): the state moves towards what it is proposed.

    Args:
        inward: What the input adds to update gate, reset gate and proposal.
        state: Before.
        weight: What the state adds to them.
        observed: 0 leaves a state as it was.
    """
    n = state.shape[1]
    gates = torch.addmm(inward[:, : 2 * n], state, weight[:, : 2 * n])
    update, reset = torch.sigmoid(gates).chunk(2, dim=1)
    proposal = torch.tanh(torch.addmm(inward[:, 2 * n :], reset * state, weight[:, 2 * n :]))
    return state + observed * update * (proposal - state)


def sum_by_subject(
    rows: Shaped[Tensor, "row ..."], row_subject: Int64[Tensor, " row"], n_subjects: int
) -> Shaped[Tensor, "batch ..."]:
    """Sums over the rows of each subject, added in row order, so batch mates change no bit."""
    return rows.new_zeros(n_subjects, *rows.shape[1:]).index_add(0, row_subject, rows)
