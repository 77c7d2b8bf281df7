"""Whether a model is right for the right reason: predicted against actual effects of interventions.

A model can predict all that was observed and be wired differently from what it models; what tells
is what happens when something is changed (Jonas & Kording 2017, PLoS Comput. Biol. 13:e1005268).
Both are put under the same experiments, and the changes compared: how large they are, what sign
they have, against the noise of a measurement, and beside models that show the same and are not the
same (`twins`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from clinode.dynamics.stationary import Moments
from clinode.errors import ArgumentError
from clinode.statistics import Estimate, wilson_interval
from clinode.system import Intervention, System
from clinode.system.interventions import Clamp

from .effects import (
    Answers,
    answers,
    check_readings,
    chosen_outputs,
    measured_effects,
    models_own,
    set_by_hand,
    twin_effects,
)
from .experiments import Experiment, as_tuple, distinct_words
from .readouts import AtRest, Reading, Readout
from .result import Alignment
from .scores import (
    FEWEST,
    Effects,
    Repeats,
    Scores,
    ceiling_of,
    correlation,
    over_models,
    score_effects,
    share_of_ceiling,
)
from .twins import seen_effects

AMBIGUOUS = 0.1  # of the size of the effects: twins that differ by more do not know the answer


def interventional_alignment(
    model: System,
    system: System,
    interventions: Sequence[Experiment],
    readout: Readout | None = None,
    *,
    outputs: Sequence[str] | Mapping[str, str] | None = None,
    model_interventions: Sequence[Experiment] | None = None,
    model_readout: Readout | None = None,
    noise: float | Mapping[str, float] = 0.0,
    repeats: int = 20,
    generator: torch.Generator | None = None,
    twins: Sequence[System] = (),
    seen: Moments | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Alignment:
    """Predicted against actual effects of interventions.

    An effect is what a reading changes by. Readings that an experiment itself sets (a silenced
    unit's own rate) are not scored: they are right in every model. Where readings have several
    units, each output's effects are divided by their root mean square before they are pooled.

    Args:
        model: What predicts.
        system: What it is a model of.
        interventions: Experiments: an intervention, or several at once; see `lesions` and `cuts`.
        readout: What is compared: `AtRest` (default), `OverTime` or `Period`.
        outputs: Names of outputs to compare, all by default; a mapping where the model calls them
            otherwise, {name in the system: name in the model}.
        model_interventions: The same experiments in the model's names and units, where they differ.
        model_readout: The same readout for the model, where its inputs or start differ.
        noise: Standard deviation of one measurement, in the outputs' unit; or by output.
        repeats: Measurements of the intact and of the changed system, each anew, that are averaged.
        generator: Draws their noise; seed 0 by default.
        twins: Models that fit what was observed as well as `model` does: `covariance_twins`,
            `similar_twins`, or other seeds of a training. That they fit is the caller's word.
        seen: Mean and covariance of what was observed, for what seeing alone predicts.
        n_resamples: Bootstrap resamples of experiments.
        seed: Of them.

    Raises:
        ArgumentError: No interventions, a site or output that one of the two does not have, other
            readings of the model than of the system, a learned system with arbitrary coordinates
            put under the same names, an intact system or model without what is read.

    Example:
        >>> from clinode.alignment import lesions
        >>> from clinode.system import LinearSystem
        >>> pair = LinearSystem([[-1.0, 0.5], [-0.5, -1.0]], [[1.0], [0.5]])
        >>> round(interventional_alignment(pair, pair, lesions(pair), AtRest(u=1.0)).error.value, 9)
        0.0
    """
    for name, given in (("interventions", interventions), ("twins", twins)):
        if not isinstance(given, Sequence):
            raise ArgumentError(f"{name} must be a list, got {type(given).__name__}")
    experiments = [as_tuple(one) for one in interventions]
    if not experiments:
        raise ArgumentError("there are no interventions", fix="lesions(system) lists some")
    readout = AtRest() if readout is None else readout
    model_readout = readout if model_readout is None else model_readout
    own = models_own(model, system, experiments, model_interventions)
    pairs = chosen_outputs(system, readout, outputs)
    actual = answers("the system", system, experiments, readout, list(pairs))
    predicted = answers("the model", model, own, model_readout, list(pairs.values()))
    check_readings(actual.readings, predicted.readings)
    by_hand = set_by_hand(system, experiments, actual)
    names = list(pairs.values())
    measured = measured_effects(actual, noise, repeats, generator)
    compared = _Compared(
        words=distinct_words(experiments),
        experiments=experiments,
        predicted=predicted,
        actual=actual,
        measured=measured,
        by_hand=by_hand,
        twins=twin_effects(twins, own, model_readout, names, predicted),
        seen=None if seen is None else _seen(seen, experiments, actual.readings),
    )
    return compared.scored(n_resamples, seed)


@dataclass(frozen=True)
class _Compared:
    """All effects, before anything is scored."""

    words: tuple[str, ...]
    experiments: list[tuple[Intervention, ...]]
    predicted: Answers
    actual: Answers
    measured: Repeats
    by_hand: np.ndarray
    twins: np.ndarray  # (twin, experiment, reading)
    seen: Effects | None

    def scored(self, n_resamples: int, seed: int) -> Alignment:
        readings, scale = self.actual.readings, self._scale()
        masked = np.where(self.by_hand, np.nan, 1.0)  # (experiment, reading)
        measured = self.measured * masked / scale
        actual, predicted = measured.mean(axis=0), self.predicted.values * masked / scale
        m = len(self.measured)
        error = self.measured.std(axis=0, ddof=1) / m**0.5 if m > 1 else np.zeros(actual.shape)
        sites = np.array([len(one) for one in self.experiments])

        def score(rows: np.ndarray) -> Scores:
            return score_effects(
                predicted[rows],
                actual[rows],
                standard_error=(error / scale)[rows],
                n_resamples=n_resamples,
                seed=seed,
            )

        scores = score(sites > 0)
        ceiling, share = Estimate(1.0, 1.0, 1.0), scores.r
        if m > 1:
            ceiling = ceiling_of(measured, n_resamples=n_resamples, seed=seed)
            share = share_of_ceiling(predicted, measured, n_resamples=n_resamples, seed=seed)
        twins = self.twins * masked / scale
        twin_r = np.array([correlation(one, actual) for one in twins])
        apart = np.array([_apart(one, predicted) for one in twins])
        ambiguity = _over(apart, "effects that the model has too")
        identified = None
        if len(twins):
            agree = ambiguity.is_defined and ambiguity.value <= AMBIGUOUS
            identified = agree and self._lost_by_twins() <= AMBIGUOUS
        lost = self._lost()
        seen_r = Estimate.undefined("what was observed was not given")
        if self.seen is not None:
            seen = self.seen * masked / scale
            seen_r = score_effects(seen, actual, n_resamples=n_resamples, seed=seed).r
        p_value = float("nan")
        if np.isfinite(twin_r).any() and scores.r.is_defined:
            as_good = twin_r[np.isfinite(twin_r)] >= scores.r.value - 1e-12
            p_value = float((1 + as_good.sum()) / (1 + len(as_good)))
        alignment = Alignment(
            scores=scores,
            by_sites={k: score(sites == k) for k in np.unique(sites).tolist()},
            ceiling=ceiling,
            share_of_ceiling=share,
            twin_r=_over(twin_r, "effects that vary"),
            p_value=p_value,
            ambiguity=ambiguity,
            identified=identified,
            seen_r=seen_r,
            fate=self._fate(),
            lost=lost,
            experiments=self.words,
            readings=readings,
            predicted=self.predicted.values,
            actual=self.measured.mean(axis=0),
            standard_error=error,
            set_by_hand=self.by_hand,
            twins=self.twins,
            scale=scale,
            warnings=(),
        )
        return replace(alignment, warnings=tuple(self._warnings(alignment, twins, predicted)))

    def _scale(self) -> np.ndarray:
        readings = self.actual.readings
        scale = np.ones(len(readings))
        if len({one.unit for one in readings}) == 1:
            return scale
        effects = np.where(self.by_hand, np.nan, self.measured.mean(axis=0))
        for output in {one.output for one in readings}:
            columns = [j for j, one in enumerate(readings) if one.output == output]
            own = effects[:, columns]
            own = own[np.isfinite(own)]
            size = float(np.sqrt(np.mean(own**2))) if own.size else 0.0
            scale[columns] = size or 1.0
        return scale

    def _lost(self) -> dict[str, str]:
        lost = {}
        for word, model, system in zip(
            self.words, self.predicted.why, self.actual.why, strict=True
        ):
            told = [f"{who}: {why}" for who, why in (("system", system), ("model", model)) if why]
            if told:
                lost[word] = "; ".join(told)
        return lost

    def _lost_by_twins(self) -> float:
        """Of the experiments that the model survives, the share that a twin does not."""
        survived = [not why for why in self.predicted.why]
        if not any(survived):
            return 0.0
        return float(np.isnan(self.twins[:, survived]).all(axis=-1).mean())

    def _fate(self) -> Estimate:
        pairs = zip(self.predicted.why, self.actual.why, strict=True)
        same, n = sum(bool(a) == bool(b) for a, b in pairs), len(self.words)
        low, high = wilson_interval(same, n)
        return Estimate(same / n, low, high)

    def _warnings(self, made: Alignment, twins: np.ndarray, predicted: Effects) -> Iterator[str]:
        if made.lost:
            of_system = sum(bool(why) for why in self.actual.why)
            of_model = sum(bool(why) for why in self.predicted.why)
            yield (
                f"{len(made.lost)} of {len(self.words)} experiments are not scored: {of_system} "
                f"leave the system without what is read, {of_model} the model"
            )
        if made.scores.n_experiments < FEWEST:
            yield f"{made.scores.n_experiments} experiments are too few for intervals"
        if made.ceiling.value < 0.5:
            yield f"noise hides the effects: a perfect model would reach r {made.ceiling.value:.2f}"
        singles = all(len(one) == 1 and isinstance(one[0], Clamp) for one in self.experiments)
        if singles and len(self.experiments) > 1:
            yield "sites were lesioned one at a time, which misleads where they make up for another"
        if made.identified is False:
            lost, told = self._lost_by_twins(), []
            if made.ambiguity.is_defined:
                told.append(
                    f"predict effects {made.ambiguity.value:.0%} apart from the model's, with "
                    f"another sign now and then for {_signs_apart(twins, predicted):.0%} of them"
                )
            if lost:
                told.append(f"leave {lost:.0%} of its experiments without an end")
            yield (
                f"what was observed does not decide the answer: {len(twins)} models that fit it as "
                f"well {' and '.join(told)}"
            )


def _seen(
    seen: Moments, experiments: list[tuple[Intervention, ...]], readings: tuple[Reading, ...]
) -> Effects:
    if any(one.time is not None or one.output not in seen.names for one in readings):
        raise ArgumentError(
            "what was seen is compared where the system rests, and must name every output read",
            fix="use AtRest, or leave out seen",
        )
    return seen_effects(seen, experiments, [one.output for one in readings])


def _apart(one: Effects, predicted: Effects) -> float:
    both = np.isfinite(one) & np.isfinite(predicted)
    size = float(np.square(predicted[both]).sum())
    return float(np.sqrt(np.square((one - predicted)[both]).sum() / size)) if size else float("nan")


def _signs_apart(twins: np.ndarray, predicted: Effects) -> float:
    """Share of the model's effects that one twin in twenty gives another sign."""
    other = (np.sign(twins) != np.sign(predicted)) & np.isfinite(twins)
    n = np.isfinite(twins).sum(axis=0)
    asked = np.isfinite(predicted) & (n > 0)
    return float((other.sum(axis=0) > 0.05 * n)[asked].mean()) if asked.any() else float("nan")


def _over(values: np.ndarray, what: str) -> Estimate:
    return over_models(values, what) if len(values) else Estimate.undefined("no twins were given")
