"""Files that hold several arrays: NumPy's, Matlab's, and the zip of The Virtual Brain."""

import bz2
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from scipy import io, sparse

from clinode.errors import ArgumentError, SchemaError
from clinode.system.quantity import listed

from .contents import SPACES, Contents, decoded, numbers_in, rows_in

PARTS = {  # of a connectome, and what files call them
    "weights": ("weights",),
    "labels": ("labels", "region_labels"),
    "centers": ("centers", "centres"),
    "tract_lengths": ("tract_lengths", "lengths"),
}
BROKEN = (  # how NumPy's reader fails
    *(ValueError, TypeError, OSError, EOFError, KeyError, NotImplementedError, RuntimeError),
    *(SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
UNREADABLE = (  # how scipy's reader fails on a broken file
    *(io.matlab.MatReadError, ValueError, TypeError, NotImplementedError, OSError, EOFError),
    *(zlib.error, KeyError, IndexError, OverflowError),
)
LARGEST_TEXT = 2**30  # bytes of one unpacked text; weights of 10^4 regions fit


def read_npz(path: Path, arrays: Mapping[str, str]) -> Contents:
    """Arrays of an `.npz`, nothing pickled.

    Raises:
        SchemaError: No archive of plain arrays, no weights, or a part that is no array of numbers.
        ArgumentError: An array that is asked for and that the file has not.
    """
    wanted = {*arrays.values(), *(name for names in PARTS.values() for name in names)}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            known = list(archive.files)
            stored = {name: archive[name] for name in known if name in wanted}
    except MemoryError as error:
        raise SchemaError(
            "an array in it says that it is larger than the memory", where=path.name
        ) from error
    except BROKEN as error:
        raise SchemaError(
            "not an archive of plain arrays", where=path.name, fix="save it with numpy.savez"
        ) from error
    for name, array in stored.items():
        if not isinstance(array, np.ndarray):  # NumPy hands out the bytes of what it cannot read
            raise SchemaError(f"'{name}' is no array", where=path.name)
    names = _names(path, known, arrays)
    return _contents(path, {part: stored[name] for part, name in names.items()}, known)


def read_mat(path: Path, arrays: Mapping[str, str]) -> Contents:
    """Variables of a Matlab file up to version 7, sparse ones included.

    Without a variable `weights` the only square matrix is taken.

    Raises:
        SchemaError: Version 7.3, which is HDF5; not a Matlab file; several square matrices.
        ArgumentError: A variable that is asked for and that the file has not.
    """
    with path.open("rb") as file:
        head = file.read(128)
    if head.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise SchemaError(
            "a Matlab file of version 7.3, which is HDF5",
            where=path.name,
            fix="save(name, '-v7') in Matlab, or write the matrix as .npz or .csv",
        )
    try:
        stored = io.loadmat(path, chars_as_strings=True)
    except UNREADABLE as error:
        raise SchemaError("not a Matlab file that can be read", where=path.name) from error
    stored = {
        name: value.toarray() if sparse.issparse(value) else value
        for name, value in stored.items()
        if not name.startswith("__")
    }
    names = _names(path, list(stored), arrays)
    if "weights" not in names:
        names["weights"] = _only_square(path, stored, set(names.values()))
    return _contents(path, {part: stored[n] for part, n in names.items()}, list(stored))


def read_tvb(path: Path, arrays: Mapping[str, str]) -> Contents:
    """The zip of The Virtual Brain: `weights.txt`, `centres.txt`, `tract_lengths.txt`.

    Texts of numbers between blanks, packed with bzip2 or not, in a folder or not; a row of
    `centres.txt` is a label and three coordinates. The other texts of such a zip (areas,
    orientations, hemispheres, cortical) are not read. A row of its weights holds what a region
    receives (Sanz Leon et al. 2013, Front Neuroinform 7:10).

    Raises:
        SchemaError: A zip without weights or with several, or one that cannot be unpacked.
    """
    if arrays:
        raise ArgumentError("the texts in a zip have their names: arrays is for .npz and .mat")
    try:
        with zipfile.ZipFile(path) as archive:
            weights = _text_of(archive, path, ("weights",))
            centers = _text_of(archive, path, ("centres", "centers"))
            lengths = _text_of(archive, path, ("tract_lengths", "tracts"))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise SchemaError("not a zip that can be unpacked", where=path.name) from error
    if weights is None:
        raise SchemaError("there is no weights.txt in it", where=path.name)
    labels = places = None
    if centers is not None:
        where, text = centers
        rows = rows_in(text, SPACES)
        labels = [row[0] for row in rows]
        places = numbers_in([row[1:4] for row in rows], where, "centers")
    return Contents(
        weights=_plain(weights, "weights"),
        labels=labels,
        centers=places,
        tract_lengths=None if lengths is None or not lengths[1].strip() else _plain(
            lengths, "tract lengths"
        ),
    )  # fmt: skip


def _plain(found: tuple[str, str], what: str) -> np.ndarray:
    where, text = found
    return numbers_in(rows_in(text, SPACES), where, what)


def _text_of(
    archive: zipfile.ZipFile, path: Path, stems: tuple[str, ...]
) -> tuple[str, str] | None:
    """The one text whose name begins so: where it lies, and what it says."""
    found = []
    for entry in archive.infolist():
        name = PurePosixPath(entry.filename)
        hidden = name.name.startswith(".") or "__MACOSX" in name.parts
        if not entry.is_dir() and not hidden and name.name.lower().startswith(stems):
            found.append(entry)
    if not found:
        return None
    where = f"{path.name}: {found[0].filename}"
    if len(found) > 1:
        names = listed([entry.filename for entry in found])
        raise SchemaError(f"several texts may be the {stems[0]}: {names}", where=path.name)
    if not found[0].filename.lower().endswith((".txt", ".bz2")):
        raise SchemaError("expected a text, .txt or .bz2", where=where)
    if found[0].file_size > LARGEST_TEXT:
        raise SchemaError(f"unpacks to more than {LARGEST_TEXT >> 20} MiB", where=where)
    with archive.open(found[0]) as packed:
        if not found[0].filename.lower().endswith(".bz2"):
            return where, decoded(packed.read(LARGEST_TEXT), where)
        with bz2.BZ2File(packed) as text:
            return where, decoded(text.read(LARGEST_TEXT), where)


def _names(path: Path, stored: list[str], arrays: Mapping[str, str]) -> dict[str, str]:
    """By part of a connectome, the array of the file that holds it."""
    for part, name in arrays.items():
        if part not in PARTS:
            raise ArgumentError(f"a connectome has no part '{part}': there are {listed([*PARTS])}")
        if name not in stored:
            raise ArgumentError(
                f"there is no array '{name}', there are {listed(stored)}", where=path.name
            )
    known = {
        part: name for part, names in PARTS.items() for name in reversed(names) if name in stored
    }
    return known | dict(arrays)


def _only_square(path: Path, stored: dict[str, Any], taken: set[str]) -> str:
    square = [
        name
        for name, value in stored.items()
        if name not in taken
        and isinstance(value, np.ndarray)
        and value.dtype.kind in "fiub"
        and value.ndim == 2
        and value.shape[0] == value.shape[1] > 1
    ]
    if len(square) == 1:
        return square[0]
    found = f"several may be it: {listed(square)}" if square else f"there are {listed([*stored])}"
    raise SchemaError(
        f"there is no variable 'weights', and {found}",
        where=path.name,
        fix="arrays={'weights': ...} names it",
    )


def _contents(path: Path, found: dict[str, Any], stored: list[str]) -> Contents:
    """Arrays as parts of a connectome."""
    if "weights" not in found:
        raise SchemaError(
            f"there is no array 'weights', there are {listed(stored)}",
            where=path.name,
            fix="arrays={'weights': ...} names the one that holds them",
        )
    labels = found.pop("labels", None)
    for part, array in found.items():
        if array.dtype.kind not in "fiub":
            raise SchemaError(f"'{part}' holds {array.dtype}, expected numbers", where=path.name)
        if array.ndim != 2:
            raise SchemaError(
                f"'{part}' has shape {array.shape}, expected rows and columns", where=path.name
            )
    arrays = {part: np.asarray(array, dtype=np.float64) for part, array in found.items()}
    return Contents(
        arrays["weights"],
        None if labels is None else _words(labels),
        arrays.get("centers"),
        arrays.get("tract_lengths"),
    )


def _words(labels: np.ndarray) -> list[str]:
    """Labels, from an array of words or a Matlab cell array of them."""
    found = []
    for label in labels.ravel():
        while isinstance(label, np.ndarray):
            label = label.ravel()[0] if label.size else ""
        if isinstance(label, bytes):
            label = label.decode("utf-8", errors="replace")
        found.append(str(label).strip())
    return found
