"""What inputs reach and outputs show, which modes not, and why."""

from .accessibility import Accessibility, accessibility
from .controllability import Controllability, controllability
from .mode_list import Mode
from .reasons import Reason
from .structure import Structure, structural_controllability

__all__ = [
    "Accessibility",
    "Controllability",
    "Mode",
    "Reason",
    "Structure",
    "accessibility",
    "controllability",
    "structural_controllability",
]
