"""Where the numbers of a fit can be watched while it runs: TensorBoard, MLflow, or your own."""

from .known import TRACKERS
from .mlflow import MLflow
from .tensorboard import TensorBoard
from .tracker import Tracker, check_trackers, tracking

__all__ = ["TRACKERS", "MLflow", "TensorBoard", "Tracker", "check_trackers", "tracking"]
