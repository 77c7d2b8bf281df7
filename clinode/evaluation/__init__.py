"""How good it is: metrics with intervals, and the trivial baselines beside them."""

from .baselines import Baselines, LogisticBaseline, fit_baselines
from .calibration import calibration_curve, calibration_intercept, calibration_slope, ece
from .classification import METRICS, ClassificationEvaluation, evaluate_classification
from .conformal import (
    SplitConformal,
    fit_conformal,
)
from .drift import (
    Drift,
    compare_fingerprint,
)
from .forecast import ForecastEvaluation, Predicted, evaluate_forecast
from .forecast_baselines import ForecastBaselines, fit_forecast_baselines
from .histories import Histories, decayed_means, summarize
from .metrics import auprc, auroc, brier
from .recalibration import (
    Recalibration,
    fit_recalibration,
)
from .scores import ScoredRecords, ScoreTable
from .trees import BoostedTrees

__all__ = [
    "METRICS",
    "Baselines",
    "BoostedTrees",
    "ClassificationEvaluation",
    "Drift",
    "ForecastBaselines",
    "ForecastEvaluation",
    "Histories",
    "LogisticBaseline",
    "Predicted",
    "Recalibration",
    "ScoreTable",
    "ScoredRecords",
    "SplitConformal",
    "auprc",
    "auroc",
    "brier",
    "calibration_curve",
    "calibration_intercept",
    "calibration_slope",
    "compare_fingerprint",
    "decayed_means",
    "ece",
    "evaluate_classification",
    "evaluate_forecast",
    "fit_baselines",
    "fit_conformal",
    "fit_forecast_baselines",
    "fit_recalibration",
    "summarize",
]
