"""What pulls the path of a latent SDE towards a record that was read.

The prior path is dz = f(z) dt + sigma dW. Along a record that was read the posterior path has drift
f(z) + sigma v, with a control v that its encoder tells for each stretch between rows with
observations, and that gives way as the state moves off:

    sigma v = sigma V c - g z,

c the encoder's state after the row at which the stretch ends, and g >= 0 a gain that adds to the
decay of the field. The divergence of the two paths is the mean of int |v|^2 / 2 dt (Girsanov; Li et
al. 2020, arXiv:2001.01328).
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch, Preprocessor
from clinode.sequence.bounded_field import BoundedField
from clinode.sequence.inputs import REFERENCE_WINDOW
from clinode.sequence.layers import matrix
from clinode.sequence.stretches import Items, Steps
from clinode.sequence.views import Views

FIRST_SIGMA = 0.1  # per root hour of a 48-hour window
FIRST_GAIN = 0.01  # per such hour


class Along(NamedTuple):
    """What is done to a path along the items of its stretches.

    Args:
        is_read: Items that end at a row that was read.
        push: sigma V c, zero where nothing was read.
        decay: Of the field and the gain.
    """

    is_read: Bool[Tensor, " item"]
    push: Float[Tensor, "item state"]
    decay: Float[Tensor, "item state"]


class Guide(nn.Module):
    """sigma, V and g.

    Args:
        n_states: Of the path.
        n_hidden: Width of the encoder's state.
        schema: Of the training part: the length of its window.
        generator: Draws the weights.
    """

    def __init__(
        self, n_states: int, n_hidden: int, schema: Preprocessor, generator: torch.Generator
    ):
        super().__init__()
        pace = REFERENCE_WINDOW / schema.window
        log_sigma = math.log(FIRST_SIGMA * math.sqrt(pace))
        self.log_sigma = nn.Parameter(torch.full((n_states,), log_sigma))
        self.log_gain = nn.Parameter(torch.full((n_states,), math.log(FIRST_GAIN * pace)))
        self.toward = matrix(n_states, n_hidden, generator)  # V
        self.root_pace = math.sqrt(pace)  # v is per root hour

    @property
    def sigma(self) -> Float[Tensor, " state"]:
        """Of the noise, per root hour."""
        return torch.exp(self.log_sigma)

    def along(
        self,
        field: BoundedField,
        batch: IrregularBatch,
        items: Items,
        views: Views,
        context: Float[Tensor, "place hidden"],
    ) -> Along:
        """What is done to the paths of views.

        Args:
            field: Of the prior.
            batch: The records.
            items: Of the views, broken at every row with an observation.
            views: What was read.
            context: The encoder's state after each of their places.
        """
        is_read, place = _places(batch, items, views)
        rates = torch.exp(field.log_decay).expand(len(is_read), -1)
        read = is_read.unsqueeze(1)
        decay = rates + torch.where(read, torch.exp(self.log_gain), 0.0)
        push = torch.zeros_like(rates)
        if len(context):
            told = self.sigma * self.root_pace * (context[place] @ self.toward.T)
            push = torch.where(read, told, 0.0)
        return Along(is_read, push, decay)

    def noise(
        self, steps: Steps, along: Along, normal: Float[Tensor, "visit state"]
    ) -> Float[Tensor, "visit state"]:
        """What chance adds over each visit: exact for the decay, normal with what is drawn."""
        decay = along.decay[steps.packed.item]
        moves = (steps.gap > 0).unsqueeze(1)  # a root has no slope at 0
        hours = torch.where(moves, steps.gap.unsqueeze(1), 1.0)
        spread = torch.sqrt(-torch.expm1(-2 * decay * hours) / (2 * decay))
        return torch.where(moves, self.sigma * spread * normal, 0.0)

    def cost(
        self, items: Items, steps: Steps, along: Along, states: Float[Tensor, "visit state"]
    ) -> Float[Tensor, " view"]:
        """int |v|^2 / 2 dt along each view, with the state held over each visit.

        Args:
            items, steps: Of the views.
            along: What was done there.
            states: After each visit.
        """
        packed, item = steps.packed, steps.packed.item
        begins = packed.before[item] + packed.nth < 0  # a start, whose visit takes no time
        before = states[packed.visit_before(item, torch.where(begins, 1, packed.nth))]
        back = torch.where(along.is_read[item].unsqueeze(1), torch.exp(self.log_gain) * before, 0.0)
        control = (along.push[item] - back) / self.sigma
        spent = (control**2).sum(dim=1) / 2 * steps.gap
        return spent.new_zeros(len(items.first)).index_add(0, items.view[item], spent)


def _places(
    batch: IrregularBatch, items: Items, views: Views
) -> tuple[Bool[Tensor, " item"], Int64[Tensor, " item"]]:
    """Items that end at or before the last row read, and the place of the next row that was.

    A stretch ends at a change of treatment or at a row with an observation: what is still to come
    of the record is what the encoder knows after reading either.
    """
    ends, last = items.to_row, views.last[items.view]
    is_read = (ends >= 0) & (ends <= last)
    reads = views.last >= 0
    n_places = batch.steps[views.last.clamp(min=0)] + 1
    n_places = torch.where(reads, n_places, 0)
    first = (torch.cumsum(n_places, 0) - n_places)[items.view]
    back = batch.steps[last.clamp(min=0)] - batch.steps[ends.clamp(min=0)]
    return is_read, torch.where(is_read, first + back, 0)
