"""How well a map of attributions points at the cells that are known to matter.

Average precision and the area under the ROC curve depend on the order of |attribution| only and
come first. AUP, AUR, information and entropy are those of the literature on masks, computed as in
time_interpret 0.3 (Dynamask's own script integrates over maps that are not normalised, so its AUR
is on another scale). They reward a map that is nearly binary, whatever it knows: rounding a perfect
map to 0 and 1 takes its AUR from .13 to 1 and its information from 459 to 19,500. They are here
to compare with what was published, not to choose a method by.
"""

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from clinode.errors import ArgumentError

_EPS = 1e-5


@dataclass(frozen=True)
class MapScores:
    """Scores of one map of many subjects.

    Args:
        auprc: Average precision of |attribution|, each subject's map scaled to 0..1.
        auroc: Area under its ROC curve.
        chance: Share of the cells that matter, the average precision of a coin.
        top: Of the subjects in whom something matters, the share whose largest cell matters.
        aup, aur: Area of precision and of recall over all thresholds.
        information: sum over cells that matter of |log2(1 - a + 1e-5)|.
        entropy: sum over them of a |log2(1e-5 + a)| + (1 - a) |log2(1e-5 + 1 - a)|.
    """

    auprc: float
    auroc: float
    chance: float
    top: float
    aup: float
    aur: float
    information: float
    entropy: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return asdict(self)


def score_map(
    values: Float[np.ndarray, "subject ..."],
    truth: Bool[np.ndarray, "subject ..."],
    measured: Bool[np.ndarray, "subject ..."] | None = None,
) -> MapScores:
    """Compare a map with the truth.

    Args:
        values: Attributions, with sign; NaN for what was withheld, which ranks last.
        truth: What matters.
        measured: The cells that are ranked; None for all. What lies on others is told by
            `unmeasured_share`.

    Raises:
        ArgumentError: The shapes differ, or everything or nothing matters.
    """
    if values.shape != truth.shape:
        raise ArgumentError(f"the map has the shape {values.shape}, the truth {truth.shape}")
    ranked = np.ones(truth.shape, dtype=bool) if measured is None else measured
    size = np.where(ranked, np.nan_to_num(np.abs(values.astype(np.float64))), np.nan)
    rows = size.reshape(len(size), -1)
    held = np.where(np.isnan(rows).all(axis=1, keepdims=True), 0.0, rows)  # nothing was measured
    low = np.nanmin(held, axis=1, keepdims=True)
    high = np.nanmax(held, axis=1, keepdims=True)
    scaled = ((rows - low) / (high - low + _EPS)).reshape(size.shape)
    a, matters = scaled[ranked], truth[ranked]
    if not matters.any() or matters.all():
        raise ArgumentError("no score exists where everything matters, or nothing")
    precision, recall, thresholds = precision_recall_curve(matters, a)
    true = a[matters]
    return MapScores(
        auprc=float(average_precision_score(matters, a)),
        auroc=float(roc_auc_score(matters, a)),
        chance=float(matters.mean()),
        top=_top(rows, (truth & ranked).reshape(len(size), -1)),
        aup=float(auc(thresholds, precision[:-1])) if len(thresholds) > 1 else float("nan"),
        aur=float(auc(thresholds, recall[:-1])) if len(thresholds) > 1 else float("nan"),
        information=float(np.abs(np.log2(1 - true + _EPS)).sum()),
        entropy=float(
            (
                true * np.abs(np.log2(_EPS + true)) + (1 - true) * np.abs(np.log2(_EPS + 1 - true))
            ).sum()
        ),
    )


def unmeasured_share(
    values: Float[np.ndarray, "subject ..."], measured: Bool[np.ndarray, "subject ..."] | None
) -> float:
    """Share of |attribution| on cells that nobody measured, over all subjects."""
    size = np.nan_to_num(np.abs(values.astype(np.float64)))
    if measured is None or not size.sum():
        return 0.0
    return float(size[~measured].sum() / size.sum())


def _top(rows: np.ndarray, truth: np.ndarray) -> float:
    some = truth.any(axis=1)
    largest = np.nanargmax(np.where(np.isnan(rows[some]), -1.0, rows[some]), axis=1)
    return float(truth[some][np.arange(int(some.sum())), largest].mean())
