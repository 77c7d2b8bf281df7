"""How alike representations are: RDMs, kernel alignment, shapes, predictivity, noise ceilings."""

from .ceiling import ModelRanking, NoiseCeiling, noise_ceiling, rank_models
from .compare import Comparison, compare
from .cortex import EnergyCortex
from .families import mixture_weights, rank_families
from .kernels import Alignment, cka
from .layers import layer_patterns
from .network import EnergyNetwork, fit_labels
from .pairs import PairwiseComparisons, compare_pairs
from .predict import Predictivity, linear_predictivity
from .rdm import RDM, rdm, rdm_from_vector
from .shape import CanonicalCorrelations, canonical_correlations, procrustes_distance

__all__ = [
    "RDM",
    "Alignment",
    "CanonicalCorrelations",
    "Comparison",
    "EnergyCortex",
    "EnergyNetwork",
    "ModelRanking",
    "NoiseCeiling",
    "PairwiseComparisons",
    "Predictivity",
    "canonical_correlations",
    "cka",
    "compare",
    "compare_pairs",
    "fit_labels",
    "layer_patterns",
    "linear_predictivity",
    "mixture_weights",
    "noise_ceiling",
    "procrustes_distance",
    "rank_families",
    "rank_models",
    "rdm",
    "rdm_from_vector",
]
