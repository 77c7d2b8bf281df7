"""Packed records of a cohort too large to be packed in one piece.

Blocks of subjects are packed one after the other and laid end to end in files, which are mapped
into memory: what grows with the cohort lies on the disk, and batches touch the rows that they ask
for. The records are those of `PackedRecords.build`, position by position.
"""

import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from clinode.cohort.cohort import Cohort
from clinode.cohort.preprocess import Preprocessor
from clinode.cohort.records import PackedRecords
from clinode.cohort.task import Task
from clinode.errors import ArgumentError

BLOCK_SUBJECTS = 20_000
MANY_OBSERVATIONS = 20_000_000  # about half a gigabyte of packed records
_OFFSETS = {"offset": "time", "event_offset": "event_value", "input_offset": "input_value"}
_ROW_NUMBERS = ("input_start_row", "input_end_row")


def pack(
    cohort: Cohort, schema: Preprocessor, task: Task, with_targets: bool = True
) -> PackedRecords:
    """The records of `PackedRecords.build`; those of a cohort of many observations on the disk.

    Args:
        cohort: With more than `MANY_OBSERVATIONS` it is packed in blocks, into a temporary folder
            of the system.
        schema: Fitted on the training part.
        task: Whose instances are wanted.
        with_targets: Whether to read outcomes, or observations after the prediction time.

    Raises:
        SchemaError: Unknown variables; with targets, a missing or non-binary outcome column.
    """
    if cohort.n_observations <= MANY_OBSERVATIONS:
        return PackedRecords.build(cohort, schema, task, with_targets)
    return pack_in_blocks(cohort, schema, task, with_targets, block_subjects=BLOCK_SUBJECTS)


def pack_in_blocks(
    cohort: Cohort,
    schema: Preprocessor,
    task: Task,
    with_targets: bool = True,
    *,
    block_subjects: int = BLOCK_SUBJECTS,
    folder: Path | None = None,
) -> PackedRecords:
    """The records of `PackedRecords.build`, in memory that does not grow with their observations.

    Args:
        cohort: Read block by block.
        schema: Fitted on the training part.
        task: Whose instances are wanted.
        with_targets: Whether to read outcomes, or observations after the prediction time.
        block_subjects: Subjects packed at a time.
        folder: Where a temporary folder with the files is made; that of the system if left out. It
            goes with the records.

    Raises:
        ArgumentError: The cohort is empty, or a block is.
        SchemaError: Unknown variables; with targets, a missing or non-binary outcome column.
    """
    if block_subjects < 1 or not len(cohort):
        raise ArgumentError("there is nothing to pack")
    place = tempfile.TemporaryDirectory(
        prefix="clinode-records-", dir=folder, ignore_cleanup_errors=True
    )
    stack = _Stack(Path(place.name))
    for part in _blocks(cohort, schema, task, with_targets, block_subjects):
        stack.add(part)
    records = stack.records(schema, task)
    weakref.finalize(records, place.cleanup)
    return records


def _blocks(
    cohort: Cohort, schema: Preprocessor, task: Task, with_targets: bool, size: int
) -> Iterator[PackedRecords]:
    for start in range(0, len(cohort), size):
        own = cohort.take(range(start, min(start + size, len(cohort))))
        yield PackedRecords.build(own, schema, task, with_targets)


class _Stack:
    """Files, one an array, that grow by the arrays of each block."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.types: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        self.lengths = dict.fromkeys(_OFFSETS.values(), 0)
        self.n_subjects = 0
        self.rows: type | None = None
        self.parts: list[dict[str, Any]] = []
        # of each block: target and query_stop of the task, then of each part of several tasks
        self.asked: list[list[tuple[np.ndarray | None, np.ndarray]]] = []

    def add(self, part: PackedRecords) -> None:
        """Append the arrays of a block, counted on from those before."""
        rows = part._rows
        self.rows = type(rows)
        before = dict(self.lengths)
        for entry in fields(rows):
            array = getattr(rows, entry.name)
            if entry.name in _OFFSETS:
                array = array + before[_OFFSETS[entry.name]]
                array = array if self.n_subjects == 0 else array[1:]
            elif entry.name in _ROW_NUMBERS:
                array = array + before["time"]
            self._append(entry.name, array)
        for name in self.lengths:
            self.lengths[name] += len(getattr(rows, name))
        first = before["time"]
        self.parts.append(
            {
                "subjects": part.subjects,
                "subject_index": part.subject_index + self.n_subjects,
                "prediction_time": part.prediction_time,
                "first": part._first + first,
                "stop": part._stop + first,
                "static": part._static,
            }
        )
        asked = (part, *part.parts)
        self.asked.append([(one.target, one._query_stop + first) for one in asked])
        self.n_subjects += len(part.subjects)

    def records(self, schema: Preprocessor, task: Task) -> PackedRecords:
        """The records of all blocks."""
        if self.rows is None:
            raise ArgumentError("there is nothing to pack")
        rows = self.rows(**{entry.name: self._open(entry.name) for entry in fields(self.rows)})
        arrays: dict[str, Any] = {"rows": rows}
        for name in self.parts[0]:
            arrays[name] = np.concatenate([part[name] for part in self.parts])

        def asked(one: Task, place: int, parts: tuple[PackedRecords, ...] = ()) -> PackedRecords:
            targets, stops = zip(*(block[place] for block in self.asked), strict=True)
            target = None if targets[0] is None else np.concatenate(targets)
            own = {"target": target, "query_stop": np.concatenate(stops), "parts": parts}
            return PackedRecords(schema=schema, task=one, arrays={**arrays, **own})

        parts = tuple(asked(part, place) for place, part in enumerate(task.parts, start=1))
        return asked(task, 0, parts)

    def _append(self, name: str, array: np.ndarray) -> None:
        self.types.setdefault(name, (array.dtype, array.shape[1:]))
        with (self.folder / name).open("ab") as file:
            file.write(np.ascontiguousarray(array, dtype=self.types[name][0]).tobytes())

    def _open(self, name: str) -> np.ndarray:
        kind, shape = self.types[name]
        path = self.folder / name
        if path.stat().st_size == 0:
            return np.zeros((0, *shape), dtype=kind)
        flat = np.memmap(path, dtype=kind, mode="r")
        return flat.reshape(-1, *shape) if shape else flat
