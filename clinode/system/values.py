"""What may stand for numbers, and numbers as tensors."""

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

Values = float | int | Sequence[Any] | np.ndarray | np.generic | Tensor
Time = float | int | Tensor


def floating(values: Values) -> Tensor:
    """As a tensor that keeps a floating dtype of its own; everything else in float64."""
    if is_floating(values):
        return values
    if isinstance(values, np.ndarray):
        values = np.asarray(values, order="C")  # torch takes no reversed axes
    return torch.as_tensor(values, dtype=torch.float64)


def is_floating(values: Any) -> TypeGuard[Tensor]:
    """Whether these are a tensor of floating dtype."""
    return isinstance(values, Tensor) and values.is_floating_point()


def times_vector(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix @ vector over broadcast batch axes."""
    if matrix.ndim == 2:
        return nn.functional.linear(vector, matrix)
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
