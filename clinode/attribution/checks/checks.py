"""All checks of a model's attributions that apply, in one table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clinode.attribution.checks.agreement import COMPARED, MethodAgreement, method_agreement
from clinode.attribution.checks.asked import Asked
from clinode.attribution.checks.insertion import InsertionDeletion, insertion_deletion
from clinode.attribution.checks.randomization import (
    LabelPermutation,
    WeightRandomization,
    label_permutation,
    weight_randomization,
)
from clinode.attribution.checks.stability import (
    MeasurementSensitivity,
    SeedStability,
    measurement_sensitivity,
    seed_stability,
)
from clinode.cohort import Classify, Cohort, Survive
from clinode.errors import ArgumentError
from clinode.training import Ensemble, FitConfig, Run

Check = (
    WeightRandomization
    | LabelPermutation
    | SeedStability
    | MeasurementSensitivity
    | MethodAgreement
    | InsertionDeletion
)


@dataclass(frozen=True)
class AttributionChecks:
    """What the checks of one model found.

    Args:
        checks: By name, those that were run.
        left_out: By name, why another was not.
        n_subjects: Who was explained; insertion and deletion took `n_ordered` of them.
        n_ordered: As said.
    """

    checks: dict[str, Check]
    left_out: dict[str, str]
    n_subjects: int
    n_ordered: int

    @property
    def passed(self) -> bool:
        """Whether every check that was run says so."""
        return all(check.verdict.startswith("passed") for check in self.checks.values())

    def to_pandas(self) -> pd.DataFrame:
        """One row a number: check, quantity, value, low, high, verdict (of the check).

        A check that was left out has one row without a number, whose verdict says why.
        """
        rows = [
            (name, quantity, found.value, found.low, found.high, check.verdict)
            for name, check in self.checks.items()
            for quantity, found in check.estimates().items()
        ]
        rows += [
            (name, "", np.nan, np.nan, np.nan, f"left out: {why}")
            for name, why in self.left_out.items()
        ]
        columns = ["check", "quantity", "value", "low", "high", "verdict"]
        return pd.DataFrame(rows, columns=pd.Index(columns))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words."""
        return {
            "checks": {name: check.to_dict() for name, check in self.checks.items()},
            "left_out": dict(self.left_out),
            "n_subjects": self.n_subjects,
            "n_ordered": self.n_ordered,
        }


def check_attributions(
    run: Run | Ensemble,
    cohort: Cohort,
    method: str = "integrated_gradients",
    baseline: str = "cohort_mean",
    *,
    at: float | None = None,
    output: str | None = None,
    hours: float | None = None,
    train: Cohort | None = None,
    refit: FitConfig | None = None,
    errors: float | Mapping[str, float] | None = None,
    methods: Sequence[str] = COMPARED,
    fills: Sequence[str] = ("delete", "cohort_mean"),
    top: int = 5,
    n_random: int = 4,
    n_subjects: int = 100,
    n_ordered: int = 20,
    n_resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> AttributionChecks:
    """Whether the attributions of a model can be trusted: all checks that apply.

    The gates of each subject are in `Attributions.gates`; here the model is on trial. None of these
    proves a map right: each is a way to be found wrong.

    Args:
        run: Seed stability needs an ensemble; weights and labels of one are those of its first
            member.
        cohort: Whose subjects are explained; not those of the fit.
        method, baseline, at, output, hours: As of `explain`.
        train: The training part: permits label permutation, which fits twice more.
        refit: Schedule of those fits; None takes that of the run.
        errors: Coefficient of variation of measurements, see `measurement_sensitivity`.
        methods: That are compared with each other.
        fills: Of insertion and deletion.
        top: How many of the largest events methods are compared on.
        n_random: Models with random weights.
        n_subjects: Subjects explained at most, evenly spaced over the cohort.
        n_ordered: Subjects of insertion and deletion at most, the dearest check.
        n_resamples: Bootstrap resamples of subjects.
        seed: Of everything drawn.
        progress: Called with (checks done, all checks).

    Raises:
        ArgumentError: As of `explain` and of each check.
        SchemaError: As of `explain`.
    """
    if n_subjects < 1 or n_ordered < 1:
        raise ArgumentError("n_subjects and n_ordered must be at least 1")
    asked = Asked(method=method, baseline=baseline, at=at, output=output, hours=hours, seed=seed)
    first = run.members[0]
    some, few = _some(cohort, n_subjects), _some(cohort, n_ordered)
    drawn: dict[str, Any] = {"n_resamples": n_resamples, "seed": seed}
    work: list[Callable[[], Check]] = [
        lambda: weight_randomization(first, some, asked, n_random=n_random, **drawn),
        lambda: measurement_sensitivity(run, some, asked, errors=errors, **drawn),
        lambda: method_agreement(run, some, asked, methods=methods, top=top, **drawn),
        lambda: insertion_deletion(run, few, asked, fills=fills, **drawn),
    ]
    left_out = {}
    if train is None:
        left_out[LabelPermutation.name] = "it fits the model twice more, and needs train="
    elif not isinstance(run.task, Classify | Survive):
        left_out[LabelPermutation.name] = "what is predicted are measurements, not labels"
    else:
        part = train
        work.append(lambda: label_permutation(first, part, some, asked, config=refit, **drawn))
    if isinstance(run, Ensemble) and len(run.members) > 1:
        several = run
        work.append(lambda: seed_stability(several, some, asked, **drawn))
    else:
        left_out[SeedStability.name] = "it compares the members of an ensemble, and this is one run"
    found: dict[str, Check] = {}
    for done, check in enumerate(work, start=1):
        result = check()
        found[result.name] = result
        if progress is not None:
            progress(done, len(work))
    return AttributionChecks(found, left_out, len(some), len(few))


def _some(cohort: Cohort, most: int) -> Cohort:
    """Subjects evenly spaced over the cohort, as many as are wanted."""
    if len(cohort) <= most:
        return cohort
    return cohort.take(np.linspace(0, len(cohort) - 1, most).round().astype(np.int64))
