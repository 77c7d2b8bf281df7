"""What was observed: cohorts of subjects measured at irregular times, read, checked and split."""

from .batch import IrregularBatch, PaddedBatch, Treatments
from .check import check
from .cohort import Cohort, CohortArrays
from .convert import convert
from .definition import TaskDefinition
from .definition_yaml import (
    parse_task,
    read_task,
)
from .follow_up import Intervals, cumulative_incidence, log_likelihood
from .interpolate import Interpolate
from .ledger import Ledger
from .meds_write import write_meds
from .policy import Policy
from .preprocess import Preprocessor
from .read import FORMATS, read_cohort
from .recording import (
    Recording,
    recording_of,
)
from .records import PackedRecords
from .schema import CohortSchema, Conversion, Variable
from .several import Several
from .split import check_disjoint, split
from .survive import Survive
from .task import Classify, Forecast, Task
from .tasks import task_from_dict
from .variables import VARIABLES

__all__ = [
    "FORMATS",
    "VARIABLES",
    "Classify",
    "Cohort",
    "CohortArrays",
    "CohortSchema",
    "Conversion",
    "Forecast",
    "Interpolate",
    "Intervals",
    "IrregularBatch",
    "Ledger",
    "PackedRecords",
    "PaddedBatch",
    "Policy",
    "Preprocessor",
    "Recording",
    "Several",
    "Survive",
    "Task",
    "TaskDefinition",
    "Treatments",
    "Variable",
    "check",
    "check_disjoint",
    "convert",
    "cumulative_incidence",
    "log_likelihood",
    "parse_task",
    "read_cohort",
    "read_task",
    "recording_of",
    "split",
    "task_from_dict",
    "write_meds",
]
