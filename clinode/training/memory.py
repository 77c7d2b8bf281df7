"""How much memory a fit will need, said before its first step.

A few records are run through the model's loss and its gradient while every tensor that lives is
counted: so much a row, besides the gradients of the weights, gives the largest batch of the
schedule. To that come the copies of the weights (average, best, gradient, two moments, the fitted
model), what a pass without gradients over the longest records needs, and what the process holds
already: the cohorts, their records, the libraries.

Assumes that a batch costs in proportion to its rows; a solved field that takes more substeps later
than in its first batch needs more than is said. What other programs take meanwhile is not foreseen.
"""

import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clinode.cohort import PackedRecords
from clinode.errors import ResourceError
from clinode.sequence import SequenceModel
from clinode.training.config import FitConfig
from clinode.training.optimise import epoch_batches, isolated_randomness

_PROBED = 6  # records of median length
_EVALUATED = 256  # records of a batch without gradients
_COPIES = 6  # of the weights, besides those that exist
_LATER = 70e6  # bytes: libraries that the baselines and the evaluation load, and loose ends
_CERTAIN = 1.25  # an estimate beyond the available by this much is refused, below it is told


@dataclass(frozen=True)
class MemoryNeed:
    """What a fit needs, in bytes.

    Args:
        held: By the process before the first step, cohorts and libraries included.
        weights: Further copies of the weights.
        step: A step over the largest batch, gradients of its states included.
        evaluation: A pass without gradients over the longest records.
        rows: Of the largest batch.
    """

    held: float
    weights: float
    step: float
    evaluation: float
    rows: int

    @property
    def more(self) -> float:
        """What comes to what is held."""
        return self.weights + max(self.step, self.evaluation) + _LATER

    @property
    def peak(self) -> float:
        """The most that the process will hold."""
        return self.held + self.more

    def words(self) -> str:
        """One line for a person."""
        return (
            f"memory: about {size(self.peak)} at most, {size(self.held)} of them held already "
            f"(largest batch {self.rows:,} rows: {size(self.step)})"
        )


def memory_need(
    model: SequenceModel,
    records: PackedRecords,
    *,
    positions: np.ndarray,
    tune: PackedRecords | None,
    config: FitConfig,
    seed: int,
    n_processes: int = 1,
) -> MemoryNeed:
    """Measure a small batch, and say what the fit will need.

    Args:
        model: Built and prepared, on the CPU; not changed.
        records: The training part.
        positions: Which of its records are trained on.
        tune: The tuning part.
        config: The schedule.
        seed: Of the fit, which decides the batches.
        n_processes: That share each step.
    """
    lengths = records.lengths
    batches = epoch_batches(lengths[positions], config, seed=seed, epoch=0)
    rows = max(int(lengths[positions[batch]].sum()) for batch in batches)
    rows = -(-rows // (config.accumulate * n_processes))
    by_length = positions[np.argsort(lengths[positions], kind="stable")]
    probed = by_length[: len(by_length) // 2 + 1][-_PROBED:]
    n_probed = int(lengths[probed].sum())
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = float(sum(p.nbytes for p in trained))
    with isolated_randomness(0, torch.device("cpu")), _Living() as living:
        loss = model.loss(records.batch(probed), torch.Generator().manual_seed(0))
        if loss.requires_grad:  # of these few, nothing may be known
            torch.autograd.grad(loss, trained, allow_unused=True)
        del loss
    with torch.no_grad(), _Living() as answering:
        model(records.batch(probed))
    per_row = max(living.peak - gradients, 0.0) / n_probed
    asked = (records if tune is None else tune).lengths
    longest = int(np.sort(asked)[-_EVALUATED:].sum())
    return MemoryNeed(
        held=held_bytes() or 0.0,
        weights=_COPIES * float(sum(t.nbytes for t in model.state_dict().values())),
        step=gradients + per_row * rows,
        evaluation=answering.peak / n_probed * longest,
        rows=rows,
    )


def check_memory(need: MemoryNeed, available: float | None) -> str:
    """The line that is told before the first step, with a warning where memory may not do.

    Args:
        need: Of the fit.
        available: Bytes that the process can still take; None where the system does not say.

    Raises:
        ResourceError: The fit needs more than there is, beyond what the estimate may be off by.
    """
    if available is None or need.more <= available:
        return need.words()
    told = f"a fit that needs about {size(need.more)} more, and {size(available)} are available"
    if need.more > _CERTAIN * available:
        raise ResourceError(
            f"memory will not do: {told}",
            fix="lower batch_size, raise accumulate, choose a smaller model, or close other "
            "programs",
        )
    return f"{need.words()}; memory may run out: {told}"


class _Living(TorchDispatchMode):
    """Counts the bytes of the tensors that live, while inside; on the CPU."""

    def __init__(self):
        super().__init__()
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch's compiler is imported, 2 s for nothing

    def __torch_dispatch__(  # pyright: ignore[reportIncompatibleMethodOverride]  # its own types
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        return made

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._drop, key, storage.nbytes())

    def _drop(self, key: int, n_bytes: int) -> None:
        self._known.discard(key)
        self._now -= n_bytes


def held_bytes() -> float | None:
    """What this process holds in memory; None where the system does not say."""
    if sys.platform == "win32":
        return None
    status = Path("/proc/self/status")
    if status.is_file():
        return _field(status, "VmRSS:")
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS


def available_bytes(device: torch.device) -> float | None:
    """What this process can still take: of a CUDA device, else of the machine and its own group.

    None where the system does not say (it has no /proc).
    """
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    machine = Path("/proc/meminfo")
    if not machine.is_file():
        return None
    free = [_field(machine, "MemAvailable:")]
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
        cached = _field(group / "memory.stat", "inactive_file", unit=1.0)
        free.append(float(text) - float(used.read_text()) + (cached or 0.0))
    known = [value for value in free if value is not None]
    return min(known) if known else None


def _field(path: Path, name: str, unit: float = 1024.0) -> float | None:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return float(line.split()[1]) * unit
    return None


def size(n_bytes: float) -> str:
    """Bytes as "120 MB" or "3.4 GB".

    Example:
        >>> size(1.2e8), size(3.42e9), size(10.0)
        ('120 MB', '3.4 GB', '1 MB')
    """
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{max(n_bytes / 1e6, 1):.0f} MB"
