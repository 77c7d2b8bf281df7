"""How a learned field was stepped over the gaps of records, and how far its steps are off.

A field may become stiff as it learns. It then takes more steps over a gap, up to a bound; this says
how many it took, on how many gaps the bound was met, and what halving every step would change where
the steps are largest.
"""

import copy
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from clinode.cohort import IrregularBatch, PackedRecords
from clinode.sequence.exponential_steps import (
    MAX_STEPS,
    Solver,
    exponential_steps,
    number_of_steps,
)
from clinode.sequence.model import SequenceModel
from clinode.sequence.readout import in_batches

SAMPLE = 256  # gaps whose steps are halved, those with the largest steps
TOLERATED = 1e-5  # of the largest state
FOURTH_ORDER = 16 / 15  # what halving changes, to the error before


@dataclass(frozen=True)
class StepCheck:
    """Steps over the gaps of some records.

    Args:
        n_gaps: How many there were.
        mean_steps, most_steps: Steps of a gap.
        n_at_bound: Gaps that would have taken more steps than are allowed.
        error: By how much halving the largest steps moves a state, made the error of the steps that
            were taken, relative to the largest state.
    """

    n_gaps: int
    mean_steps: float
    most_steps: int
    n_at_bound: int
    error: float

    def to_dict(self) -> dict[str, int | float]:
        """By name."""
        return asdict(self)

    @property
    def warning(self) -> str | None:
        """What a user should know, or None."""
        if self.error <= TOLERATED:
            return None
        bound = ""
        if self.n_at_bound:
            bound = f"; {self.n_at_bound} of {self.n_gaps} gaps met the bound of {MAX_STEPS} steps"
        return (
            f"the learned field is stiff: states between rows are off by {self.error:.0e} of the "
            f"largest{bound}. Lower the learning rate, or choose LinearLatentODE, which is exact"
        )


def check_steps(model: SequenceModel, records: PackedRecords) -> StepCheck | None:
    """How a trained model's field is stepped over the gaps of records; None where it is exact."""
    solver = copy.deepcopy(model).double().solver
    if solver is None:
        return None
    device, dtype = solver.decay.device, model.latent_low.dtype
    batches = [batch.to(device) for batch in in_batches(records, dtype=dtype)]
    with torch.no_grad():
        wanted = torch.cat([batch.gap.double() for batch in batches]) * solver.steepness
        n_steps = torch.cat([number_of_steps(b.gap.double(), solver.steepness) for b in batches])
        uncapped = number_of_steps(wanted, 1.0, most=float("inf"))
        error = max(_halved(model, solver, batch) for batch in _hardest(batches))
    return StepCheck(
        n_gaps=int((wanted > 0).sum()),
        mean_steps=n_steps.mean().item(),
        most_steps=int(n_steps.max()),
        n_at_bound=int((uncapped > n_steps).sum()),
        error=error,
    )


def _hardest(batches: list[IrregularBatch]) -> list[IrregularBatch]:
    """The batches with the longest gap, and with the longest records."""
    longest = max(batches, key=lambda batch: batch.gap.max().item())
    return [longest] if longest is batches[0] else [longest, batches[0]]


def _halved(model: SequenceModel, solver: Solver, batch: IrregularBatch) -> float:
    """The relative error of a batch's largest steps."""
    before = _row_before(batch)
    gap = batch.gap.double()
    n_steps = number_of_steps(gap, solver.steepness)
    size = torch.where(before >= 0, gap / n_steps, -1.0)
    row = torch.topk(size, min(SAMPLE, len(size))).indices
    row = row[before[row] >= 0]
    if not len(row):
        return 0.0
    states = model._shown(model.encode(batch).after).double()
    drive = None
    if batch.treatments is not None:
        drive = solver.drive(batch.treatments.rates(batch.n_rows)[row].double())
    ends = [
        solver.flow(
            states[before[row]],
            exponential_steps(solver.decay, gap[row] / (n * n_steps[row]), n * n_steps[row]),
            drive,
        )
        for n in (1, 2)
    ]
    moved = (ends[0] - ends[1]).abs().max() * FOURTH_ORDER
    return (moved / states.abs().max().clamp(min=torch.finfo(torch.float64).tiny)).item()


def _row_before(batch: IrregularBatch) -> Int64[Tensor, " row"]:
    """The row before each row of the same record; -1 for the first."""
    rows = torch.arange(batch.n_rows, device=batch.gap.device)
    sizes = torch.tensor(batch.sizes, device=rows.device)
    previous = torch.repeat_interleave(torch.cat([sizes[:1], sizes[:-1]]), sizes)
    return torch.where(rows >= batch.sizes[0], rows - previous, -1)
