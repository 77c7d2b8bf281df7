"""How good it is: metrics with intervals, and the trivial baselines beside them."""

from .baselines import Baselines, LogisticBaseline, fit_baselines
from .calibration import calibration_curve, calibration_intercept, calibration_slope, ece
from .classification import METRICS, ClassificationEvaluation, evaluate_classification
from .forecast import ForecastEvaluation, Predicted, evaluate_forecast
from .forecast_baselines import ForecastBaselines, fit_forecast_baselines
from .histories import Histories, decayed_means, summarize
from .metrics import auprc, auroc, brier
from .scores import ScoredRecords, ScoreTable
from .trees import BoostedTrees

__all__ = [
    "METRICS",
    "Baselines",
    "BoostedTrees",
    "ClassificationEvaluation",
    "ForecastBaselines",
    "ForecastEvaluation",
    "Histories",
    "LogisticBaseline",
    "Predicted",
    "ScoreTable",
    "ScoredRecords",
    "auprc",
    "auroc",
    "brier",
    "calibration_curve",
    "calibration_intercept",
    "calibration_slope",
    "decayed_means",
    "ece",
    "evaluate_classification",
    "evaluate_forecast",
    "fit_baselines",
    "fit_forecast_baselines",
    "summarize",
]
