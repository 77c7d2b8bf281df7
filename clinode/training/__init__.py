"""Fit a sequence model, store the run, load it, evaluate it."""

from .classifier import CohortClassifier
from .config import FitConfig
from .ensemble import (
    Ensemble,
    fit_ensemble,
    load_ensemble,
)
from .evaluate import Evaluation, evaluate
from .fit import fit
from .run import Run, load_run

__all__ = [
    "CohortClassifier",
    "Ensemble",
    "Evaluation",
    "FitConfig",
    "Run",
    "evaluate",
    "fit",
    "fit_ensemble",
    "load_ensemble",
    "load_run",
]
