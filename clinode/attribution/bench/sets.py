"""The sets of the benchmark by name: each drawn, and where a network is explained, fitted.

The sets with labels fit a small recurrent network (`RecurrentConfig`); what is then explained is
the sum of its logits over the steps, or the logit of the class told at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from clinode.attribution.bench.grids import event_views, filled
from clinode.attribution.bench.irregular import IrregularRecords, irregular_records
from clinode.attribution.bench.motifs import ClassedSequences, ramp_sequences
from clinode.attribution.bench.ornstein import ornstein_readout
from clinode.attribution.bench.problem import Problem, of_all
from clinode.attribution.bench.recurrent import Recurrent, RecurrentConfig, fit_recurrent
from clinode.attribution.bench.sequences import (
    LabeledSequences,
    spike_sequences,
    state_sequences,
    switch_sequences,
)
from clinode.attribution.bench.white_box import (
    rare_feature,
    rare_feature_two_groups,
    rare_time,
    rare_time_two_groups,
)

Progress = Callable[[int, int], None]

SMALL = RecurrentConfig(hidden=32, epochs=15, learning_rate=5e-3, l2=1e-5)
"""Predicts State as well as the published 200 units, in a tenth of the time."""

IRREGULAR = {
    "irregular_value": {"value": 1.0},
    "irregular_ordering": {"ordering": 1.0},
    "irregular_timing": {"timing": 1.0},
    "irregular_mixed": {"value": 0.5, "ordering": 0.3, "timing": 0.2},
}
"""Of each irregular set, the shares of the kinds of cause."""


@dataclass(frozen=True)
class BenchSet:
    """A set by name.

    Args:
        about: Its first line in a list.
        make: (seed, quick, network config, progress) -> the views of its problem: "events", and
            where records are irregular "deletion" and "grid".
        is_learned: Whether a network is fitted.
    """

    about: str
    make: Callable[[int, bool, RecurrentConfig, Progress | None], dict[str, Problem]]
    is_learned: bool


def _written(problem: Callable[[np.random.Generator], Problem]) -> Callable:
    def make(seed: int, quick: bool, config: RecurrentConfig, progress: Progress | None) -> dict:
        return {"events": problem(np.random.default_rng(seed))}

    return make


def _ornstein(seed: int, quick: bool, config: RecurrentConfig, progress: Progress | None) -> dict:
    return {"events": ornstein_readout(20 if quick else 100, np.random.default_rng(seed))}


def _labeled(
    name: str,
    draw_sequences: Callable[[int, int, np.random.Generator], LabeledSequences],
    n_train: int,
    n_steps: int,
) -> Callable:
    def make(seed: int, quick: bool, config: RecurrentConfig, progress: Progress | None) -> dict:
        draw = np.random.default_rng(seed)
        n, steps = (100, n_steps // 4) if quick else (n_train, n_steps)
        train = draw_sequences(n, steps, draw)
        test = draw_sequences(20 if quick else 200, steps, draw)
        has_truth = test.truth.any(axis=(1, 2))  # a sequence without a spike has nothing to find
        network = fit_recurrent(
            torch.from_numpy(train.x).float(),
            torch.from_numpy(train.label).float(),
            config,
            seed=seed,
            progress=progress,
        ).double()
        with torch.no_grad():
            logit = network(torch.from_numpy(test.x))[..., 0].numpy()
        x = torch.from_numpy(test.x[has_truth])
        problem = Problem(
            name=name,
            about="sum over steps of the logits of a recurrent network",
            pieces=of_all(TotalLogit(network), x),
            x=x,
            baseline=torch.zeros(1, dtype=torch.float64),
            truth=test.truth[has_truth],
            facts={"auroc of the network": float(roc_auc_score(test.label.ravel(), logit.ravel()))},
        )
        return {"events": problem}

    return make


def _ramps(name: str, length: tuple[int, int], missing: float) -> Callable:
    def make(seed: int, quick: bool, config: RecurrentConfig, progress: Progress | None) -> dict:
        draw = np.random.default_rng(seed)
        n, steps = (160, 80) if quick else (1500, 200)
        train = ramp_sequences(n, steps, 4, draw, length=length, missing=missing)
        test = ramp_sequences(24 if quick else 100, steps, 4, draw, length=length, missing=missing)
        network = fit_recurrent(
            _channels(train, missing > 0).float(),
            torch.from_numpy(train.label),
            config,
            seed=seed,
            progress=progress,
        ).double()
        with torch.no_grad():
            told = network(_channels(test, missing > 0))[:, -1].argmax(dim=1).numpy()
        right = float((told == test.label).mean())
        some = np.flatnonzero(test.label > 0)  # class 0 has no ramp
        some = some[np.argsort(told[some], kind="stable")]
        x, truth = test.x[some], test.truth[some]
        classes = told[some]
        facts = {"accuracy of the network": right}
        about = "logit of the class that a recurrent network tells, above the mean of the others"
        if missing > 0:
            value = np.where(test.seen[some][..., None], x, np.nan)
            kept = truth.any(axis=(1, 2))
            return event_views(
                name, about, network, value[kept], truth[kept], facts,
                [Contrast(int(one)) for one in classes[kept]],
            )  # fmt: skip
        pieces = []
        for one in np.unique(classes):
            rows = np.flatnonzero(classes == one)
            here = slice(int(rows[0]), int(rows[-1]) + 1)
            pieces.append((here, _Composed(network, Contrast(int(one)))))
        problem = Problem(
            name=name, about=about, pieces=tuple(pieces), x=torch.from_numpy(x),
            baseline=torch.from_numpy(train.x.mean(axis=(0, 1))), truth=truth, facts=facts,
        )  # fmt: skip
        return {"events": problem}

    return make


def draw_irregular(name: str, seed: int, quick: bool) -> tuple[IrregularRecords, int, int]:
    """The records of an irregular set, how many of them train, and how many are explained."""
    n, n_test, n_explained = (300, 40, 20) if quick else (4000, 1000, 200)
    records = irregular_records(n + n_test, IRREGULAR[name], np.random.default_rng(seed))
    return records, n, n_explained


def _irregular(name: str) -> Callable:
    def make(seed: int, quick: bool, config: RecurrentConfig, progress: Progress | None) -> dict:
        records, n, n_explained = draw_irregular(name, seed, quick)
        train, test = records.take(slice(0, n)), records.take(slice(n, None))
        label = torch.from_numpy(train.label).long()
        network = fit_recurrent(
            _grid(train.value).float(), label, config, seed=seed, progress=progress
        ).double()
        with torch.no_grad():
            logit = Contrast(1)(network(_grid(test.value))).numpy()
        explained = np.flatnonzero(test.truth.any(axis=(1, 2)))[:n_explained]
        return event_views(
            name, "logit of a recurrent network on the filled grid", network,
            test.value[explained], test.truth[explained],
            {
                "auroc of the network": float(roc_auc_score(test.label, logit)),
                "auroc of the planted logit": float(roc_auc_score(test.label, test.logit)),
            },
            [Contrast(1)] * len(explained),
        )  # fmt: skip

    return make


class TotalLogit(nn.Module):
    """The sum over steps of the first logit of a network."""

    def __init__(self, network: Recurrent):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(row, step, variable) -> (row,)."""
        return self.network(x)[..., 0].sum(dim=1)


class Contrast(nn.Module):
    """The logit of a class at the last step above the mean of the others."""

    def __init__(self, of: int):
        super().__init__()
        self.of = of

    def forward(self, logits: Tensor) -> Tensor:
        """(row, step, class) -> (row,)."""
        last = logits[:, -1]
        others = (last.sum(dim=1) - last[:, self.of]) / (last.shape[1] - 1)
        return last[:, self.of] - others


class _Composed(nn.Module):
    def __init__(self, network: Recurrent, readout: Contrast):
        super().__init__()
        self.network, self.readout = network, readout

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.network(x))


def _channels(sequences: ClassedSequences, has_gaps: bool) -> Tensor:
    if not has_gaps:
        return torch.from_numpy(sequences.x)
    return _grid(np.where(sequences.seen[..., None], sequences.x, np.nan))


def _grid(value: np.ndarray) -> Tensor:
    return filled(torch.from_numpy(np.nan_to_num(value)), torch.from_numpy(~np.isnan(value)))


SETS: dict[str, BenchSet] = {
    "rare_feature": BenchSet("squares of 5 variables of 50", _written(rare_feature), False),
    "rare_time": BenchSet("squares of 5 steps of 50", _written(rare_time), False),
    "rare_feature_two_groups": BenchSet(
        "another function for each half of the subjects", _written(rare_feature_two_groups), False
    ),
    "rare_time_two_groups": BenchSet(
        "other steps for each half of the subjects", _written(rare_time_two_groups), False
    ),
    "ornstein": BenchSet("readout of irregular measurements in closed form", _ornstein, False),
    "state": BenchSet(
        "two hidden states (HMM)", _labeled("state", state_sequences, 800, 200), True
    ),
    "switch_feature": BenchSet(
        "three hidden states", _labeled("switch_feature", switch_sequences, 800, 100), True
    ),
    "spike": BenchSet(
        "the first spike of one channel", _labeled("spike", spike_sequences, 2000, 80), True
    ),
    "seqcomb": BenchSet("two ramps", _ramps("seqcomb", (10, 20), 0.0), True),
    "seqcomb_irregular": BenchSet(
        "two ramps, steps missing", _ramps("seqcomb_irregular", (15, 30), 0.15), True
    ),
    **{
        name: BenchSet("irregular records, cause by " + ", ".join(shares), _irregular(name), True)
        for name, shares in IRREGULAR.items()
    },
}
