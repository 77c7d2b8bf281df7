"""What a system does: solve and simulate it."""

from .simulate import METHODS, Trajectory, simulate

__all__ = ["METHODS", "Trajectory", "simulate"]
