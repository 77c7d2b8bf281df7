"""What was observed: cohorts of subjects measured at irregular times, read, checked and split."""

from .batch import IrregularBatch, PaddedBatch, Treatments
from .preprocess import Preprocessor
from .records import PackedRecords
from .task import Classify, Forecast, Task, task_from_dict

__all__ = [
    "Classify",
    "Forecast",
    "IrregularBatch",
    "PackedRecords",
    "PaddedBatch",
    "Preprocessor",
    "Task",
    "Treatments",
    "task_from_dict",
]
