"""The official text layout of the PhysioNet/CinC Challenge 2012.

One file a stay, named by its RecordID, with the lines "Time,Parameter,Value" and times as hh:mm;
the outcomes of a set stand in Outcomes-a.txt beside its folder. Descriptors stand at 00:00 among
the measurements; -1 marks what is missing (Silva et al., Computing in Cardiology 2012;39:245-248).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from clinode.cohort.assembly import Parts
from clinode.cohort.policy import Policy
from clinode.cohort.schema import Variable, plain_name
from clinode.cohort.shard import WHOLE, Shard
from clinode.cohort.sources import (
    BUFFER_BYTES,
    LONGEST_LINE,
    Source,
    first_row,
    literal,
    open_source,
    read_header,
    reading,
)
from clinode.cohort.staging import CLOCK, stage_long
from clinode.cohort.subject_tables import Cells, read_cells
from clinode.cohort.variables import OUTCOMES
from clinode.errors import SchemaError

HEADER = ["Time", "Parameter", "Value"]
NINETY_DAYS = 90.0

_RECORD = re.compile(r"[0-9]+\.txt")
_OUTCOME_NAMES = {
    plain_name(name): name
    for name in ("saps_i", "sofa", "length_of_stay", "survival", "in_hospital_death")
}


def is_physionet2012(folder: Path) -> bool:
    """Whether a folder, or a folder in it, holds files named like records."""
    if not folder.is_dir():
        return False
    places = [folder, *sorted(place for place in folder.iterdir() if place.is_dir())]
    return any(_RECORD.fullmatch(path.name) for place in places for path in place.iterdir())


def are_p12_outcomes(table: Source | Cells) -> bool:
    """Whether the five outcome columns of the challenge are there, however they are written."""
    return set(_OUTCOME_NAMES) <= {plain_name(name) for name in table.columns}


def p12_outcomes(table: Source) -> dict[str, Variable]:
    """The known outcomes, by the names that a table gives them."""
    named = {name: _OUTCOME_NAMES.get(plain_name(name)) for name in table.columns}
    return {name: OUTCOMES[known] for name, known in named.items() if known is not None}


def stage_physionet2012(
    connection: duckdb.DuckDBPyConnection,
    folders: Sequence[Path],
    outcomes: Any = None,
    *,
    policy: Policy,
    shard: Shard = WHOLE,
) -> Parts:
    """Stage the records of one or several sets.

    Args:
        connection: Where the staged tables are made.
        folders: Folders of records, or folders that hold such folders.
        outcomes: Outcome files, where they do not stand in or beside the folders.
        policy: Missing tokens, sentinels.
        shard: Which records are taken.

    Raises:
        SchemaError: A record has another header, or its RecordID is not the name of its file. No
            message names a file, since the name is an identifier: it is counted in order of names.
    """
    files = sorted({file for folder in folders for file in _records(folder)}, key=_order)
    if not files:
        raise SchemaError("there is no file named RecordID.txt", where=folders[0].name)
    if len({file.name for file in files}) < len(files):
        raise SchemaError("two files are named by the same RecordID", where=folders[0].name)
    labels = [f"record {n:,} of {len(files):,}, by name" for n in range(1, len(files) + 1)]
    for file, label in zip(files, labels, strict=True):
        if file.stat().st_size == 0:
            raise SchemaError("the file is empty", where=label, fix="copy it again")
        if read_header(file, label) != (HEADER, ","):
            raise SchemaError(
                f"the header is not {','.join(HEADER)}", where=label, fix="copy the file again"
            )
    listed = ", ".join(literal(str(file)) for file in files)
    relation = (
        "(SELECT regexp_extract(filename, '([0-9]+)[.]txt$', 1) AS RecordID, Time, Parameter, "
        f"Value FROM read_csv([{listed}], auto_detect=false, header=true, filename=true, "
        "delim=',', quote='\"', escape='\"', strict_mode=true, null_padding=false, nullstr='', "
        f"max_line_size={LONGEST_LINE}, buffer_size={BUFFER_BYTES}, "
        "columns={'Time': 'VARCHAR', 'Parameter': 'VARCHAR', 'Value': 'VARCHAR'}))"
    )
    name = folders[0].name if len(folders) == 1 else f"{folders[0].name} and others"
    columns = dict.fromkeys(("RecordID", *HEADER), "VARCHAR")
    source = Source(name, relation, columns, tuple(files), ",", tuple(labels), tuple(HEADER))
    source = shard.of(source, "RecordID")
    roles = {"subject": "RecordID", "time": "Time", "variable": "Parameter", "value": "Value"}
    staged = stage_long(
        connection, source, "staged_observations", roles, policy=policy, time_unit=CLOCK
    )
    _check_record_ids(connection, staged.name, name)
    parts = Parts(observations=[staged], source={"format": "physionet2012", "files": [name]})
    parts.statics = _admission_weight(connection, staged.name, policy)
    tables = outcomes if outcomes is not None else _outcome_files(folders)
    if outcomes is not None or tables:
        opened = open_source(connection, tables, "outcomes", view="outcomes")
        subject = next(c for c in opened.columns if plain_name(c) == "recordid")
        parts.outcomes = read_cells(
            connection,
            opened,
            "outcomes",
            subject,
            policy,
            declared=p12_outcomes(opened),
            shard=shard,
        )
        parts.derive = add_death_within_90_days
    return parts


def add_death_within_90_days(outcomes: Cells) -> None:
    """Name the outcomes as the table of variables does, derive one, and put the challenge's last.

    died_within_90_days is 1 where a death is recorded at most 90 days after admission; `survival`
    is empty where none is recorded.
    """
    named = dict(outcomes.columns)
    survival = named["survival"]
    named["died_within_90_days"] = (np.nan_to_num(survival, nan=np.inf) <= NINETY_DAYS).astype(
        float
    )
    last = named.pop("in_hospital_death")
    outcomes.columns = {**named, "in_hospital_death": last}


def _records(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SchemaError("there is no such folder", where=folder.name, fix="check the path")
    places = [folder, *(place for place in folder.iterdir() if place.is_dir())]
    return [p for place in places for p in place.iterdir() if _RECORD.fullmatch(p.name)]


def _order(file: Path) -> tuple[int, str]:
    return int(file.stem), str(file)


def _outcome_files(folders: Sequence[Path]) -> list[Path]:
    """Outcomes-x.txt in a folder, in the folders in it, or beside a folder named set-x."""
    found: set[Path] = set()
    for folder in folders:
        here = {*folder.glob("Outcomes-*.txt"), *folder.glob("*/Outcomes-*.txt")}
        beside = folder.parent / f"Outcomes-{folder.name.rsplit('-', 1)[-1]}.txt"
        found |= here or ({beside} if beside.is_file() else set())
    return sorted(found)


def _check_record_ids(connection: duckdb.DuckDBPyConnection, staged: str, name: str) -> None:
    count = first_row(
        connection,
        f"SELECT count(*) FROM {staged} WHERE variable = 'RecordID' "
        f"AND value IS DISTINCT FROM TRY_CAST(subject AS DOUBLE)",
    )[0]
    if count:
        raise SchemaError(
            f"the RecordID of {count:,} records is not the name of their file",
            where=name,
            fix="copy the files again",
        )


def _admission_weight(connection: duckdb.DuckDBPyConnection, staged: str, policy: Policy) -> Cells:
    """The weight at 00:00, which is a descriptor although weight is measured again later."""
    with reading():
        frame = connection.execute(
            f"SELECT subject, value AS weight FROM {staged} "
            f"WHERE variable = 'Weight' AND time = 0 AND subject IS NOT NULL ORDER BY ALL"
        ).df()
    source = open_source(connection, frame, "records", view="admission_weight")
    return read_cells(connection, source, "statics", "subject", policy)
