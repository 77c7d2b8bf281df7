"""What a transfer costs: certified least energies, costs on the way, what bounded inputs reach."""

from .energy import Energy, control_energy
from .optimal_energy import OptimalEnergy, OptimalTrajectory, optimal_energy
from .reachable import Reachable, reachable_distance

__all__ = [
    "Energy",
    "OptimalEnergy",
    "OptimalTrajectory",
    "Reachable",
    "control_energy",
    "optimal_energy",
    "reachable_distance",
]
