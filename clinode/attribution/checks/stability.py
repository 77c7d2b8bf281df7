"""Whether a map stays what it is: when the model is fitted again, and when it is measured again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from clinode.attribution.attributions import Attributions
from clinode.attribution.checks.asked import Asked
from clinode.attribution.checks.pairs import (
    SideBySide,
    mean_of_known,
    over_subjects,
    side_by_side,
)
from clinode.attribution.path import SCALE_FLOOR
from clinode.cohort import Cohort, Preprocessor
from clinode.errors import ArgumentError
from clinode.statistics import Estimate, bootstrap
from clinode.training import Ensemble, Run

MEASUREMENT_ERROR = 0.02  # coefficient of variation where none is given, at most
SMALL_ERROR = 0.1  # of the standard deviation between measurements: 2 % of a pH is two of those
STEADY_RANKING = 0.6  # Kendall's tau of the variables between two seeds
STEADY_SIGN = 0.8  # share of signs that two seeds agree on, events counted by their size
STEADY_MAP = 0.25  # relative change of the map at measurement error
FOLLOWS = 1.5  # times the relative change of what was measured, above which a map exaggerates it
_WHY = "no subject has events with a map in both"


@dataclass(frozen=True)
class SeedStability:
    """How far members that differ in their seed only tell the same.

    Args:
        ranking: Kendall's tau of the variables, ranked by the mean over subjects of |sum of the
            variable's attributions|; mean over pairs of members, bootstrap over subjects.
        rank_correlation: Spearman's of the sizes of a subject's events.
        same_sign: Share of the events with the same sign.
        same_sign_by_size: The same, events counted by their size.
        pairs: Kendall's tau of each pair of members.
        verdict: In words.
    """

    ranking: Estimate
    rank_correlation: Estimate
    same_sign: Estimate
    same_sign_by_size: Estimate
    pairs: dict[tuple[int, int], float]
    verdict: str

    name = "seed stability"

    def estimates(self) -> dict[str, Estimate]:
        """Its numbers by name."""
        return {
            "Kendall's tau of variables": self.ranking,
            "rank correlation": self.rank_correlation,
            "same sign": self.same_sign,
            "same sign by size": self.same_sign_by_size,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words."""
        numbers = {name: estimate.to_dict() for name, estimate in self.estimates().items()}
        pairs = [
            {"members": list(pair), "tau": None if np.isnan(tau) else tau}
            for pair, tau in self.pairs.items()
        ]
        return {**numbers, "pairs": pairs, "verdict": self.verdict}


@dataclass(frozen=True)
class MeasurementSensitivity:
    """How far a map moves when everything is measured again with its error.

    Args:
        change: Length of the change relative to that of the map, mean over draws and subjects.
        largest_change: The largest over the draws, mean over subjects.
        input_change: The same as `change` of what was measured: of its standardised deviations from
            the training mean.
        rank_correlation: Of the sizes before and after.
        output_change: Change of the output relative to max(|output - base|, 0.1).
        errors: Coefficient of variation of each variable that was moved.
        n_draws: How often.
        verdict: In words.
    """

    change: Estimate
    largest_change: Estimate
    input_change: Estimate
    rank_correlation: Estimate
    output_change: Estimate
    errors: dict[str, float]
    n_draws: int
    verdict: str

    name = "measurement sensitivity"

    def estimates(self) -> dict[str, Estimate]:
        """Its numbers by name."""
        return {
            "relative change of the map": self.change,
            "largest relative change": self.largest_change,
            "relative change of the values": self.input_change,
            "rank correlation": self.rank_correlation,
            "relative change of the output": self.output_change,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words."""
        numbers = {name: estimate.to_dict() for name, estimate in self.estimates().items()}
        rest = {"errors": dict(self.errors), "n_draws": self.n_draws, "verdict": self.verdict}
        return {**numbers, **rest}


def seed_stability(
    ensemble: Ensemble,
    cohort: Cohort,
    asked: Asked | None = None,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> SeedStability:
    """Compare the maps of the members of an ensemble.

    Args:
        ensemble: Of two members at least.
        cohort: Whose subjects.
        asked: Method, baseline and output.
        n_resamples: Bootstrap resamples of subjects.
        seed: Of their random numbers.

    Raises:
        ArgumentError: There is one member only.
    """
    asked = Asked() if asked is None else asked
    if len(ensemble.members) < 2:
        raise ArgumentError(
            "one member has no other to be compared with", fix="fit_ensemble with several seeds"
        )
    maps = [asked.of(member, cohort) for member in ensemble.members]
    numbers = list(combinations(range(len(maps)), 2))
    both = [side_by_side(maps[i], maps[j]) for i, j in numbers]
    columns = {
        "rank": mean_of_known([pair.rank_correlation() for pair in both]),
        "sign": mean_of_known([pair.same_sign() for pair in both]),
        "size": mean_of_known([pair.same_sign_by_size() for pair in both]),
    }
    drawn = over_subjects(columns, n_resamples=n_resamples, seed=seed)
    sums = _sums_by_variable(maps, cohort)
    means = sums.mean(axis=1)
    pairs = {(i, j): float(_tau(means[i][None], means[j][None])[0]) for i, j in numbers}

    def taus(weights: np.ndarray) -> np.ndarray:
        ranked = [weights @ one for one in sums]  # their order is that of the means
        return np.mean([_tau(ranked[i], ranked[j]) for i, j in numbers], axis=0)

    ranking = bootstrap(
        {"tau": taus}, np.arange(len(cohort)), n_resamples=n_resamples, seed=seed
    ).estimate("tau", why="fewer than two variables moved the output")
    by_size = drawn.estimate("size", why=_WHY)
    return SeedStability(
        ranking=ranking,
        rank_correlation=drawn.estimate("rank", why=_WHY),
        same_sign=drawn.estimate("sign", why=_WHY),
        same_sign_by_size=by_size,
        pairs=pairs,
        verdict=_seeds_verdict(ranking, by_size),
    )


def measurement_sensitivity(
    run: Run | Ensemble,
    cohort: Cohort,
    asked: Asked | None = None,
    *,
    errors: float | Mapping[str, float] | None = None,
    n_draws: int = 5,
    n_resamples: int = 1000,
    seed: int = 0,
) -> MeasurementSensitivity:
    """Explain again after every continuous measurement was repeated with its measurement error.

    A value x becomes x (1 + cv e), e standard normal, within the range of what is possible. What is
    counted or coded stays. The noise is that of the assay, not an arbitrary one.

    Args:
        run: Whose map is checked.
        cohort: Whose subjects.
        asked: Method, baseline and output.
        errors: Coefficient of variation: one for all variables, or by variable. Those that are not
            named have 0.02, or less where that would be more than a tenth of the standard deviation
            of their measurements in the cohort.
        n_draws: How often everything is measured again.
        n_resamples: Bootstrap resamples of subjects.
        seed: Of the errors and the resamples.

    Raises:
        ArgumentError: A coefficient is negative, above 1 or not finite, or of an unknown variable;
            no draw.
    """
    asked = Asked() if asked is None else asked
    if n_draws < 1:
        raise ArgumentError(f"n_draws must be at least 1, got {n_draws}")
    known, schema = _checked_errors(errors, cohort), run.members[0].schema
    before = asked.of(run, cohort)
    generator = np.random.default_rng(seed)
    after = [asked.of(run, _measured_again(cohort, known, generator)) for _ in range(n_draws)]
    both = [side_by_side(before, one) for one in after]
    changes = [pair.change() for pair in both]
    output, base = (before.gates[name].to_numpy() for name in ("output", "base"))
    scale = np.maximum(np.abs(output - base), SCALE_FLOOR)
    columns = {
        "map": mean_of_known(changes),
        "largest": np.max(changes, axis=0),
        "input": mean_of_known([_values(before, one, schema).change() for one in after]),
        "rank": mean_of_known([pair.rank_correlation() for pair in both]),
        "output": np.mean(
            [np.abs(one.gates["output"].to_numpy() - output) / scale for one in after], axis=0
        ),
    }
    drawn = over_subjects(columns, n_resamples=n_resamples, seed=seed)
    change, values = (drawn.estimate(name, why=_WHY) for name in ("map", "input"))
    return MeasurementSensitivity(
        change=change,
        largest_change=drawn.estimate("largest", why=_WHY),
        input_change=values,
        rank_correlation=drawn.estimate("rank", why=_WHY),
        output_change=drawn.estimate("output", why=_WHY),
        errors=known,
        n_draws=n_draws,
        verdict=_error_verdict(change, values),
    )


def _seeds_verdict(ranking: Estimate, sign: Estimate) -> str:
    if not (ranking.is_defined and sign.is_defined):
        return "undecided: " + (ranking if not ranking.is_defined else sign).verdict
    told = (
        f"the ranking of variables keeps a Kendall tau of {ranking.value:.2f}, and "
        f"{100 * sign.value:.0f} % of what events weigh keeps its sign"
    )
    if ranking.value >= STEADY_RANKING and sign.value >= STEADY_SIGN:
        return f"passed: from seed to seed {told}"
    return f"failed: from seed to seed {told}"


def _error_verdict(change: Estimate, values: Estimate) -> str:
    if not (change.is_defined and values.is_defined):
        return f"undecided: {_WHY}"
    told = (
        f"measurement error moves the map by {100 * change.value:.1f} % of its length, and what "
        f"was measured by {100 * values.value:.1f} % of its distance from the mean"
    )
    if change.value <= STEADY_MAP:
        return f"passed: {told}"
    if change.value <= FOLLOWS * values.value:
        return f"doubtful: {told}; the map follows, and neither is certain"
    return f"failed: {told}"


def _values(before: Attributions, after: Attributions, schema: Preprocessor) -> SideBySide:
    """What was measured, both times, as deviations from the training mean."""
    return side_by_side(*(_deviations(one, schema) for one in (before, after)))


def _deviations(told: Attributions, schema: Preprocessor) -> Attributions:
    events = told.events.loc[told.events["kind"] == "observation"]
    variable = pd.Index(schema.variables).get_indexer(pd.Index(events["variable"].astype(str)))
    events, variable = events[variable >= 0], variable[variable >= 0]
    value = schema.standardize(variable, events["value"].to_numpy(dtype=np.float64))
    deviation = value - schema.cohort_mean()[variable]
    return replace(told, events=events.assign(attribution=deviation))


def _sums_by_variable(maps: list[Attributions], cohort: Cohort) -> np.ndarray:
    """(member, subject, variable) |sum of the attributions|, 0 where there are none."""
    tables = []
    for one in maps:
        kind, variable = (one.events[column].astype(str) for column in ("kind", "variable"))
        tables.append(one.events.assign(name=kind + ":" + variable))
    names = pd.Index(sorted(set().union(*(table["name"] for table in tables))))
    sums = np.zeros((len(maps), len(cohort), len(names)))
    subjects = pd.Index(cohort.subjects)
    for member, table in enumerate(tables):
        row = subjects.get_indexer(pd.Index(table["subject_id"]))
        column = names.get_indexer(pd.Index(table["name"]))
        np.add.at(sums[member], (row, column), table["attribution"].to_numpy())
    return np.abs(sums)


def _tau(
    first: Float[np.ndarray, "resample variable"], second: Float[np.ndarray, "resample variable"]
) -> Float[np.ndarray, " resample"]:
    """Kendall's tau-b of each row; NaN where one of the two ranks nothing."""
    orders = [np.sign(one[:, :, None] - one[:, None, :]) for one in (first, second)]
    agreed = np.einsum("rij,rij->r", *orders)
    ranked = np.sqrt(np.prod([np.einsum("rij,rij->r", one, one) for one in orders], axis=0))
    return np.divide(agreed, ranked, out=np.full(len(first), np.nan), where=ranked > 0)


def _checked_errors(errors: float | Mapping[str, float] | None, cohort: Cohort) -> dict[str, float]:
    """Coefficient of variation of each continuous variable."""
    moved = [one.name for one in cohort.schema.variables if one.kind == "continuous"]
    if isinstance(errors, float | int):
        found = dict.fromkeys(moved, float(errors))
    else:
        named = {} if errors is None else errors
        unknown = [name for name in named if name not in moved]
        if unknown:
            raise ArgumentError(
                f"the cohort has no continuous variable {unknown[0]!r}",
                fix=f"its own are {', '.join(moved)}",
            )
        usual = _usual_errors(cohort)
        found = {name: float(named.get(name, usual.get(name, 0.0))) for name in moved}
    wrong = [name for name, value in found.items() if not 0 <= value <= 1]
    if wrong:
        raise ArgumentError(
            f"the coefficient of variation of {wrong[0]} must lie between 0 and 1",
            fix="a measurement error of 5 % is 0.05",
        )
    return found


def _usual_errors(cohort: Cohort) -> dict[str, float]:
    """Of each measured variable the coefficient of variation that is taken for its error."""
    table = cohort.observations.astype({"variable": str})
    found = {}
    for name, value in table.groupby("variable")["value"]:
        size = np.abs(value).mean()
        spread = value.std(ddof=0)
        least = SMALL_ERROR * spread / size if size > 0 else MEASUREMENT_ERROR
        found[str(name)] = min(MEASUREMENT_ERROR, float(least))
    return found


def _measured_again(
    cohort: Cohort, errors: dict[str, float], generator: np.random.Generator
) -> Cohort:
    """The same subjects with other values of what was measured."""
    table = cohort.observations
    spread = np.array([errors.get(name, 0.0) for name in table["variable"].astype(str)])
    value = table["value"].to_numpy() * (1 + spread * generator.standard_normal(len(table)))
    schema = cohort.schema
    ranges = {one.name: one.range for one in schema.variables if one.range is not None}
    for name, (low, high) in ranges.items():
        is_it = (table["variable"] == name).to_numpy()
        value[is_it] = np.clip(value[is_it], low, high)
    # they are converted already; a second time they would be taken for another unit
    settled = tuple(replace(one, conversions=()) for one in schema.variables)
    statics, inputs, outcomes = cohort.statics, cohort.inputs, cohort.outcomes
    return Cohort.from_tables(
        table.assign(value=value, variable=table["variable"].astype(str)),
        statics=statics if statics.shape[1] > 1 else None,
        inputs=inputs.assign(variable=inputs["variable"].astype(str)) if len(inputs) else None,
        outcomes=outcomes if outcomes.shape[1] > 1 else None,
        schema=replace(schema, variables=settled),
    )
