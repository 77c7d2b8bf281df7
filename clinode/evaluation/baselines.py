"""The bars that every classifier stands beside: prevalence, logistic regression, boosted trees.

They read seven statistics a variable and the statics (`clinode.evaluation.histories`), are fitted
on the training part with scikit-learn, and live on as plain arrays that answer by themselves.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from clinode.errors import ArgumentError, CheckpointError, SchemaError
from clinode.evaluation.histories import STATISTICS, Histories, summarize
from clinode.evaluation.trees import BoostedTrees

BOOSTING = {
    "max_iter": 300,
    "learning_rate": 0.04,
    "max_leaf_nodes": 8,
    "max_features": 0.1,
    "l2_regularization": 5.0,
    "min_samples_leaf": 30,
    "early_stopping": False,
}  # the better of two settings tried out of fold on PhysioNet-2012 set a
PRIOR_VARIANCES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
UNTUNED_VARIANCE = 0.01  # where a fold would leave one class to learn from
MAX_DEVIATIONS = 5.0  # a single wild value must not rule a linear predictor
N_FOLDS = 3


@dataclass(frozen=True, kw_only=True)
class LogisticBaseline:
    """Ridge logistic regression on standardised statistics and flags of presence.

    What was never measured stands at its training mean, beside a flag that says so.
    """

    mean: Float[np.ndarray, " feature"]
    scale: Float[np.ndarray, " feature"]
    coefficient: Float[np.ndarray, " feature_and_presence"]
    intercept: Float[np.ndarray, " one"]

    @classmethod
    def fit(
        cls,
        features: Float[np.ndarray, "record feature"],
        presence: Bool[np.ndarray, "record flag"],
        outcome: Bool[np.ndarray, " record"],
        fold: Integer[np.ndarray, " record"],
    ) -> "LogisticBaseline":
        """Fit, with the prior variance of the coefficients chosen by cross-validation.

        The path starts at the strongest shrinkage and ends once the held-out log loss rises.
        """
        is_seen = np.isfinite(features)
        n_seen = np.maximum(is_seen.sum(axis=0), 1)
        filled = np.where(is_seen, features, 0.0)
        mean = filled.sum(axis=0) / n_seen
        spread = np.sqrt((np.where(is_seen, features - mean, 0.0) ** 2).sum(axis=0) / n_seen)
        scale = np.where(spread > 0, spread, 1.0)
        design = np.hstack([_standardize(features, mean, scale), presence])
        variance = _choose_variance(design, outcome, fold)
        model = _ridge_logistic(variance).fit(design, outcome)
        return cls(mean=mean, scale=scale, coefficient=model.coef_[0], intercept=model.intercept_)

    def logit(
        self,
        features: Float[np.ndarray, "record feature"],
        presence: Bool[np.ndarray, "record flag"],
    ) -> Float[np.ndarray, " record"]:
        """Log odds of each record."""
        design = np.hstack([_standardize(features, self.mean, self.scale), presence])
        return design @ self.coefficient + self.intercept


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Fitted baselines of one binary outcome; predictions come as name -> probability.

    Args:
        log: Variables taken as log(x + 0.1).
        n_static: Number of columns of statics.
        prevalence: Share of positives in the training part.
    """

    log: Bool[np.ndarray, " variable"]
    n_static: int
    prevalence: float
    logistic: LogisticBaseline
    boosting: BoostedTrees

    def predict(self, histories: Histories) -> dict[str, Float[np.ndarray, " record"]]:
        """Probability of the outcome for each record, by each baseline.

        Raises:
            ArgumentError: The records have other variables or statics than those of the training.
        """
        asked = (histories.n_variables, histories.static.shape[1])
        if asked != (len(self.log), self.n_static):
            raise ArgumentError(
                f"the baselines were fitted on {len(self.log)} variables and {self.n_static} "
                f"statics, but the records have {asked[0]} and {asked[1]}"
            )
        features, presence = _features(histories, self.log)
        return {
            "prevalence": np.full(len(histories), self.prevalence),
            "logistic_regression": expit(self.logistic.logit(features, presence)),
            "gradient_boosting": expit(self.boosting.logit(features)),
        }

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything there is to store, by name and contiguous, as a safetensors file needs it."""
        own = {
            "log": self.log,
            "n_static": np.array([self.n_static]),
            "prevalence": np.array([self.prevalence]),
        }
        parts = {"logistic": vars(self.logistic), "boosting": vars(self.boosting)}
        own |= {f"{part}.{k}": v for part, held in parts.items() for k, v in held.items()}
        return {name: np.ascontiguousarray(array) for name, array in own.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Baselines":
        """The inverse of `to_arrays`.

        Raises:
            CheckpointError: An array is missing, or the trees are not trees.
        """
        try:
            return cls(
                log=arrays["log"],
                n_static=int(arrays["n_static"][0]),
                prevalence=float(arrays["prevalence"][0]),
                logistic=LogisticBaseline(**_part(arrays, "logistic.")),
                boosting=BoostedTrees(**_part(arrays, "boosting.")),
            )
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"the stored baselines are incomplete: {error}") from None


def fit_baselines(
    histories: Histories,
    outcome: Float[np.ndarray, " record"],
    *,
    log: Bool[np.ndarray, " variable"] | None = None,
    subjects: Integer[np.ndarray, " record"] | None = None,
    seed: int = 0,
) -> Baselines:
    """Fit every baseline of a binary outcome on the training part.

    Args:
        histories: What was measured of the training records.
        outcome: 0, 1 or NaN where unknown; such records are left out.
        log: Variables taken as log(x + 0.1); none by default.
        subjects: Whose record each is, where a subject has several; folds keep them together.
        seed: Of the folds and of the features that each tree may look at.

    Raises:
        ArgumentError: An outcome is neither 0, 1 nor NaN, or there is not one for each record.
        SchemaError: All known outcomes are of one class.
    """
    if len(outcome) != len(histories):
        raise ArgumentError(f"{len(histories)} records, but {len(outcome)} outcomes")
    is_known = np.isfinite(outcome)
    if not np.isin(outcome[is_known], (0.0, 1.0)).all():
        raise ArgumentError("a binary outcome must be 0, 1 or missing")
    label = outcome[is_known] == 1
    if label.all() or not label.any():
        raise SchemaError(
            f"all {len(label)} known outcomes of the training part are of one class",
            fix="check the outcome column, or train on more subjects",
        )
    log = np.zeros(histories.n_variables, dtype=bool) if log is None else log
    subjects = np.arange(len(histories)) if subjects is None else subjects
    features, presence = (part[is_known] for part in _features(histories, log))
    fold = _folds(label, subjects[is_known], seed)
    trees = HistGradientBoostingClassifier(**BOOSTING, random_state=seed)
    return Baselines(
        log=log,
        n_static=histories.static.shape[1],
        prevalence=float(label.mean()),
        logistic=LogisticBaseline.fit(features, presence, label, fold),
        boosting=BoostedTrees.from_sklearn(trees.fit(_without_empty(features), label)),
    )


def _features(histories: Histories, log: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    summary = summarize(histories, log)
    width = len(STATISTICS) * histories.n_variables
    features = np.hstack([summary.reshape(len(histories), width), histories.static])
    was_measured = summary[:, STATISTICS.index("count")] > 0
    return features, np.hstack([was_measured, np.isfinite(histories.static)])


def _without_empty(features: np.ndarray) -> np.ndarray:
    """Columns without a value, or nearly, made constant, so that no tree looks at them.

    scikit-learn takes the bins of a column from at most 200,000 of its rows and fails where none of
    them has a value; at one value in 8,000 rows, 25 are expected there.
    """
    is_empty = np.isfinite(features).sum(axis=0) < max(1.0, len(features) / 8000)
    return np.where(is_empty, 0.0, features)


def _standardize(features: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    deviation = np.clip((features - mean) / scale, -MAX_DEVIATIONS, MAX_DEVIATIONS)
    return np.where(np.isfinite(features), deviation, 0.0)


def _ridge_logistic(variance: float) -> LogisticRegression:
    return LogisticRegression(C=variance, max_iter=5000)  # C is that of a normal prior


def _choose_variance(design: np.ndarray, outcome: np.ndarray, fold: np.ndarray) -> float:
    if any(outcome[fold != held_out].mean() in (0, 1) for held_out in range(N_FOLDS)):
        return UNTUNED_VARIANCE
    best, least = PRIOR_VARIANCES[0], np.inf
    for variance in PRIOR_VARIANCES:
        logits = np.empty(len(outcome))
        for held_out in range(N_FOLDS):
            is_held = fold == held_out
            model = _ridge_logistic(variance).fit(design[~is_held], outcome[~is_held])
            logits[is_held] = model.decision_function(design[is_held])
        loss = np.logaddexp(0.0, np.where(outcome, -logits, logits)).mean()
        if loss >= least:
            break
        best, least = variance, loss
    return best


def _folds(outcome: np.ndarray, subjects: np.ndarray, seed: int) -> np.ndarray:
    """Folds over whole subjects, those with a positive record dealt out evenly."""
    subject, position = np.unique(subjects, return_inverse=True)
    has_positive = np.bincount(position, weights=outcome, minlength=len(subject)) > 0
    shuffle = np.random.default_rng(seed).random(len(subject))
    rank = np.argsort(np.lexsort((shuffle, has_positive)))
    return rank[position] % N_FOLDS


def _part(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
