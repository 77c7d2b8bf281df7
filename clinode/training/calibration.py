"""What corrects a run's answers, fitted on subjects that did not train it, and where it is stored.

Of a forecast the scores of its intervals (`intervals.safetensors`), of a risk its recalibration
(`recalibration.json`); a run has one of them or none.
"""

from collections.abc import Container
from pathlib import Path

import safetensors.numpy

from clinode.errors import CheckpointError
from clinode.evaluation import Recalibration, SplitConformal
from clinode.folder import read_json, write_json

INTERVALS = "intervals.safetensors"
RECALIBRATION = "recalibration.json"

Calibration = SplitConformal | Recalibration


def write_calibration(folder: Path, calibration: Calibration | None) -> None:
    """Write the file of a calibration into a folder; none where there is none."""
    if isinstance(calibration, SplitConformal):
        arrays = calibration.to_arrays()
        (folder / INTERVALS).write_bytes(safetensors.numpy.save(arrays))
    elif calibration is not None:
        write_json(folder / RECALIBRATION, calibration.to_dict())


def read_calibration(
    folder: Path, files: Container[str], *, n_variables: int
) -> Calibration | None:
    """The calibration of a folder whose files were verified.

    Args:
        folder: Of a run or an ensemble.
        files: Names of the files that belong to it.
        n_variables: Of the schema.

    Raises:
        CheckpointError: It is not one of this version, or of another schema.
    """
    if INTERVALS in files:
        found = SplitConformal.from_arrays(safetensors.numpy.load_file(folder / INTERVALS))
        if found.n_variables != n_variables:
            raise CheckpointError(
                f"intervals of {found.n_variables} variables, and the schema has {n_variables}",
                where=f"{folder.name}/{INTERVALS}",
                fix="put the run's own files back together",
            )
        return found
    if RECALIBRATION in files:
        try:
            return Recalibration.from_dict(read_json(folder / RECALIBRATION))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the stored recalibration is not one of this version: {error}",
                where=f"{folder.name}/{RECALIBRATION}",
            ) from None
    return None
