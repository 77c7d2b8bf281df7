"""Fit a sequence model, store the run, load it, evaluate it."""

from .classifier import CohortClassifier
from .config import FitConfig
from .evaluate import Evaluation, evaluate
from .fit import fit
from .run import Run, load_run

__all__ = ["CohortClassifier", "Evaluation", "FitConfig", "Run", "evaluate", "fit", "load_run"]
