"""Which measured events moved the output, and how far the answer can be trusted."""

from .along import AttributionsAlong, explain_along
from .attributions import Attributions
from .baselines import BASELINES, read_normal_ranges
from .checks import AttributionChecks, check_attributions
from .explain import explain
from .faithfulness import PlantedRecovery, planted_recovery
from .function import AttributionMap, attribute
from .kinds import KindAttributions, explain_kinds
from .methods import METHODS
from .regions import RegionAttribution, attribute_regions
from .removal import RemovalCurves, removal_curves

__all__ = [
    "BASELINES",
    "METHODS",
    "AttributionChecks",
    "AttributionMap",
    "Attributions",
    "AttributionsAlong",
    "KindAttributions",
    "PlantedRecovery",
    "RegionAttribution",
    "RemovalCurves",
    "attribute",
    "attribute_regions",
    "check_attributions",
    "explain",
    "explain_along",
    "explain_kinds",
    "planted_recovery",
    "read_normal_ranges",
    "removal_curves",
]
