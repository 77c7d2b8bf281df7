"""The steps of a fit: which records, at which rate, towards which average.

Everything here is a function of (seed, purpose, epoch, step) and of the state handed in. No draw
depends on an earlier one, so a fit that was stopped anywhere goes on to the same bytes.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from clinode.training.config import FitConfig


def keyed_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit number that depends on these words and numbers only, by BLAKE2b.

    Example:
        >>> keyed_seed(0, "order", 3) == keyed_seed(0, "order", 3)
        True
        >>> keyed_seed(0, "order", 3) == keyed_seed(0, "order", 4)
        False
    """
    key = "\x1f".join([str(seed), purpose, *map(str, counters)])
    digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"clinode-fit")
    return int.from_bytes(digest.digest(), "little") >> 1


def keyed_generator(
    seed: int, purpose: str, *counters: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A fresh generator for one purpose at one place of the fit."""
    return torch.Generator(device).manual_seed(keyed_seed(seed, purpose, *counters))


@contextmanager
def isolated_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """The global generators of torch, seeded within and put back afterwards.

    clinode's own models draw from the generator they are handed; a layer of somebody else
    (`torch.nn.Dropout`) draws from the global one, and must resume to the same bytes as well.
    """
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def epoch_batches(
    lengths: np.ndarray, config: FitConfig, *, seed: int, epoch: int
) -> list[np.ndarray]:
    """The batches of an epoch: every record once, records of like length together.

    The records are shuffled, cut into buckets of `bucket_batches` batches, each bucket is sorted by
    length and cut into batches, whose order within the bucket is shuffled again.

    Args:
        lengths: Rows of each record, (record,).
        config: For `batch_size` and `bucket_batches`.
        seed: Of the fit.
        epoch: From 0.

    Returns:
        Positions of records, one array a batch; only the last bucket may hold a smaller batch.
    """
    generator = np.random.default_rng(keyed_seed(seed, "order", epoch))
    order = generator.permutation(len(lengths))
    bucket_size = config.batch_size * config.bucket_batches
    batches: list[np.ndarray] = []
    for start in range(0, len(order), bucket_size):
        bucket = order[start : start + bucket_size]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        cuts = range(config.batch_size, len(bucket), config.batch_size)
        pieces = np.split(bucket, list(cuts))
        batches.extend(pieces[k] for k in generator.permutation(len(pieces)))
    return batches


def n_steps_per_epoch(n_records: int, config: FitConfig) -> int:
    """How many batches `epoch_batches` returns."""
    full, rest = divmod(n_records, config.batch_size * config.bucket_batches)
    return full * config.bucket_batches + math.ceil(rest / config.batch_size)


def learning_rate(step: int, n_steps: int, config: FitConfig) -> float:
    """Rate of a step: linear warm-up over the first `warmup` of all steps, times cosine to zero.

    Example:
        >>> config = FitConfig(learning_rate=1.0, warmup=0.1)
        >>> [round(learning_rate(step, 100, config), 3) for step in (0, 9, 50, 99)]
        [0.1, 0.98, 0.5, 0.0]
    """
    n_warmup = max(1.0, config.warmup * n_steps)
    warmup = min(1.0, (step + 1) / n_warmup)
    return config.learning_rate * warmup * 0.5 * (1.0 + math.cos(math.pi * step / n_steps))


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, ICLR), on matrices only.

    Biases, rates and gains are not pulled to zero. The arithmetic is that of `torch.optim.AdamW`,
    which a test compares; that one imports torch's compiler when it is made, 1.5 s for nothing.

    Args:
        model: Its parameters are stepped in place; those without a gradient stay as they are.
        weight_decay: Per step and rate.
        moments: State of an earlier optimiser of the same model, by "mean/NAME", "square/NAME" and
            "step/NAME"; empty to begin.
    """

    def __init__(
        self, model: nn.Module, weight_decay: float, moments: dict[str, Tensor] | None = None
    ):
        self._parameters = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._weight_decay = weight_decay
        self.moments: dict[str, Tensor] = dict(moments or {})

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step down the gradients that stand in the parameters."""
        for name, parameter in self._parameters:
            if parameter.grad is None:
                continue
            if f"step/{name}" not in self.moments:
                self.moments[f"step/{name}"] = torch.zeros((), dtype=torch.int64)
                self.moments[f"mean/{name}"] = torch.zeros_like(parameter)
                self.moments[f"square/{name}"] = torch.zeros_like(parameter)
            mean, square = self.moments[f"mean/{name}"], self.moments[f"square/{name}"]
            n = int(self.moments[f"step/{name}"].add_(1))
            mean.lerp_(parameter.grad, 1 - _BETA_1)
            square.mul_(_BETA_2).addcmul_(parameter.grad, parameter.grad, value=1 - _BETA_2)
            if parameter.ndim >= 2:
                parameter.mul_(1 - rate * self._weight_decay)
            scale = (square.sqrt() / math.sqrt(1 - _BETA_2**n)).add_(_EPSILON)
            parameter.addcdiv_(mean, scale, value=-rate / (1 - _BETA_1**n))


_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


def start_average(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights, from which the average starts."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def update_average(average: dict[str, Tensor], model: nn.Module, step: int, decay: float) -> None:
    """Moves the average towards the weights after `step` (from 0), in place.

    average <- d average + (1 - d) weights, with d = min(decay, (1 + step) / (10 + step)): an early
    average forgets the untrained start. What is not a floating number is copied.
    """
    d = min(decay, (1 + step) / (10 + step))
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1.0 - d)
        else:
            average[name].copy_(value)
