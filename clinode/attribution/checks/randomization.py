"""Whether a map speaks of the model: other weights, and labels that mean nothing, must change it.

Adebayo et al. 2018 (arXiv 1810.03292). One caution changes the reading: a large deviation of a
value, or a long wait, weighs in a map under almost any weights, so the maps of a trained model and
of a random one correlate highly (0.6 is usual) though both depend on their weights. What counts is
how that compares with the maps of two random models.
"""

import tempfile
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinode.attribution.checks.asked import Asked
from clinode.attribution.checks.pairs import mean_of_known, over_subjects, side_by_side
from clinode.cohort import Classify, Cohort, Survive
from clinode.errors import ArgumentError
from clinode.sequence import SequenceModel
from clinode.statistics import Estimate
from clinode.training import FitConfig, Run, fit

NEARLY_SAME = 0.9  # rank correlation of random models above which a map shows the records alone
_WHY = "no subject has three events with a map by both models"
_OWN = "own"  # the stage of a family's parameters that stand in no module


@dataclass(frozen=True)
class WeightRandomization:
    """Rank correlations of |attribution| between the model and others with random weights.

    Args:
        trained_and_random: Mean over the random models.
        random_and_random: The null: mean over their pairs.
        excess: The first minus the second, over the same subjects.
        same_sign: Share of the events that the trained and a random model give the same sign;
            1/2 is chance.
        stages: The model's own map beside those of itself with random weights from the read-out
            down to each stage; empty where no cascade was asked for.
        n_random: Random models.
        verdict: In words.
    """

    trained_and_random: Estimate
    random_and_random: Estimate
    excess: Estimate
    same_sign: Estimate
    stages: dict[str, Estimate]
    n_random: int
    verdict: str

    name = "weight randomization"

    def estimates(self) -> dict[str, Estimate]:
        """Its numbers by name."""
        return {
            "trained and random": self.trained_and_random,
            "random and random": self.random_and_random,
            "excess": self.excess,
            "same sign": self.same_sign,
            **{f"random down to {stage}": found for stage, found in self.stages.items()},
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words."""
        numbers = {name: estimate.to_dict() for name, estimate in self.estimates().items()}
        return {**numbers, "n_random": self.n_random, "verdict": self.verdict}


@dataclass(frozen=True)
class LabelPermutation:
    """Whether a refit gives the map back, and a refit on permuted labels does not.

    Args:
        true_labels: Rank correlation of |attribution| between the run and a refit of another seed.
        permuted_labels: The same with a refit whose labels were permuted among the records.
        difference: The first minus the second, over the same subjects.
        size: Mean |attribution| of the refit on permuted labels, relative to that on true ones.
        verdict: In words.
    """

    true_labels: Estimate
    permuted_labels: Estimate
    difference: Estimate
    size: Estimate
    verdict: str

    name = "label permutation"

    def estimates(self) -> dict[str, Estimate]:
        """Its numbers by name."""
        return {
            "refit on true labels": self.true_labels,
            "refit on permuted labels": self.permuted_labels,
            "difference": self.difference,
            "size": self.size,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words."""
        numbers = {name: estimate.to_dict() for name, estimate in self.estimates().items()}
        return {**numbers, "verdict": self.verdict}


def weight_randomization(
    run: Run,
    cohort: Cohort,
    asked: Asked | None = None,
    *,
    n_random: int = 4,
    cascade: bool = False,
    n_resamples: int = 1000,
    seed: int = 0,
) -> WeightRandomization:
    """Compare the map with those of the same model under random weights.

    Args:
        run: Whose map is checked.
        cohort: Whose subjects.
        asked: Method, baseline and output.
        n_random: Random models, two at least.
        cascade: Whether the weights are also replaced stage by stage, from the read-out down.
        n_resamples: Bootstrap resamples of subjects.
        seed: Of the weights and the resamples.

    Raises:
        ArgumentError: `n_random` is below 2.
    """
    asked = Asked() if asked is None else asked
    if n_random < 2:
        raise ArgumentError(f"n_random must be at least 2, got {n_random}")
    own = asked.of(run, cohort)
    models = [_randomized(run.model, seed + k) for k in range(n_random)]
    others = [asked.of(replace(run, model=model), cohort) for model in models]
    like_own = [side_by_side(own, other) for other in others]
    among = [side_by_side(first, second) for first, second in combinations(others, 2)]
    columns = {
        "own": mean_of_known([pair.rank_correlation() for pair in like_own]),
        "null": mean_of_known([pair.rank_correlation() for pair in among]),
        "sign": mean_of_known([pair.same_sign() for pair in like_own]),
    }
    stages = {}
    if cascade:
        for stage, model in _cascade(run.model, models[0]):
            told = asked.of(replace(run, model=model), cohort)
            stages[stage] = side_by_side(own, told).rank_correlation()
    drawn = over_subjects(columns | stages, n_resamples=n_resamples, seed=seed)
    null = drawn.estimate("null", why=_WHY)
    excess = drawn.difference("own", "null", why=_WHY)
    trained = drawn.estimate("own", why=_WHY)
    return WeightRandomization(
        trained_and_random=trained,
        random_and_random=null,
        excess=excess,
        same_sign=drawn.estimate("sign", why=_WHY),
        stages={stage: drawn.estimate(stage, why=_WHY) for stage in stages},
        n_random=n_random,
        verdict=_weights_verdict(trained, null, excess),
    )


def label_permutation(
    run: Run,
    train: Cohort,
    cohort: Cohort,
    asked: Asked | None = None,
    *,
    config: FitConfig | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> LabelPermutation:
    """Fit the model twice more, once on permuted labels, and compare the maps.

    The refits take the schedule of the run and have no tuning part.

    Args:
        run: Whose map is checked.
        train: The part that it was fitted on.
        cohort: Whose subjects are explained.
        asked: Method, baseline and output.
        config: Another schedule, as a shorter one.
        n_resamples: Bootstrap resamples of subjects.
        seed: Of the permutation and the resamples.

    Raises:
        ArgumentError: The task has no labels apart from what was measured.
        SchemaError: The training part lacks the outcome, or permuted has one class.
    """
    asked = Asked() if asked is None else asked
    if not isinstance(run.task, Classify | Survive):
        raise ArgumentError(
            "what this run predicts are measurements, and there are no labels to permute"
        )
    outcomes = train.outcomes
    labels = [name for name in outcomes.columns if name not in ("subject_id", "prediction_time")]
    order = np.random.default_rng(seed).permutation(len(outcomes))
    permuted = outcomes.assign(**{name: outcomes[name].to_numpy()[order] for name in labels})
    own = asked.of(run, cohort)
    told = []
    with tempfile.TemporaryDirectory(prefix="clinode-labels-") as folder:
        for name, part in (("true", train), ("permuted", train.with_outcomes(permuted))):
            refit = fit(
                run.model,
                part,
                task=run.task,
                out=Path(folder) / name,
                seed=run.seed + 1,
                device=run.device.type,
                config=run.config if config is None else config,
                progress=False,
            )
            told.append(asked.of(refit, cohort))
    columns = {
        "true": side_by_side(own, told[0]).rank_correlation(),
        "permuted": side_by_side(own, told[1]).rank_correlation(),
        "size": side_by_side(told[0], told[1]).relative_size(),
    }
    drawn = over_subjects(columns, n_resamples=n_resamples, seed=seed)
    difference = drawn.difference("true", "permuted", why=_WHY)
    found = {name: drawn.estimate(name, why=_WHY) for name in columns}
    return LabelPermutation(
        true_labels=found["true"],
        permuted_labels=found["permuted"],
        difference=difference,
        size=found["size"],
        verdict=_labels_verdict(found["true"], found["permuted"], difference),
    )


def _weights_verdict(trained: Estimate, null: Estimate, excess: Estimate) -> str:
    if not (trained.is_defined and null.is_defined):
        return f"undecided: {_WHY}"
    beside = f"{trained.value:.2f} beside {null.value:.2f} between random models"
    if null.value >= NEARLY_SAME:
        return f"failed: under any weights the maps are nearly the same ({beside})"
    if excess.low > 0:
        return f"doubtful: it resembles random models more than these resemble each other: {beside}"
    return f"passed: it resembles random models no more than these resemble each other: {beside}"


def _labels_verdict(true: Estimate, permuted: Estimate, difference: Estimate) -> str:
    if not difference.is_defined:
        return f"undecided: {_WHY}"
    told = f"{true.value:.2f}, of permuted labels {permuted.value:.2f}"
    if difference.low > 0:
        return f"passed: a refit on true labels gives more of the map back ({told})"
    return f"failed: a refit on true labels gives no more of the map back ({told})"


def _randomized(model: SequenceModel, seed: int) -> SequenceModel:
    """The model with the weights of a new one; what was fixed before its training stays.

    A tensor that a new model starts as one number everywhere would stay without a say; it takes the
    trained entries in another order.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    fresh = model.build(model.schema, model.task, generator)
    drawn, held = dict(fresh.named_parameters()), dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in drawn.items():
            if bool((weight == weight.reshape(-1)[:1]).all()):
                entries = held[name].detach().cpu().reshape(-1)
                order = torch.randperm(len(entries), generator=generator)
                weight.copy_(entries[order].reshape(weight.shape))
        for name, constant in fresh.named_buffers():
            constant.copy_(model.get_buffer(name))
    return fresh.to(device)


def _cascade(trained: SequenceModel, random: SequenceModel) -> list[tuple[str, SequenceModel]]:
    """The trained model with more and more of the random weights, from the read-out down."""
    names = [name for name, _ in trained.named_parameters()]
    parts = [name.partition(".")[0] if "." in name else _OWN for name in names]
    inner = [name for name, _ in trained.named_children() if name not in ("head", "decoder")]
    order = [part for part in ("head", *reversed(inner), _OWN) if part in parts]
    drawn = dict(random.named_parameters())
    models = []
    for depth in range(1, len(order) + 1):
        model = _copied(trained)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                part = name.partition(".")[0] if "." in name else _OWN
                if part in order[:depth]:
                    weight.copy_(drawn[name])
        models.append((order[depth - 1], model))
    return models


def _copied(model: SequenceModel) -> SequenceModel:
    copy = model.build(model.schema, model.task, torch.Generator())
    copy.load_state_dict(model.state_dict())
    return copy.to(next(model.parameters()).device)
