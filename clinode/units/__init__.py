"""Units: the check of a system's equations, and quantities from text."""

from clinode.system import UnitError

from .check import check_dimensions
from .quantities import quantity

__all__ = ["UnitError", "check_dimensions", "quantity"]
