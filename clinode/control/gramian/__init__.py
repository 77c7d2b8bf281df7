"""Gramians, and what one region alone can do: from dense matrices to networks of 10^5 regions."""

from .boundary import BoundaryControllability, boundary_controllability
from .gramian import controllability_gramian, observability_gramian
from .low_rank import LowRankGramian, low_rank_gramian
from .nodal import NodalControllability, average_controllability, modal_controllability
from .normalization import linear_network
from .reduction import BalancedReduction, HankelValues, balanced_reduction, hankel_singular_values
from .single_node import SingleNodeGramians, single_node_gramians
from .sparse import NodeEstimates, sparse_average_controllability, sparse_dynamics

__all__ = [
    "BalancedReduction",
    "BoundaryControllability",
    "HankelValues",
    "LowRankGramian",
    "NodalControllability",
    "NodeEstimates",
    "SingleNodeGramians",
    "average_controllability",
    "balanced_reduction",
    "boundary_controllability",
    "controllability_gramian",
    "hankel_singular_values",
    "linear_network",
    "low_rank_gramian",
    "modal_controllability",
    "observability_gramian",
    "single_node_gramians",
    "sparse_average_controllability",
    "sparse_dynamics",
]
