"""What is said beside a run's numbers: how far data have moved, and what corrects its answers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinode.evaluation import Drift, Recalibration
    from clinode.training import Run

MOST_SHIFTS = 10


def drift_lines(drift: "Drift") -> list[str]:
    """The verdict, and the largest shifts as a table."""
    from clinode.cli.answers import table

    shown = drift.table[drift.table["verdict"].isin(["large shift", "shift"])]
    shown = shown.head(MOST_SHIFTS)
    lines = [f"Drift from the training part: {drift.verdict}."]
    if len(shown):
        columns = ("kind", "name", "expected", "found", "verdict")
        rows = list(zip(*(shown[column] for column in columns), strict=True))
        lines += table(["shift of", "variable", "training", "here", "verdict"], rows)
    return lines


def calibration_lines(run: "Run") -> list[str]:
    """How a run's intervals or its risk were calibrated; nothing where neither can be."""
    from clinode.evaluation import Recalibration

    if "intervals" in run.metrics:
        return [f"Intervals: {run.metrics['intervals']['verdict']}."]
    if isinstance(run.calibration, Recalibration):
        return [f"Recalibrated: {run.calibration.verdict}."]
    return []


def evidence_lines(found: "Recalibration") -> list[str]:
    """What speaks for each recalibration, cross-fitted."""
    from clinode.cli.answers import interval, table
    from clinode.evaluation.recalibration import MEASURES

    rows: list[list[Any]] = [
        [row["method"], *(interval(row[m].to_dict()) for m in MEASURES)] for row in found.evidence
    ]
    return [
        f"Recalibration on {found.n_records:,} records, {found.n_events:,} with the outcome, "
        f"cross-fitted: {found.verdict}.",
        *table(["", *MEASURES], rows),
    ]
