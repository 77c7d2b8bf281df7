"""How a fit is carried out: the optimiser, its schedule, when to stop, how often to save."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import torch

from clinode.cohort import Forecast, Task
from clinode.errors import ArgumentError

# what may differ between a run and its resumption without changing any byte of the result
_OPERATIONAL = ("checkpoint_seconds",)
_COUNTS = (
    *("epochs", "batch_size", "accumulate", "bucket_batches", "patience_epochs"),
    *("prediction_times", "statistics_subjects"),
)
# where others than the defaults were found better
_RECOMMENDED: dict[type[Task], dict[str, int]] = {Forecast: {"epochs": 8, "prediction_times": 3}}


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a sequence model is trained.

    The defaults are the recipe measured on PhysioNet-2012 (AdamW, linear warm-up times cosine to
    zero, averaged weights). Given none, `fit` takes `FitConfig.recommended(task)`.

    Raises:
        ArgumentError: A value lies outside of its meaning.
    """

    epochs: int = 10
    batch_size: int = 64  # records of a step
    accumulate: int = 1  # parts that a step is computed in, one after the other, to save memory
    bucket_batches: int = 10  # batches drawn together and sorted by length
    learning_rate: float = 2e-3  # at the end of the warm-up
    weight_decay: float = 0.1  # decoupled, on matrices only
    warmup: float = 0.1  # fraction of all steps
    gradient_norm: float = 1.0  # longer gradients are shortened to this
    average_decay: float = 0.98  # of the averaged weights, themselves warmed up
    patience_epochs: int = 5  # only with a tuning part: stop after this many without a better loss
    prediction_times: int = 1  # forecasts: of each record in training, its own and earlier ones
    # of a larger training part, so many, drawn by hash, give the scales, baselines and state ranges
    statistics_subjects: int = 50_000
    checkpoint_seconds: float = 30.0  # at most this much work is lost to a kill; 0 saves every step

    def __post_init__(self):
        for name in _COUNTS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ArgumentError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name in ("learning_rate", "gradient_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ArgumentError(f"{name} must be positive, got {getattr(self, name)!r}")
        for name in ("weight_decay", "checkpoint_seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ArgumentError(f"{name} must not be negative, got {getattr(self, name)!r}")
        for name in ("warmup", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ArgumentError(f"{name} must lie in [0, 1), got {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, int | float]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, int | float]) -> "FitConfig":
        """The configuration of these values.

        Raises:
            ArgumentError: A name is unknown, or a value lies outside of its meaning.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ArgumentError(
                f"FitConfig has no {', '.join(map(repr, unknown))}",
                fix=f"choose among {', '.join(sorted(known))}",
            )
        return cls(**values)  # pyright: ignore[reportArgumentType]  # __post_init__ checks them

    @classmethod
    def recommended(cls, task: Task) -> "FitConfig":
        """What was found best for a task on PhysioNet-2012.

        A forecast learns from three prediction times of each record: with one, what is rarely
        measured is learned from too few values.
        """
        return cls(**_RECOMMENDED.get(type(task), {}))

    def decisive(self) -> dict[str, int | float]:
        """The values that decide the result; a resumed run must have the same ones."""
        return {name: value for name, value in asdict(self).items() if name not in _OPERATIONAL}


def resolve_device(device: str) -> torch.device:
    """The torch device that `auto`, `cpu` or `cuda` stands for.

    Raises:
        ArgumentError: The word is unknown, or this machine has no CUDA.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ArgumentError(f"device must be 'auto', 'cpu' or 'cuda', got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(
            "device 'cuda' was asked for, and this machine offers no CUDA",
            fix="pass device='cpu', or 'auto' to take what there is",
        )
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
