"""How well one representation predicts another, unit by unit, against what noise allows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

from clinode.errors import ArgumentError
from clinode.similarity.kernels import common_stimuli
from clinode.system import Values

PENALTIES = np.logspace(-3, 6, 19)


@dataclass(frozen=True, eq=False)
class Predictivity:
    """Linear predictivity of each unit of a brain from a model.

    Attributes:
        correlation: (unit,) of held-out predictions and the mean response.
        ceiling: (unit,) the largest that the noise of the repeats allows; 1 without repeats.
        median: Of correlation / ceiling over units whose ceiling is above .1.
        n_units: How many those are.
    """

    correlation: Float[np.ndarray, " unit"]
    ceiling: Float[np.ndarray, " unit"]
    median: float
    n_units: int

    def to_pandas(self) -> pd.DataFrame:
        """One row a unit: unit, correlation, ceiling."""
        return pd.DataFrame(
            {
                "unit": np.arange(len(self.correlation)),
                "correlation": self.correlation,
                "ceiling": self.ceiling,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"median": self.median, "n_units": self.n_units}


def linear_predictivity(
    model: Values, brain: Values, *, n_folds: int = 10, seed: int = 0
) -> Predictivity:
    """Ridge regression from a model's units to each unit of a brain, on stimuli not fitted on.

    The penalty is chosen inside each training part. With repeats the ceiling of a unit is the
    square root of its reliability: the correlation of the means of odd and even repeats, stepped
    up by Spearman and Brown.

    Args:
        model: (stimulus, unit).
        brain: (stimulus, unit) or (repeat, stimulus, unit).
        n_folds: Parts of the stimuli; each is predicted from the others.
        seed: Of which stimulus goes where.

    Raises:
        ArgumentError: Shapes that do not fit, fewer stimuli than twice the folds, a constant unit.
    """
    responses = np.asarray(brain, dtype=np.float64)
    if responses.ndim not in (2, 3):
        raise ArgumentError(f"brain must be (stimulus, unit), got shape {responses.shape}")
    repeats = responses[None] if responses.ndim == 2 else responses
    X, Y = (part.numpy() for part in common_stimuli(model, repeats.mean(axis=0)))
    if len(X) < 2 * n_folds or n_folds < 2:
        raise ArgumentError(f"{len(X)} stimuli cannot be predicted in {n_folds} folds")
    if (Y.std(axis=0) == 0).any():
        raise ArgumentError(f"{int((Y.std(axis=0) == 0).sum())} units answer all stimuli alike")
    predicted = np.empty_like(Y)
    for fitted, asked in KFold(n_folds, shuffle=True, random_state=seed).split(X):
        center, scale = X[fitted].mean(axis=0), X[fitted].std(axis=0)
        scale[scale == 0] = 1.0
        ridge = RidgeCV(PENALTIES).fit((X[fitted] - center) / scale, Y[fitted])
        predicted[asked] = ridge.predict((X[asked] - center) / scale)
    correlation = _correlations(predicted, Y)
    ceiling = np.ones(Y.shape[1])
    if len(repeats) > 1:
        half = _correlations(repeats[::2].mean(axis=0), repeats[1::2].mean(axis=0))
        ceiling = np.sqrt(np.clip(2 * half / (1 + half), 0.0, 1.0))
    used = ceiling > 0.1
    shares = correlation[used] / ceiling[used]
    median = float(np.median(shares)) if used.any() else np.nan
    return Predictivity(correlation, ceiling, median, int(used.sum()))


def _correlations(a: np.ndarray, b: np.ndarray) -> Float[np.ndarray, " unit"]:
    """Of the columns; 0 where one does not vary."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.where(size > 0, (a * b).sum(axis=0) / np.where(size > 0, size, 1.0), 0.0)
