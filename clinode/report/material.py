"""What the pages of one report are made from, gathered once and read by all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from clinode.attribution import Attributions
from clinode.cohort import Cohort, Variable
from clinode.cohort.definition import CohortFlow
from clinode.cohort.names import names_of, shown_name, trained_names
from clinode.errors import printable
from clinode.evaluation import Drift
from clinode.report.facts import ModelFacts
from clinode.report.timeline import label
from clinode.report.wording import BASELINES, contribution_unit, outcome_words
from clinode.training import Run

SEED = 0  # of the resamples behind every interval of the pages


@runtime_checkable
class Told(Protocol):
    """A result that tells itself in plain numbers, strings, lists and dictionaries."""

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Material:
    """A run, the cohort it was asked about, and everything found of the two.

    Args:
        run: Whose model is reported.
        cohort: That it was asked about.
        attributions: Of some or all of its subjects.
        evaluation: `Evaluation.to_dict()` of the outcome, or None without known outcomes.
        scored: One row a prediction with a known outcome: subject_id, probability, outcome; None
            where there is none.
        drift: Of the cohort from the training part.
        facts: What the developer says.
        flow: How the cohort came to be, where a task was defined.
        kinds: Split of the attributions by kind, where it was computed.
        checks: Checks of model and attributions, where they were carried out.
        n_resamples: Bootstrap resamples behind the intervals.
    """

    run: Run
    cohort: Cohort
    attributions: Attributions
    evaluation: Mapping[str, Any] | None
    scored: pd.DataFrame | None
    drift: Drift
    facts: ModelFacts
    flow: CohortFlow | None = None
    kinds: Told | None = None
    checks: Told | None = None
    n_resamples: int = 1000

    @property
    def outcome(self) -> str:
        """Name of the outcome, fit for a page."""
        return outcome_words(printable(self.attributions.outcome))

    @property
    def baseline(self) -> str:
        """What contributions are relative to, in words."""
        return BASELINES[self.attributions.baseline]

    @property
    def unit(self) -> str:
        """What contributions are in, in words."""
        return contribution_unit(printable(self.attributions.scale))

    @cached_property
    def variables(self) -> dict[str, Variable]:
        """Variables, statics and inputs of the cohort by name."""
        schema = self.cohort.schema
        return {v.name: v for v in (*schema.inputs, *schema.statics, *schema.variables)}

    def label(self, name: object) -> str:
        """The readable name of a variable with its unit."""
        known = str(name)
        shown = shown_name(known, self.names)
        return label(self.variables.get(known) if shown == known else None, shown)

    @cached_property
    def names(self) -> dict[str, str]:
        """What each variable, static and treatment may be called on a page for others."""
        statics = {v.name: v.name for v in self.cohort.schema.statics}
        return statics | names_of(self.cohort) | trained_names(self.run.fingerprint)

    @cached_property
    def observed(self) -> np.ndarray:
        """(record,) outcome of each prediction, 0 or 1; empty without known outcomes."""
        return np.zeros(0) if self.scored is None else self.scored["outcome"].to_numpy(np.float64)

    @cached_property
    def predicted(self) -> np.ndarray:
        """(record,) predicted risk."""
        if self.scored is None:
            return np.zeros(0)
        return self.scored["probability"].to_numpy(np.float64)

    @cached_property
    def subject(self) -> np.ndarray:
        """(record,) position of the subject in the cohort."""
        if self.scored is None:
            return np.zeros(0, dtype=np.int64)
        return pd.Index(self.cohort.subjects).get_indexer(pd.Index(self.scored["subject_id"]))

    @cached_property
    def units(self) -> np.ndarray:
        """(record,) what is resampled: the subject, or the group that a split keeps together."""
        return pd.factorize(self.cohort.groups)[0][self.subject]

    @cached_property
    def training_frequency(self) -> float | None:
        """Share of the training part with the outcome; None where it is not stored."""
        for entry in self.run.fingerprint.get("train", {}).get("outcomes", ()):
            n, positive = entry.get("n"), entry.get("n_positive")
            if entry["name"] == self.attributions.outcome and isinstance(positive, int) and n:
                return positive / n if isinstance(n, int) else None
        return None

    @cached_property
    def threshold(self) -> tuple[float, str]:
        """The risk from which an alert is raised, and why this one."""
        said = self.facts.threshold
        if said is not None:
            return said, self.facts.said("threshold_reason") or "chosen by the developer"
        found = self.training_frequency
        if found is not None and 0 < found < 1:
            words = "the frequency of the outcome in the training part: a convention"
            return min(max(round(found, 3), 0.001), 0.999), words + ", and no recommendation"
        return 0.5, "no threshold was named: a convention, and no recommendation"
