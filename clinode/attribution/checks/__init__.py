"""Whether the attributions of a model can be trusted: per-model checks, each with its verdict."""

from .agreement import MethodAgreement, method_agreement
from .asked import Asked
from .checks import AttributionChecks, check_attributions
from .insertion import InsertionDeletion, insertion_deletion
from .randomization import (
    LabelPermutation,
    WeightRandomization,
    label_permutation,
    weight_randomization,
)
from .stability import (
    MeasurementSensitivity,
    SeedStability,
    measurement_sensitivity,
    seed_stability,
)

__all__ = [
    "Asked",
    "AttributionChecks",
    "InsertionDeletion",
    "LabelPermutation",
    "MeasurementSensitivity",
    "MethodAgreement",
    "SeedStability",
    "WeightRandomization",
    "check_attributions",
    "insertion_deletion",
    "label_permutation",
    "measurement_sensitivity",
    "method_agreement",
    "seed_stability",
    "weight_randomization",
]
