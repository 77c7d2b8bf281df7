"""The face that scikit-learn knows: a cohort goes in where a matrix would.

Cross-validation, grids and calibration of scikit-learn then work on subjects: a `Cohort` has a
length and can be indexed by positions, so a fold is a cohort again and no subject is ever in two.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from clinode.cohort import Classify, Cohort
from clinode.errors import ArgumentError, SchemaError
from clinode.sequence import LinearLatentODE, SequenceModel
from clinode.training.config import FitConfig
from clinode.training.fit import fit
from clinode.training.run import Run


class CohortClassifier(ClassifierMixin, BaseEstimator):
    """A sequence model as a classifier of scikit-learn.

    Labels come from the cohort's outcomes. A `y` beside it is for those who stratify or score by
    it; it must agree. Rows of every result follow `cohort.subjects`; of a subject with several
    prediction times the last one counts.

    Args:
        model: A configuration; `LinearLatentODE()` by default.
        outcome: Column of the outcomes; by default the last one.
        at: Prediction time in hours, where the cohort names none.
        epochs: Of the schedule; by default what is recommended.
        seed: Of every draw.
        device: "auto", "cpu" or "cuda".
        out: Folder that keeps the run; by default it lives in memory only.
        progress: Whether the fit is shown.

    Attributes:
        run_: The fitted `Run`.
        classes_: 0 and 1.
        n_features_in_: Variables, static columns and inputs that the training part has.
        feature_names_in_: Their names.
    """

    def __init__(
        self,
        model: SequenceModel | None = None,
        *,
        outcome: str | None = None,
        at: float | None = None,
        epochs: int | None = None,
        seed: int = 0,
        device: str = "auto",
        out: Path | str | None = None,
        progress: bool = False,
    ):
        self.model = model
        self.outcome = outcome
        self.at = at
        self.epochs = epochs
        self.seed = seed
        self.device = device
        self.out = out
        self.progress = progress

    def fit(self, X: object, y: np.ndarray | pd.Series | list | None = None) -> "CohortClassifier":
        """Trains on every subject of a cohort; nothing is selected.

        Raises:
            ArgumentError: X is not a cohort, or y disagrees with its outcomes.
            SchemaError: As `clinode.fit`.
        """
        cohort = _as_cohort(X)
        task = Classify(self._outcome_of(cohort), at=self.at)
        if y is not None:
            _check_labels(np.asarray(y, dtype=np.float64), _labels(cohort, task.labels[0]))
        config = FitConfig.recommended(task)
        if self.epochs is not None:
            config = replace(config, epochs=self.epochs)
        with TemporaryDirectory(prefix="clinode-") as temporary:
            self.run_ = fit(
                LinearLatentODE() if self.model is None else self.model,
                cohort,
                task=task,
                out=Path(temporary) / "run" if self.out is None else self.out,
                seed=self.seed,
                device=self.device,
                config=config,
                progress=self.progress,
            )
        schema = self.run_.schema
        statics = dict.fromkeys(column.name for column in schema.statics)
        names = [*schema.variables, *statics, *schema.inputs]
        self.classes_ = np.array([0, 1])
        self.feature_names_in_ = np.array(names, dtype=object)
        self.n_features_in_ = len(names)
        return self

    def predict_proba(self, X: object) -> Float[np.ndarray, "subject two"]:
        """Probability of 0 and of 1, one row a subject.

        Raises:
            SchemaError: The cohort has a variable that the training part did not have.
        """
        probability = self._last_predictions(X)["probability"].to_numpy()
        return np.stack([1.0 - probability, probability], axis=1)

    def decision_function(self, X: object) -> Float[np.ndarray, " subject"]:
        """Log odds, one a subject."""
        return self._last_predictions(X)["logit"].to_numpy()

    def predict(self, X: object) -> Int[np.ndarray, " subject"]:
        """1 where the probability is above one half."""
        return (self.decision_function(X) > 0).astype(np.int64)

    def score(
        self,
        X: object,
        y: np.ndarray | pd.Series | list | None = None,
        sample_weight: np.ndarray | None = None,
    ) -> float:
        """Share of subjects that are classified right, of those with a known label.

        `clinode.evaluate` says much more; this is what scikit-learn's tools ask for.

        Raises:
            ArgumentError: y disagrees with the cohort's outcomes.
            SchemaError: No label is known.
        """
        check_is_fitted(self)
        labels = _labels(_as_cohort(X), self._task.labels[0])
        if y is not None:
            _check_labels(np.asarray(y, dtype=np.float64), labels)
        known = ~np.isnan(labels)
        if not known.any():
            raise SchemaError(f"no subject has a known {self._task.labels[0]!r}", where="outcomes")
        right = (self.predict(X) == labels)[known]
        weights = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(right, weights=weights))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.required = False
        tags.classifier_tags.multi_class = False
        return tags

    @property
    def _task(self) -> Classify:
        run: Run = self.run_
        if not isinstance(run.task, Classify):
            raise ArgumentError("the run in `out` does not classify")
        return run.task

    def _outcome_of(self, cohort: Cohort) -> str:
        if self.outcome is not None:
            return self.outcome
        columns = [c for c in cohort.outcomes.columns if c not in ("subject_id", "prediction_time")]
        if not columns:
            raise SchemaError("the cohort has no outcome column", where="outcomes")
        return str(columns[-1])

    def _last_predictions(self, X: object) -> pd.DataFrame:
        check_is_fitted(self)
        table = self.run_.predict(_as_cohort(X))
        return table.drop_duplicates("subject_id", keep="last").reset_index(drop=True)


def _as_cohort(X: object) -> Cohort:
    if not isinstance(X, Cohort):
        raise ArgumentError(
            f"X must be a Cohort, got {type(X).__name__}",
            fix="read the data with clinode.read_cohort, or build it with Cohort.from_tables",
        )
    return X


def _labels(cohort: Cohort, outcome: str) -> np.ndarray:
    """The label of each subject at its last prediction time; NaN where unknown."""
    table = cohort.outcomes
    if outcome not in table.columns:
        raise SchemaError(f"no outcome column {outcome!r}", where="outcomes")
    if "prediction_time" in table.columns:
        table = table.sort_values("prediction_time", kind="stable")
    table = table.drop_duplicates("subject_id", keep="last").set_index("subject_id")
    return table[outcome].reindex(cohort.subjects).to_numpy(dtype=np.float64, na_value=np.nan)


def _check_labels(given: np.ndarray, own: np.ndarray) -> None:
    if given.shape != own.shape:
        raise ArgumentError(f"{len(own)} subjects, but y has shape {given.shape}")
    n_different = int((~np.isnan(given) & ~np.isnan(own) & (given != own)).sum())
    if n_different:
        raise ArgumentError(
            f"y differs from the cohort's outcomes for {n_different} subjects",
            fix="pass labels in the order of cohort.subjects, or none",
        )
