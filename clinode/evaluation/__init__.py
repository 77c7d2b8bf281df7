"""How good it is: metrics with intervals, and the trivial baselines beside them."""

from .baselines import Baselines, LogisticBaseline, fit_baselines
from .calibration import (
    calibration_curve,
    calibration_intercept,
    calibration_slope,
    ece,
    smooth_calibration,
)
from .classification import METRICS, ClassificationEvaluation, evaluate_classification
from .conformal import (
    SplitConformal,
    fit_conformal,
)
from .decision import at_threshold, decision_curve
from .disclosure import hide_small
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
from .risk_groups import operating_points, risk_groups
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
    "at_threshold",
    "auprc",
    "auroc",
    "brier",
    "calibration_curve",
    "calibration_intercept",
    "calibration_slope",
    "compare_fingerprint",
    "concordance",
    "decayed_means",
    "decision_curve",
    "ece",
    "evaluate_classification",
    "evaluate_forecast",
    "evaluate_survival",
    "fit_baselines",
    "fit_conformal",
    "fit_forecast_baselines",
    "fit_recalibration",
    "hide_small",
    "integrated_brier",
    "operating_points",
    "risk_groups",
    "smooth_calibration",
    "summarize",
    "time_dependent_auc",
]
