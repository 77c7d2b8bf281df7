"""The trackers that a word chooses: `clinode fit --track`."""

from collections.abc import Callable
from pathlib import Path

from clinode.training.trackers.mlflow import MLflow
from clinode.training.trackers.tensorboard import TensorBoard

TRACKERS: dict[str, Callable[[Path], TensorBoard | MLflow]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
}
