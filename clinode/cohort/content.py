"""What a cohort holds, as hashes that name the table in which two cohorts differ.

They depend on the content alone: not on the order of the rows of a file, its format, or the pieces
in which it is read, and not on where a cohort is stored. Nobody can find out by them what became of
a subject without holding the observations: a hash of a short column, such as who died, could be
found by trying, and so every hash takes the observations in.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from clinode.cohort.cohort import Cohort

TYPES = {"i": "<i8", "u": "<i8", "b": "<f8", "f": "<f8"}  # what numbers are hashed as, by kind


def content_hashes(cohort: "Cohort") -> dict[str, str]:
    """One SHA-256 a table, of everything that a model or a report reads of a cohort.

    The observations' columns (position of the subject, hours, position of the variable, value) are
    hashed as little-endian int64 and float64, sorted as `Cohort.arrays` has them; together with the
    number of subjects they give a key, which is not told. The hash of each table is the SHA-256 of
    its name, the key, and its content: of the inputs their columns likewise; of statics and
    outcomes each column by name, numbers as float64 and texts as JSON, rows in the order of the
    subjects and then of their cells; of the schema its JSON, sorted; of the subjects their ids and
    groups as texts. A missing number is one NaN. Planted causes, published splits and dates of time
    zero stay out: no answer depends on them.

    Returns:
        Hexadecimal digits by table: observations, inputs, statics, outcomes, schema, subjects.
        Where the observations of two cohorts differ, all of the others do too.
    """
    observed = hashlib.sha256(f"{len(cohort)} subjects\n".encode())
    observed.update(_of_chunks(cohort.chunks("observations")))
    key = observed.digest()
    contents = {
        "observations": b"",
        "inputs": _of_chunks(cohort.chunks("inputs")),
        "statics": _of_frame(cohort.statics, cohort.subjects),
        "outcomes": _of_frame(cohort.outcomes, cohort.subjects),
        "schema": _json(_sorted_schema(cohort)),
        "subjects": _json([[str(one) for one in ids.tolist()] for ids in _ids(cohort)]),
    }
    return {
        name: hashlib.sha256(name.encode() + key + content).hexdigest()
        for name, content in contents.items()
    }


def content_hash(cohort: "Cohort") -> str:
    """One SHA-256 of everything in `content_hashes`: equal for equal cohorts, however stored."""
    return together(content_hashes(cohort))


def together(hashes: Mapping[str, str]) -> str:
    """The one SHA-256 of the hashes of all tables."""
    return hashlib.sha256(_json(dict(hashes))).hexdigest()


def _of_chunks(chunks: Iterable[Mapping[str, np.ndarray]]) -> bytes:
    """Hash of columns that come piece by piece, each hashed by itself: pieces leave no trace."""
    digests: dict[str, hashlib._Hash] = {}
    for chunk in chunks:
        for name, column in chunk.items():
            digests.setdefault(name, hashlib.sha256()).update(_numbers(column).tobytes())
    return b"".join(name.encode() + digest.digest() for name, digest in sorted(digests.items()))


def _of_frame(frame: pd.DataFrame, subjects: np.ndarray) -> bytes:
    ids, *names = frame.columns
    place = pd.Index(subjects).get_indexer(pd.Index(frame[ids].to_numpy()))
    columns = [pd.Series(frame[name]) for name in sorted(names, key=str)]
    order = np.lexsort((*(_ranks(column) for column in reversed(columns)), place))
    parts = [_numbers(place[order]).tobytes()]
    for column in columns:
        held = column.iloc[order]
        parts.append(_json(str(column.name)))
        if held.dtype.kind in TYPES:
            parts.append(_numbers(held.to_numpy(np.float64)).tobytes())
        else:
            parts.append(_json([None if one is None or one != one else one for one in held]))
    return hashlib.sha256(b"".join(parts)).digest()


def _ranks(column: pd.Series) -> np.ndarray:
    """Numbers in the order of the cells, missing ones first."""
    values = column if column.dtype.kind in TYPES else column.astype("string")
    return np.asarray(pd.factorize(values, sort=True)[0])


def _numbers(column: np.ndarray) -> np.ndarray:
    """Little-endian, contiguous, with one kind of NaN."""
    numbers = np.ascontiguousarray(column, dtype=TYPES[column.dtype.kind])
    if numbers.dtype.kind == "f" and np.isnan(numbers).any():
        numbers = np.where(np.isnan(numbers), np.nan, numbers)
    return numbers


def _sorted_schema(cohort: "Cohort") -> dict[str, object]:
    told = cohort.schema.to_dict()
    parts = ("variables", "statics", "inputs")
    sorted_parts = {part: sorted(told[part], key=lambda one: one["name"]) for part in parts}
    return {**sorted_parts, "outcomes": sorted(told["outcomes"])}


def _ids(cohort: "Cohort") -> tuple[np.ndarray, np.ndarray]:
    return cohort.subjects, cohort.groups


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
