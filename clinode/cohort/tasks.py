"""The table of tasks, and the one place where text becomes one."""

from typing import Any

from clinode.cohort.interpolate import Interpolate
from clinode.cohort.several import Several
from clinode.cohort.survive import Survive
from clinode.cohort.task import Classify, Forecast, Task
from clinode.errors import ArgumentError

TASKS: dict[str, type[Task]] = {
    "classify": Classify,
    "forecast": Forecast,
    "interpolate": Interpolate,
    "several": Several,
    "survive": Survive,
}


def task_from_dict(data: dict[str, Any]) -> Task:
    """The task that `to_dict` wrote.

    Example:
        >>> task_from_dict(Classify("in_hospital_death", at=48.0).to_dict())
        Classify(outcome='in_hospital_death', at=48.0, auxiliary=())
    """
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind not in TASKS:
        raise ArgumentError(f"unknown task {kind!r}; there are: {', '.join(TASKS)}")
    if kind == "several":
        fields["tasks"] = tuple(task_from_dict(part) for part in fields["tasks"])
    # JSON knows no tuples
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return TASKS[kind](**plain)
