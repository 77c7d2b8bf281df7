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
from .survival import (
    SurvivalEvaluation,
    concordance,
    evaluate_survival,
    integrated_brier,
    time_dependent_auc,
)
from .survival_curves import aalen_johansen
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
    "SurvivalEvaluation",
    "aalen_johansen",
    "auprc",
    "auroc",
    "brier",
    "calibration_curve",
    "calibration_intercept",
    "calibration_slope",
    "compare_fingerprint",
    "concordance",
    "decayed_means",
    "ece",
    "evaluate_classification",
    "evaluate_forecast",
    "evaluate_survival",
    "fit_baselines",
    "fit_conformal",
    "fit_forecast_baselines",
    "fit_recalibration",
    "integrated_brier",
    "summarize",
    "time_dependent_auc",
]
