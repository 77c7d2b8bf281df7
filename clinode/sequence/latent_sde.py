"""Latent SDE: a hidden start for each record, a field with noise, and a pull along what was read.

After Li et al. 2020 (arXiv:2001.01328). Behind the last observation the state follows the prior,
dz = f(z) dt + sigma dW; along the record a control pulls it to what an encoder has read (`guide`),
so that, unlike in a Latent ODE, what happens late need not have been laid down in the start.
Predictions read the course without noise, the likeliest to first order; noise is drawn in training.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch
from clinode.sequence.exponential_steps import Solver
from clinode.sequence.guide import Guide
from clinode.sequence.latent_path import LatentPath
from clinode.sequence.model import SequenceModel
from clinode.sequence.noisy_system import NoisyLatentSystem
from clinode.sequence.readout import Encoding
from clinode.sequence.variation import MeasurementNoise
from clinode.sequence.views import whole_records
from clinode.system import System


class LatentSDE(SequenceModel):
    """A start and a control told by an encoder, a bounded field with noise, a statistics tower.

    Training adds the evidence lower bound of paths that are drawn.

    Args:
        latent: Width of the state.
        hidden: Width of the encoder's state.
        field_hidden: Width of the bounded terms of both fields.
        likelihood_weight: Of the lower bound, a measured value, in the loss.

    The other arguments are those of every family, see `SequenceModel`.
    """

    name = "latent-sde"
    flow_error = 1e-5

    def __init__(
        self,
        latent: int = 24,
        hidden: int = 48,
        field_hidden: int = 32,
        likelihood_weight: float = 0.3,
        dropout: float | None = None,
        statistics_dropout: float | None = None,
        statistics_members: int | None = None,
        statistics_hidden: int | None = None,
        head_hidden: int | None = None,
        static_code: int = 16,
        auxiliary_weight: float = 0.4,
        next_observation_weight: float = 0.3,
        drop_variable: float = 0.1,
        drop_observation: float = 0.1,
    ):
        super().__init__(locals())

    def _construct(self, generator: torch.Generator) -> tuple[int, int]:
        settings = self.settings
        sizes = settings.latent, settings.hidden, settings.field_hidden
        self.guide = Guide(settings.latent, settings.hidden, self.schema, generator)
        self.path = LatentPath(*sizes, self.schema, generator, self.guide)
        self.noise = MeasurementNoise(len(self.schema.variables))
        self.norm = nn.LayerNorm(settings.latent)
        return settings.latent, settings.latent

    @property
    def solver(self) -> Solver:
        """That of the field that runs on from the start."""
        return self.path.field.solver

    @property
    def latent_system(self) -> System:
        """dx = (-a x + W tanh(U x + b) + B u) dt + sigma dW, y = the decoded variables.

        The noise moves a family's own states; the memory of last values fades without.
        """
        self._require_built()
        rate = self.memory.rate
        low, high = self.latent_low, self.latent_high
        drift = self.path.field.system(rate, self.decoder, low, high, self.schema)
        return NoisyLatentSystem(drift, torch.cat([self.guide.sigma, torch.zeros_like(rate)]))

    def _run(
        self, batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
    ) -> tuple[Float[Tensor, "row kept"], Float[Tensor, "row latent"]]:
        """Kept of a row are its state, told by the whole record, and the start of the record."""
        return self.path.rows(batch, remembered)

    def _carry(
        self,
        batch: IrregularBatch,
        states: Float[Tensor, "row kept"],
        query_time: Float[Tensor, "batch query"],
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query latent"]:
        return self.path.carry(batch, self.memory.before(batch), states, query_time, row)

    def _features(
        self, states: Float[Tensor, "*place latent"], remembered: Float[Tensor, "*place variable"]
    ) -> Float[Tensor, "*place feature"]:
        return self.norm(states)

    def _shown(self, kept: Float[Tensor, "*place kept"]) -> Float[Tensor, "*place latent"]:
        return kept[..., : self.settings.latent]

    def _own_loss(
        self,
        batch: IrregularBatch,
        encoding: Encoding,
        generator: torch.Generator | None,
        n_measured: Float[Tensor, ""],
    ) -> Float[Tensor, ""]:
        """The negative evidence lower bound of the records, a measured value."""
        views = whole_records(batch)
        start = self.path.told_by(encoding.after, views)
        states, cost = self.path.sample(batch, views, start, generator)
        expected = self.decoder(torch.cat([states, self.memory.before(batch)], dim=1))
        bound = self.noise.log_likelihood(batch, expected) - cost.sum()
        return -self.settings.likelihood_weight * bound / n_measured.clamp(min=1)
