"""Conversion of any layout that clinode reads into MEDS, shard by shard.

Each shard is a call of its own, on any machine that sees the data and the output: it reads its
subjects alone, and is there whole or not at all. The call that finds the others there puts the MEDS
folder together. Until then the shards lie in `OUT.unfinished`. The same call again changes no byte;
a call with other data, options or number of shards is refused.
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clinode import __version__
from clinode.cohort import meds_layout as layout
from clinode.cohort.ledger import Ledger
from clinode.cohort.meds_write import KIND, counted, gather, write_shard
from clinode.cohort.names import shown_name
from clinode.cohort.read import detect_format, read_cohort
from clinode.cohort.shard import WHOLE, Shard
from clinode.errors import ArgumentError, CheckpointError, OutputError, SchemaError
from clinode.folder import (
    MANIFEST,
    check_writable,
    read_json,
    verify_folder,
    write_folder,
    write_json,
)

SHARD_KIND = "meds shard"


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a call of `convert` left behind.

    Args:
        out: The MEDS folder.
        shard: That was asked for.
        n_subjects: Of this shard.
        n_events: Of this shard.
        ledger: What became of each row of this shard.
        missing: Shards that are not there yet; when there is none, `out` is whole.
    """

    out: Path
    shard: Shard
    n_subjects: int
    n_events: int
    ledger: Ledger
    missing: tuple[int, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the MEDS folder is there."""
        return not self.missing

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists."""
        return {
            "out": self.out.name,
            "shard": asdict(self.shard),
            "n_subjects": self.n_subjects,
            "n_events": self.n_events,
            "missing": list(self.missing),
            "is_whole": self.is_whole,
            "balanced": self.ledger.balanced,
            "ledger": [
                {**entry, "variable": entry["variable"] and shown_name(entry["variable"])}
                for entry in self.ledger.to_dict()["entries"]
            ],
        }


def convert(
    path: str | Path,
    out: str | Path,
    *,
    shard: Shard = WHOLE,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Conversion:
    """Convert one shard of a data set, and put the MEDS folder together after the last one.

    Args:
        path: What `read_cohort` reads.
        out: The MEDS folder.
        shard: Which of them; the subjects (of stays: the persons) are shared out by their hash.
        name: Of the data set; that of its file or folder if left out.
        options: What `read_cohort` is told about it.

    Raises:
        ArgumentError: `out` lies within the data.
        OutputError: `out` holds something else, or a conversion that was asked for differently.
        SchemaError: The data break their contract, or no subject is there at all.
        ResourceError: The disk is full, or memory ran out.
    """
    source, out, told = Path(path), Path(out).resolve(), dict(options or {})
    if source.is_dir() and out.is_relative_to(source.resolve()):
        raise ArgumentError("the output lies within the data", fix="name a folder beside them")
    call = _describe(source, shard.total, told)
    if not _holds(out, call):
        parts = out.with_name(f"{out.name}.unfinished")
        _open(out, parts, call)
        _carry_out(source, parts, shard, told)
        missing = _missing(parts, shard.total)
        if missing:
            facts = read_json(parts / str(shard.number) / "facts.json")
            return _conversion(out, shard, facts, missing)
        _put_together(parts, out, shard.total, name or source.stem, call)
    facts = read_json(out / layout.FACTS)["shards"][shard.number - 1]
    return _conversion(out, shard, facts, ())


def _describe(source: Path, n_shards: int, told: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two calls parts of one conversion; files count by their bytes, not their place."""
    if not source.exists():
        raise SchemaError("there is no such file or folder", where=source.name, fix="check it")
    said = {
        key: _digest(Path(value)) if isinstance(value, Path) else str(value)
        for key, value in sorted(told.items())
    }
    data = _digest(source)
    options = hashlib.sha256(f"{data}{said}".encode()).hexdigest()  # they may name a subject
    return {"clinode": __version__, "data": data, "n_shards": n_shards, "options": options}


def _digest(place: Path) -> str:
    """SHA-256 over the names and bytes of a file, or of all files of a folder."""
    files = (
        sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    )
    digest = hashlib.sha256()
    for file in files:
        name = file.relative_to(place).as_posix() if place.is_dir() else ""
        with file.open("rb") as content:
            own = hashlib.file_digest(content, "sha256").hexdigest()
        digest.update(f"{name}\n{own}\n".encode())
    return digest.hexdigest()


def _holds(out: Path, call: dict[str, Any]) -> bool:
    """Whether the folder of this very conversion is there, whole.

    Raises:
        OutputError: That of another one is.
        CheckpointError: It was altered.
    """
    if not (out / MANIFEST).is_file() or not (out / layout.FACTS).is_file():
        return False
    verify_folder(out, KIND)
    _refuse_other(out, read_json(out / layout.FACTS).get("call"), call)
    return True


def _open(out: Path, parts: Path, call: dict[str, Any]) -> None:
    """Make the folder of the shards, or enter that of the same conversion."""
    if (parts / "call.json").is_file():
        _refuse_other(parts, read_json(parts / "call.json"), call)
        return
    check_writable(out)
    parts.mkdir(exist_ok=True)
    write_json(parts / "call.json", call)


def _refuse_other(place: Path, found: Any, call: dict[str, Any]) -> None:
    if found == call:
        return
    differing = [key for key in call if not isinstance(found, dict) or found.get(key) != call[key]]
    raise OutputError(
        f"a conversion that was asked for differently stands there ({', '.join(differing)})",
        where=place.name,
        fix="name another folder, or remove that one",
    )


def _carry_out(source: Path, parts: Path, shard: Shard, told: dict[str, Any]) -> None:
    """Read and write one shard, unless it is there."""
    target = parts / str(shard.number)
    if target.is_dir():
        try:
            verify_folder(target, SHARD_KIND)
        except CheckpointError:
            shutil.rmtree(target)  # of ours, and damaged: it is made again
        else:
            return
    cohort = read_cohort(source, shard=shard, **told)
    is_saved = detect_format(source) == "cohort" and told.get("format") in (None, "cohort")
    ledger = counted(cohort) if is_saved else cohort.ledger  # a saved one tells of all its subjects

    def write(draft: Path) -> None:
        write_shard(cohort, draft, ledger)

    try:
        write_folder(target, write, kind=SHARD_KIND)
    except OutputError:
        if not target.is_dir():  # else another process wrote the same shard meanwhile
            raise


def _missing(parts: Path, n_shards: int) -> tuple[int, ...]:
    return tuple(n for n in range(1, n_shards + 1) if not (parts / str(n) / MANIFEST).is_file())


def _put_together(parts: Path, out: Path, n_shards: int, name: str, call: dict[str, Any]) -> None:
    folders = [parts / str(number) for number in range(1, n_shards + 1)]

    def write(draft: Path) -> None:
        for folder in folders:
            verify_folder(folder, SHARD_KIND)
        gather(folders, draft, name=name, call=call)

    try:
        write_folder(out, write, kind=KIND)
    except (OutputError, CheckpointError, FileNotFoundError):
        if not _holds(out, call):  # else another process put it together meanwhile
            raise
    shutil.rmtree(parts, ignore_errors=True)


def _conversion(
    out: Path, shard: Shard, facts: dict[str, Any], missing: tuple[int, ...]
) -> Conversion:
    return Conversion(
        out=out,
        shard=shard,
        n_subjects=facts["n_subjects"],
        n_events=facts["n_events"],
        ledger=Ledger.from_dict(facts["ledger"]),
        missing=missing,
    )
