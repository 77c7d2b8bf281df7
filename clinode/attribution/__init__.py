"""Which measured events moved the output, and how far the answer can be trusted."""

from .attributions import Attributions
from .baselines import BASELINES, read_normal_ranges
from .explain import explain
from .function import AttributionMap, attribute
from .methods import METHODS

__all__ = [
    "BASELINES",
    "METHODS",
    "AttributionMap",
    "Attributions",
    "attribute",
    "explain",
    "read_normal_ranges",
]
