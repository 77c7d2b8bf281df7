"""Who does the work of which task: the table of this room."""

from clinode.cohort import Classify, Forecast, Interpolate, Several, Survive, Task
from clinode.errors import ArgumentError
from clinode.training.classification import ClassificationWork
from clinode.training.forecasting import ForecastWork
from clinode.training.interpolation import InterpolationWork
from clinode.training.several import SeveralWork
from clinode.training.survival import SurvivalWork
from clinode.training.task_work import TaskWork

WORK: dict[type[Task], TaskWork] = {
    Classify: ClassificationWork(),
    Forecast: ForecastWork(),
    Interpolate: InterpolationWork(),
    Survive: SurvivalWork(),
}


def work_of(task: Task) -> TaskWork:
    """The work of a task.

    Raises:
        ArgumentError: The table has none for this kind of task.
    """
    if isinstance(task, Several):
        return SeveralWork(task, [work_of(part) for part in task.tasks])
    if type(task) not in WORK:
        raise ArgumentError(f"nothing is known of a task of the kind {type(task).__name__}")
    return WORK[type(task)]
