"""Patients we wrote down, and the cohort simulated from them."""

from .circulation import Circulation, Hemodynamics
from .cohort import planted_logit, simulate_cohort
from .glucose import GlucoseMinimalModel

__all__ = [
    "Circulation",
    "GlucoseMinimalModel",
    "Hemodynamics",
    "planted_logit",
    "simulate_cohort",
]
