"""Continuous-time models of health and brain that can be opened up and steered.

Every public noun is importable from here. A name is looked up in its room on first use, so that
`import clinode` costs a fraction of a second although the rooms need torch, pandas and friends.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import (
        attribution,
        cohort,
        dynamics,
        evaluation,
        figures,
        physiology,
        report,
        sequence,
        training,
    )
    from .attribution import Attributions, explain
    from .cohort import (
        Classify,
        Cohort,
        CohortSchema,
        Forecast,
        IrregularBatch,
        Policy,
        Preprocessor,
        Variable,
        read_cohort,
        split,
    )
    from .dynamics import Trajectory, simulate
    from .errors import (
        ArgumentError,
        CheckpointError,
        ClinodeError,
        Interrupted,
        OutputError,
        ResourceError,
        SchemaError,
        SolverError,
    )
    from .physiology import Circulation, GlucoseMinimalModel, simulate_cohort
    from .report import write_report
    from .sequence import SequenceModel
    from .statistics import Estimate
    from .system import DiscreteSystem, FunctionSignal, LinearSystem, Quantity, Signal, System
    from .training import CohortClassifier, Evaluation, FitConfig, Run, evaluate, fit, load_run

__version__ = "0.1.0"

_ROOMS = (
    "attribution",
    "cohort",
    "dynamics",
    "evaluation",
    "figures",
    "physiology",
    "report",
    "sequence",
    "training",
)

_HOME = {
    "ArgumentError": "errors",
    "Attributions": "attribution",
    "CheckpointError": "errors",
    "Circulation": "physiology",
    "Classify": "cohort",
    "ClinodeError": "errors",
    "Cohort": "cohort",
    "CohortClassifier": "training",
    "CohortSchema": "cohort",
    "DiscreteSystem": "system",
    "Estimate": "statistics",
    "Evaluation": "training",
    "FitConfig": "training",
    "Forecast": "cohort",
    "FunctionSignal": "system",
    "GlucoseMinimalModel": "physiology",
    "Interrupted": "errors",
    "IrregularBatch": "cohort",
    "LinearSystem": "system",
    "OutputError": "errors",
    "Policy": "cohort",
    "Preprocessor": "cohort",
    "Quantity": "system",
    "ResourceError": "errors",
    "Run": "training",
    "SchemaError": "errors",
    "SequenceModel": "sequence",
    "Signal": "system",
    "SolverError": "errors",
    "System": "system",
    "Trajectory": "dynamics",
    "Variable": "cohort",
    "evaluate": "training",
    "explain": "attribution",
    "fit": "training",
    "load_run": "training",
    "read_cohort": "cohort",
    "simulate": "dynamics",
    "simulate_cohort": "physiology",
    "split": "cohort",
    "write_report": "report",
}

__all__ = [
    "ArgumentError",
    "Attributions",
    "CheckpointError",
    "Circulation",
    "Classify",
    "ClinodeError",
    "Cohort",
    "CohortClassifier",
    "CohortSchema",
    "DiscreteSystem",
    "Estimate",
    "Evaluation",
    "FitConfig",
    "Forecast",
    "FunctionSignal",
    "GlucoseMinimalModel",
    "Interrupted",
    "IrregularBatch",
    "LinearSystem",
    "OutputError",
    "Policy",
    "Preprocessor",
    "Quantity",
    "ResourceError",
    "Run",
    "SchemaError",
    "SequenceModel",
    "Signal",
    "SolverError",
    "System",
    "Trajectory",
    "Variable",
    "attribution",
    "cohort",
    "dynamics",
    "evaluate",
    "evaluation",
    "explain",
    "figures",
    "fit",
    "load_run",
    "physiology",
    "read_cohort",
    "report",
    "sequence",
    "simulate",
    "simulate_cohort",
    "split",
    "training",
    "write_report",
]


def __getattr__(name: str):
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
