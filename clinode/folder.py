"""Folders that are written whole or not at all, and read only when nothing in them changed.

A cohort, a run and a report are folders. `write_folder` fills a hidden sibling, adds
`manifest.json` (size and SHA-256 of every file), flushes all of it to the disk and renames it into
place, so a crash, a full disk or a kill at any moment leaves the old state or the new one.
`verify_folder` is the only door back in. What the files mean is the business of their room.

Assumes a file system with an atomic rename (every local one, and NFS). Two writers of one target do
not wait for each other: the first to finish wins and the other is told, unless it may replace.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from clinode import __version__
from clinode.errors import CheckpointError, OutputError, ResourceError

FORMAT = 1
MANIFEST = "manifest.json"

_THIS_PROCESS = secrets.token_hex(4)  # process numbers come again after a restart, this does not
_DISK_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
_DISK_FULL_IN_WORDS = (
    "No space left on device",
    "File too large",
    "not enough space on the disk",
    "(os error 28)",
)


def write_folder(
    target: Path | str, writer: Callable[[Path], None], *, kind: str, replace: bool = False
) -> None:
    """Write a folder whole or not at all.

    Args:
        target: Where the folder will be; its parents are made.
        writer: Fills an empty folder whose path it gets. What it raises is passed on.
        kind: What the folder is ("cohort", "run", ...), written into its manifest.
        replace: Whether a folder of the same kind may be replaced. Anything else that stands at
            `target` is never touched.

    Raises:
        OutputError: The place cannot be written to, or is occupied; found before `writer` runs.
        ResourceError: The disk is full or failed. What stood at `target` still stands.
    """
    target = check_writable(target, kind=kind, replace=replace)
    draft = target.with_name(_private_name(target, "tmp"))
    with _disk_errors(target):
        try:
            draft.mkdir()
            writer(draft)
            _write_manifest(draft, kind)
            for path in [*draft.rglob("*"), draft]:
                _flush(path)
            _put_in_place(draft, target, replace)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def verify_folder(path: Path | str, kind: str | None = None) -> dict[str, Any]:
    """Check every file of a folder against its manifest, and return the manifest.

    Files that the manifest does not list are not looked at. Without `kind` any kind will do.

    Raises:
        CheckpointError: There is no such folder, it is of another kind or from a newer format, or
            a file of it is missing, truncated or altered; the file is named.
    """
    path = Path(path)
    _recover(path)
    manifest = _read_manifest(path)
    if kind is not None and manifest["kind"] != kind:
        raise CheckpointError(
            f"expected a {kind}, found a {manifest['kind']}", where=path.name, fix=f"name a {kind}"
        )
    for name, expected in manifest["files"].items():
        file = path / name
        where = f"{path.name}/{name}"
        fix = "restore it from a copy, or make the folder again"
        if not file.is_file():
            raise CheckpointError("the file is missing", where=where, fix=fix)
        if (size := file.stat().st_size) != expected["bytes"]:
            problem = f"the file is truncated or altered ({size:,} of {expected['bytes']:,} bytes)"
            raise CheckpointError(problem, where=where, fix=fix)
        if _sha256(file) != expected["sha256"]:
            problem = "the file is altered (its SHA-256 is not the one in the manifest)"
            raise CheckpointError(problem, where=where, fix=fix)
    return manifest


def check_writable(target: Path | str, *, kind: str | None = None, replace: bool = False) -> Path:
    """Find out, before any work is done, whether a folder can be written at a place.

    Returns:
        The place, with its parents made and symbolic links resolved.

    Raises:
        OutputError: It is occupied (by anything but an empty folder or, with `replace`, a folder
            of the same kind), or its parent cannot be written to.
        ResourceError: The disk is full.
    """
    target = Path(target).resolve()
    _recover(target)
    if target.exists() and not target.is_dir():
        raise OutputError("a file stands there", where=target.name, fix="name another folder")
    if target.is_dir() and any(target.iterdir()):
        _check_replaceable(target, kind, replace)
    check_place(target)
    _sweep(target)
    return target


def check_place(path: Path | str) -> None:
    """Find out, before any work is done, whether anything can be written beside a path.

    Raises:
        OutputError: The parent, which is made if need be, cannot be written to.
        ResourceError: The disk is full.
    """
    path = Path(path).resolve()
    trial = path.with_name(_private_name(path, "tmp"))
    try:
        with _disk_errors(path):
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
            trial.mkdir()
            trial.rmdir()
    except (FileNotFoundError, FileExistsError, NotADirectoryError):
        raise OutputError(
            "no folder can be made there", where=path.name, fix="check the path"
        ) from None


def atomic_write(path: Path | str, content: bytes | str) -> None:
    """Write one file whole or not at all; text is written as UTF-8 with the newlines it has.

    Raises:
        OutputError: The file's folder cannot be written to.
        ResourceError: The disk is full or failed. What stood there still stands.
    """
    path = Path(path).resolve()
    draft = path.with_name(_private_name(path, "tmp"))
    with _disk_errors(path):
        try:
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
            _flush(draft)
            os.replace(draft, path)
            _flush(path.parent)
        finally:
            draft.unlink(missing_ok=True)


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically: keys sorted, NaN and infinity refused (ValueError), newline last."""
    atomic_write(path, _json_text(value))


def read_json(path: Path | str) -> Any:
    """Read JSON strictly: UTF-8, no repeated key, no NaN.

    Raises:
        CheckpointError: The file is missing, or is not such JSON; its line is named.
    """
    path = Path(path)
    try:
        return _parse_json(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError("the file is missing", where=path.name) from None
    except json.JSONDecodeError as error:
        problem = f"not valid JSON at line {error.lineno}, column {error.colno}"
        raise CheckpointError(problem, where=path.name) from None
    except ValueError as error:
        raise CheckpointError(f"not valid JSON: {error}", where=path.name) from None


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception says that the disk is full.

    Libraries that write files say so by exceptions of their own, so besides `errno` their words
    are read.
    """
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return True
    return any(words in str(error) for words in _DISK_FULL_IN_WORDS)


class _disk_errors:
    """Turns a full disk, a failing one and a missing permission into errors of ours."""

    def __init__(self, target: Path):
        self.target = target

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        number = error.errno if isinstance(error, OSError) else None
        if is_disk_full(error):
            raise ResourceError(
                "the disk is full", where=self.target.name, fix="free some space and run it again"
            ) from None
        if number == errno.EIO:
            raise ResourceError(
                "the disk failed while writing", where=self.target.name, fix="use another disk"
            ) from None
        if number in _NOT_ALLOWED:
            raise OutputError(
                "writing there is not allowed (read-only, or another owner)",
                where=self.target.name,
                fix="name a folder that you may write to",
            ) from None


def _check_replaceable(target: Path, kind: str | None, replace: bool) -> None:
    other = OutputError(
        "the folder is not empty", where=target.name, fix="name another one, or empty it"
    )
    if not replace:
        raise other
    try:
        found = _read_manifest(target)["kind"]
    except CheckpointError:
        raise other from None
    if found != kind:
        raise OutputError(
            f"a {found} stands there, not a {kind}", where=target.name, fix="name another folder"
        )


def _put_in_place(draft: Path, target: Path, replace: bool) -> None:
    """Rename the finished draft over the target.

    A folder cannot be renamed over a full one, so an old state steps aside first; a kill between
    the two renames is mended by `_recover`.
    """
    old = target.with_name(_private_name(target, "old"))
    try:
        if target.is_dir() and replace:
            os.rename(target, old)
        elif target.is_dir():
            target.rmdir()
        os.rename(draft, target)
    except OSError as error:
        if not target.exists() and old.is_dir():
            os.rename(old, target)
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            raise OutputError(
                "another process wrote this folder meanwhile",
                where=target.name,
                fix="name another folder",
            ) from None
        raise
    try:
        _flush(target.parent)
    except OSError:  # the new name may not be on the disk: back to the state that surely is
        os.rename(target, draft)
        if old.is_dir():
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _recover(target: Path) -> None:
    """Put an old state back that a killed writer had moved aside."""
    if target.exists() or not target.parent.is_dir():
        return
    for old in _left_behind(target, "old"):
        if _writer(old) != "alive":
            with _disk_errors(target):
                os.rename(old, target)
            return


def _sweep(target: Path) -> None:
    """Remove what killed writers of this target left behind."""
    for path in [*_left_behind(target, "tmp"), *_left_behind(target, "old")]:
        if _writer(path) == "gone":
            shutil.rmtree(path, ignore_errors=True)


def _private_name(target: Path, word: str) -> str:
    """The name of a hidden sibling that tells which process of which machine made it."""
    owner = f"{_machine()}-{os.getpid()}-{_THIS_PROCESS}"
    return f".{target.name}.{word}-{owner}-{secrets.token_hex(4)}"


def _left_behind(target: Path, word: str) -> list[Path]:
    prefix = f".{target.name}.{word}-"
    return sorted(path for path in target.parent.iterdir() if path.name.startswith(prefix))


def _writer(path: Path) -> str:
    """Whether the process that made a hidden sibling is "alive", "gone", or "unknown"."""
    parts = path.name.split("-")[-4:]
    if len(parts) < 4 or parts[0] != _machine() or not parts[1].isdecimal():
        return "unknown"
    process = int(parts[1])
    if process == os.getpid():
        return "alive" if parts[2] == _THIS_PROCESS else "gone"
    if os.name == "nt":  # os.kill(process, 0) would end it there
        return "unknown"
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return "gone"
    except PermissionError:
        pass
    return "alive"


def _machine() -> str:
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()


def _write_manifest(folder: Path, kind: str) -> None:
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": _sha256(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {"kind": kind, "format": FORMAT, "clinode": __version__, "files": files}
    manifest["sha256"] = hashlib.sha256(_json_text(manifest).encode()).hexdigest()
    (folder / MANIFEST).write_bytes(_json_text(manifest).encode())


def _read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a folder, trusted: its own SHA-256 is right and its names stay inside."""
    where = f"{path.name}/{MANIFEST}"
    altered = CheckpointError(
        "the manifest is truncated or altered", where=where, fix="restore the folder from a copy"
    )
    if not path.is_dir():
        raise CheckpointError("there is no such folder", where=path.name, fix="check the path")
    try:
        raw = (path / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(
            "the folder was not written by clinode (it has no manifest)",
            where=path.name,
            fix="name a folder that clinode wrote",
        ) from None
    try:
        manifest = _parse_json(raw)
    except ValueError:
        raise altered from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise altered
    if manifest["format"] > FORMAT:
        raise CheckpointError(
            f"written in format {manifest['format']}, newer than clinode {__version__} knows",
            where=where,
            fix="upgrade clinode",
        )
    seal = manifest.pop("sha256", None)
    if seal != hashlib.sha256(_json_text(manifest).encode()).hexdigest():
        raise altered
    if _json_text({**manifest, "sha256": seal}).encode() != raw:
        raise altered
    for name in manifest["files"]:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise altered
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Have the operating system put a file, or the names in a folder, on the disk now.

    Windows flushes only what is open for writing, and no folders.
    """
    if path.is_dir():
        if os.name == "nt":
            return
        mode = os.O_RDONLY
    else:
        mode = os.O_RDWR if os.name == "nt" else os.O_RDONLY
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _json_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, indent=2, ensure_ascii=False) + "\n"


def _parse_json(raw: bytes) -> Any:
    def refuse_constant(name: str) -> None:
        raise ValueError(f"{name} is not a number of JSON")

    def refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key is repeated")
        return dict(pairs)

    try:
        return json.loads(
            raw.decode(), parse_constant=refuse_constant, object_pairs_hook=refuse_repeats
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
