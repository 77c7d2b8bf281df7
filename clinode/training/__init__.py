"""Fit a sequence model, store the run, load it, evaluate it."""

from .classifier import CohortClassifier
from .config import FitConfig
from .drift import find_drift
from .ensemble import (
    Ensemble,
    fit_ensemble,
    load_ensemble,
)
from .evaluate import Evaluation, evaluate
from .export import (
    dense_record,
    export,
)
from .fit import fit
from .meds_predictions import meds_predictions
from .recalibrate import recalibrate
from .run import Run, load_run
from .stream import adaptive_forecasts
from .trackers import MLflow, TensorBoard, Tracker

__all__ = [
    "CohortClassifier",
    "Ensemble",
    "Evaluation",
    "FitConfig",
    "MLflow",
    "Run",
    "TensorBoard",
    "Tracker",
    "adaptive_forecasts",
    "dense_record",
    "evaluate",
    "export",
    "find_drift",
    "fit",
    "fit_ensemble",
    "load_ensemble",
    "load_run",
    "meds_predictions",
    "recalibrate",
]
