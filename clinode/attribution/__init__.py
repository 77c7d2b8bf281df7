"""Which measured events moved the output, and how far the answer can be trusted."""

from .function import AttributionMap, attribute
from .methods import METHODS

__all__ = ["METHODS", "AttributionMap", "attribute"]
