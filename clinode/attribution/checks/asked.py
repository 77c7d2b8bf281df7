"""What is explained, asked once of several models or of records that were changed."""

from dataclasses import dataclass, replace

from clinode.attribution.attributions import Attributions
from clinode.attribution.explain import explain
from clinode.cohort import Cohort
from clinode.errors import ArgumentError
from clinode.training import Ensemble, Run


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question to `explain`, one answer an event.

    Args:
        method, baseline, at, output, hours, tolerance, seed: As of `explain`.

    Raises:
        ArgumentError: The method tells nothing of single events.
    """

    method: str = "integrated_gradients"
    baseline: str = "cohort_mean"
    at: float | None = None
    output: str | None = None
    hours: float | None = None
    tolerance: float = 0.01
    seed: int = 0

    def __post_init__(self):
        if self.method == "occlusion":
            raise ArgumentError(
                "'occlusion' credits stretches of time, and the checks compare single events",
                fix='use "event_deletion"',
            )

    def by(self, method: str) -> "Asked":
        """The same question to another method."""
        return replace(self, method=method)

    def of(self, run: Run | Ensemble, cohort: Cohort) -> Attributions:
        """The answer of a run."""
        return explain(
            run,
            cohort,
            self.method,
            self.baseline,
            at=self.at,
            output=self.output,
            hours=self.hours,
            tolerance=self.tolerance,
            seed=self.seed,
            players="event" if self.method in ("shapley", "kernel_shap") else None,
        )
