"""What was observed: cohorts of subjects measured at irregular times, read, checked and split."""

from .batch import IrregularBatch, PaddedBatch, Treatments
from .cohort import Cohort, CohortArrays
from .ledger import Ledger
from .policy import Policy
from .preprocess import Preprocessor
from .records import PackedRecords
from .schema import CohortSchema, Conversion, Variable
from .task import Classify, Forecast, Task, task_from_dict
from .variables import VARIABLES

__all__ = [
    "VARIABLES",
    "Classify",
    "Cohort",
    "CohortArrays",
    "CohortSchema",
    "Conversion",
    "Forecast",
    "IrregularBatch",
    "Ledger",
    "PackedRecords",
    "PaddedBatch",
    "Policy",
    "Preprocessor",
    "Task",
    "Treatments",
    "Variable",
    "task_from_dict",
]
