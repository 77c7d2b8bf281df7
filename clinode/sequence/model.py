"""The face of every sequence model: what `fit`, `explain` and the engine of systems may ask of one.

A model is a configuration until `build` fixes its sizes. Families differ in how they run through a
record (`_run`, `_carry`) and in their field. A memory of last values (`memory.py`), the decoder,
towers, heads and losses (`heads.py`) are shared; a latent state is a family's own with the memory.
"""

import copy
import inspect
from abc import ABC, abstractmethod
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch, PackedRecords, Preprocessor, Task
from clinode.cohort.batch import chosen
from clinode.errors import ArgumentError
from clinode.sequence.exponential_steps import Solver
from clinode.sequence.heads import expectation_loss, n_expected
from clinode.sequence.inputs import REFERENCE_WINDOW
from clinode.sequence.layers import linear
from clinode.sequence.memory import Memory
from clinode.sequence.readout import Encoding, Head, Prepared, Readout, in_batches
from clinode.sequence.task_heads import OPEN_SIZES, build_head
from clinode.system import System

RECALLED = 0.7  # of the last value in the next one expected, at the start
RANGE_QUANTILES = (0.005, 0.995)  # of the training part's latent states


class SequenceModel(nn.Module, ABC):
    """A continuous-time model of irregular records.

    Hyper-parameters are the arguments of a family's constructor and nothing else. `build` returns
    the model that can be trained; asking more of an unbuilt one raises ArgumentError. `forward`
    draws no random number: dropout and augmentation live in `loss`, fed by its generator, so
    `train()` and `eval()` change nothing. A prediction of one subject never depends on the others
    in its batch, and is differentiable in `batch.value`, `batch.static` and
    `batch.treatments.value`.

    A family says in `flow_error` how far its state may move when a gap is split in two: 0 where its
    flow is exact, 1e-5 where it is solved, None where between rows it has no flow.

    Every family's constructor takes, beside its own sizes:
        dropout: Of the sequence tower's readout.
        statistics_dropout: Of the statistics tower's inputs.
        statistics_members: Members of the statistics tower, whose mean counts.
        statistics_hidden: Width of the statistics tower.
        head_hidden: Width of the last hidden layer of each tower. Like the four before, None takes
            what is recommended for the task.
        static_code: Width of the layer behind the statics.
        auxiliary_weight: Weight of the loss of each auxiliary outcome.
        next_observation_weight: Weight of the decoder's loss.
        drop_variable: Share of a record's variables hidden from both towers in training.
        drop_observation: Share of single observations hidden from the sequence in training.

    Args:
        arguments: The local variables of the family's constructor; those that its signature names
            are kept as `settings`.
    """

    name: ClassVar[str]
    flow_error: ClassVar[float | None] = 0.0
    schema: Preprocessor
    task: Task
    head: Head
    memory: Memory
    decoder: nn.Linear
    behind: "SequenceModel | None"  # runs backwards, for tasks that read behind their queries
    latent_low: Tensor
    latent_high: Tensor

    def __init__(self, arguments: dict[str, Any]):
        super().__init__()
        self.behind = None
        names = inspect.signature(type(self)).parameters
        self.settings = SimpleNamespace(**{name: arguments[name] for name in names})
        _check_settings(vars(self.settings))

    @property
    def is_built(self) -> bool:
        """Whether sizes are fixed and parameters exist."""
        return hasattr(self, "schema")

    def config(self) -> dict[str, Any]:
        """Name and hyper-parameters, JSON-ready; `model_from_config` reads it back."""
        return {"name": self.name, **vars(self.settings)}

    def build(
        self, schema: Preprocessor, task: Task, generator: torch.Generator
    ) -> "SequenceModel":
        """A copy with its sizes fixed and its parameters drawn from `generator`, in float32."""
        built = type(self)(**vars(self.settings))
        built.schema, built.task = schema, task
        n_states, n_features = built._construct(generator)
        built._construct_decoder(n_states, generator)
        if task.reads_behind:
            turned = type(self)(**vars(self.settings))
            turned.schema, turned.task = schema, task
            turned._construct_decoder(turned._construct(generator)[0], generator)
            built.behind = turned
        built.head = build_head(schema, task, vars(built.settings), n_features, generator)
        return built

    def prepare(self, records: PackedRecords) -> None:
        """Set the constants that come from the training part; called once, before the first step.

        These are the moments of the statistics tower's inputs, the counts that weigh the forecast
        loss, and the output's starting level. They are buffers and travel with the state dict.
        """
        self._require_built()
        asked = zip(self.head.heads, records.parts, strict=True)
        own = {id(module): part for head, part in asked for module in head.modules()}
        for module in self.modules():
            if isinstance(module, Prepared):
                module.prepare(own.get(id(module), records))

    def finish(self, records: PackedRecords) -> None:
        """Store what is known only after training; called once, on the training part.

        These are the range of each latent state (99 % of the states at five times of each window),
        from which `latent_system` takes its ranges, and what the head then needs, such as the level
        of a classification.
        """
        self._require_built()
        device = self.latent_low.device
        earlier = torch.linspace(0, 1, 5, dtype=torch.float64, device=device)
        states = []
        with torch.no_grad():
            for batch in in_batches(records, dtype=self.latent_low.dtype):
                batch = batch.to(device)
                times = batch.prediction_time.unsqueeze(1) - batch.window * earlier
                states.append(self.latent(batch, times).flatten(0, 1))
        low, high = np.quantile(torch.cat(states).numpy(force=True), RANGE_QUANTILES, axis=0)
        self.latent_low.copy_(torch.from_numpy(low))
        self.latent_high.copy_(torch.from_numpy(np.maximum(high, low + 1e-6)))
        for head, part in zip(self.head.heads, records.parts, strict=True):
            one = self.with_head(head, part.task)
            head.finish(part, lambda batch, one=one: one(batch.to(device)))
        self.head.finish(records, lambda batch: self(batch.to(device)))

    def with_head(self, head: Head, task: Task) -> "SequenceModel":
        """The same weights with one of the heads of several tasks alone."""
        view = copy.copy(self)
        view._modules = dict(self._modules)  # or the head would be exchanged in both
        view.head, view.task = head, task
        return view

    def forward(self, batch: IrregularBatch) -> Readout:
        """Predict from what lies at or before each prediction time; deterministic."""
        self._require_built()
        return self.head(batch, self.encode(batch), None)

    def counts(self, batch: IrregularBatch) -> Float[Tensor, " part"]:
        """Over how many values each mean of a batch's loss is taken; those of parts add up."""
        self._require_built()
        expected, measured = n_expected(batch), batch.mask.sum().to(batch.dtype)
        behind = expected if self.behind is None else n_expected(batch.reversed())
        return torch.cat([torch.stack([expected, behind, measured]), self.head.counts(batch)])

    def loss(
        self,
        batch: IrregularBatch,
        generator: torch.Generator | None,
        counts: Float[Tensor, " part"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean training loss of a batch that carries targets.

        Args:
            batch: With `target` and `target_mask`.
            generator: Feeds dropout and augmentation, on the device of the batch; None leaves both
                out (a validation loss).
            counts: Where the batch is one part of a step, the sum of the `counts` of all parts:
                the losses of the parts then add up to that of the step. None: the batch is all.
        """
        self._require_built()
        counts = self.counts(batch) if counts is None else counts
        settings = self.settings
        read, unseen = _thin(batch, settings.drop_variable, settings.drop_observation, generator)
        encoding = self.encode(read)
        readout = self.head(batch, encoding, generator, unseen)
        expected = expectation_loss(batch, readout.next_observation, counts[0])
        if encoding.behind is not None:
            expected = expected + expectation_loss(
                batch.reversed(), encoding.behind.next_observation, counts[1]
            )
        return (
            self.head.loss(batch, readout, settings.auxiliary_weight, counts[3:])
            + settings.next_observation_weight * expected
            + self._own_loss(read, encoding, generator, counts[2])
        )

    def encode(self, batch: IrregularBatch) -> Encoding:
        """Run through the records; rows without an observation only flow."""
        remembered = self.memory.before(batch)
        kept, before = self._run(batch, remembered)
        held = chosen(batch.mask, batch.value, remembered)
        asked = batch.prediction_time.unsqueeze(1)
        if batch.query_time is not None:
            asked = torch.cat(
                [asked, torch.where(batch.query_time.isnan(), asked, batch.query_time)], 1
            )
        row = batch.row_before(asked)
        carried = self._features(
            self._carry(batch, kept, asked, row), self.memory.at(batch, asked, row)
        )
        return Encoding(
            is_observed=batch.is_observed,
            features=self._features(self._shown(kept), held),
            at_prediction=carried[:, 0],
            at_query=carried[:, 1:],
            next_observation=self.decoder(torch.cat([before, remembered], dim=1)),
            after=kept,
            before=before,
            behind=None if self.behind is None else self.behind.encode(batch.reversed()),
        )

    def latent(
        self, batch: IrregularBatch, query_time: Float[Tensor, "batch query"]
    ) -> Float[Tensor, "batch query latent"]:
        """Latent state at asked times (hours, float64) from what lies at or before each.

        Between and after rows the state only flows, with the treatments given then; a rate still
        running at the prediction time is held. Before the first row it is the starting state, 0.
        """
        self._require_built()
        kept, _ = self._run(batch, self.memory.before(batch))
        row = batch.row_before(query_time)
        core = self._carry(batch, kept, query_time, row)
        return torch.cat([core, self.memory.at(batch, query_time, row)], dim=2)

    def _construct_decoder(self, n_states: int, generator: torch.Generator) -> None:
        n_variables = len(self.schema.variables)
        self.memory = Memory(n_variables, REFERENCE_WINDOW / self.schema.window)
        self.decoder = linear(n_states + n_variables, n_variables, generator, bias=0.0)
        with torch.no_grad():
            self.decoder.weight[:, n_states:] = RECALLED * torch.eye(n_variables)
        self.register_buffer("latent_low", -torch.ones(n_states + n_variables))
        self.register_buffer("latent_high", torch.ones(n_states + n_variables))

    @abstractmethod
    def _construct(self, generator: torch.Generator) -> tuple[int, int]:
        """Make parameters for `self.schema`; gives the numbers of own states and of features."""

    @abstractmethod
    def _run(
        self, batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
    ) -> tuple[Float[Tensor, "row kept"], Float[Tensor, "row latent"]]:
        """What a family keeps after the observations of each row, and its states just before them.

        What is kept is its states (see `_shown`), or more: all that `_carry` needs.

        Args:
            batch: The records.
            remembered: The memory just before each row.
        """

    @abstractmethod
    def _carry(
        self,
        batch: IrregularBatch,
        states: Float[Tensor, "row kept"],
        query_time: Float[Tensor, "batch query"],
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query latent"]:
        """States carried from the last row at or before each asked time to that time."""

    @abstractmethod
    def _features(
        self, states: Float[Tensor, "*place latent"], remembered: Float[Tensor, "*place variable"]
    ) -> Float[Tensor, "*place feature"]:
        """What the heads read of a family's own states, and of the memory."""

    def _shown(self, kept: Float[Tensor, "*place kept"]) -> Float[Tensor, "*place latent"]:
        """A family's own states just after a row, of what it keeps of the row: by default that."""
        return kept

    def _own_loss(
        self,
        batch: IrregularBatch,
        encoding: Encoding,
        generator: torch.Generator | None,
        n_measured: Float[Tensor, ""],
    ) -> Float[Tensor, ""]:
        """What a family's latent model adds to the loss, such as a likelihood; zero by default.

        Args:
            batch: What is left of the records after augmentation.
            encoding: Of it.
            generator: Feeds its draws; None takes their means.
            n_measured: Values of the whole step, before augmentation, that a mean is taken over.
        """
        return batch.value.new_zeros(())

    @property
    def solver(self) -> Solver | None:
        """How the field is solved between rows; None where the flow is exact, or none is."""
        return None

    @property
    @abstractmethod
    def latent_system(self) -> System:
        """The flow between observations, in float64, with the decoder as its output map.

        States z1.. have unit "1"; inputs are the treatments and outputs the measured variables,
        both in original units; time runs in hours.

        Raises:
            ArgumentError: The family has no field; says why.
        """

    def _require_built(self) -> None:
        if not self.is_built:
            raise ArgumentError(
                f"{type(self).__name__} has no sizes yet", fix="call build(schema, task, generator)"
            )


def _thin(
    batch: IrregularBatch,
    drop_variable: float,
    drop_observation: float,
    generator: torch.Generator | None,
) -> tuple[IrregularBatch, Bool[Tensor, "batch variable"] | None]:
    """What the sequence reads, and the variables that are hidden from both towers."""
    if generator is None or (drop_variable == 0 and drop_observation == 0):
        return batch, None
    shape = (len(batch), batch.value.shape[1])
    device = generator.device
    hidden = torch.rand(shape, generator=generator, device=device) < drop_variable
    single = torch.rand(batch.mask.shape, generator=generator, device=device) < drop_observation
    return batch.without(hidden[batch.row_subject] | single), hidden


def _check_settings(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        if value is None and name in OPEN_SIZES:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ArgumentError(f"{name} must be a number, got {value!r}")
        if isinstance(value, int) and value < 1 and "drop" not in name and "weight" not in name:
            raise ArgumentError(f"{name} must be at least 1, got {value}")
        if value < 0 or ("drop" in name and value >= 1):
            raise ArgumentError(f"{name} is out of range: {value}")
