"""Fit a sequence model, store the run, load it, evaluate it."""

from .classifier import CohortClassifier
from .config import FitConfig
from .cross_validate import CrossValidation, cross_validate
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
from .search import Choice, Integers, Search, Uniform, search
from .search_optuna import search_optuna
from .stream import adaptive_forecasts
from .trackers import MLflow, TensorBoard, Tracker

__all__ = [
    "Choice",
    "CohortClassifier",
    "CrossValidation",
    "Ensemble",
    "Evaluation",
    "FitConfig",
    "Integers",
    "MLflow",
    "Run",
    "Search",
    "TensorBoard",
    "Tracker",
    "Uniform",
    "adaptive_forecasts",
    "cross_validate",
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
    "search",
    "search_optuna",
]
