"""Conversions: n shards are the unsharded one, again is the same, and half is nothing."""

import hashlib
import os
import signal
import subprocess
import sys
import time

import duckdb
import numpy as np
import pandas as pd
import pytest

from clinode.cohort import Cohort, read_cohort
from clinode.cohort.convert import convert
from clinode.cohort.ledger import Ledger
from clinode.cohort.meds_write import added_up
from clinode.cohort.shard import Shard, whole_number
from clinode.errors import ArgumentError, OutputError, SchemaError
from clinode.folder import read_json

from .test_meds_write import told
from .test_readers_contract import EXAMPLES, events, labels


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def shards(path, out, n, **options):
    return [convert(path, out, shard=Shard(k, n), options=options) for k in range(1, n + 1)]


@pytest.fixture
def stays(tmp_path):
    """Tables that misbehave: rows nobody owns, repeated keys, a category that few have."""
    table, outcome = events(), labels()
    table = table.rename(columns={"subject": "subject_id"}).assign(time=table["minute"] / 60)
    table = table.drop(columns="minute").astype({"subject_id": object, "value": object})
    table.loc[0, "subject_id"], table.loc[1, "value"], table.loc[2, "time"] = None, "high", None
    table = pd.concat([table, table[10:14]])
    folder = tmp_path / "stays"
    folder.mkdir()
    table.to_csv(folder / "observations.csv", index=False)
    outcome.rename(columns={"subject": "subject_id"}).to_csv(folder / "outcomes.csv", index=False)
    statics = pd.DataFrame({"subject_id": np.arange(1, 15), "age": 50.0, "note": "-"})
    statics["note"] = [f"n{k % 3}" if k < 4 else str(k) for k in range(14)]  # text? by all rows
    statics.to_csv(folder / "statics.csv", index=False)
    return folder


@pytest.mark.parametrize("format", sorted(EXAMPLES))
def test_shards_of_every_format_together_are_the_unsharded_conversion(tmp_path, format):
    (tmp_path / "data").mkdir()
    example = EXAMPLES[format](tmp_path / "data", events(), labels())
    path, options = example.pop("path"), example
    parts = shards(path, tmp_path / "two", 2, **options)
    assert [part.is_whole for part in parts] == [False, True]
    whole = convert(path, tmp_path / "one", options=options)
    one, two = (read_cohort(tmp_path / name) for name in ("one", "two"))
    assert told(two) == told(one) == told(read_cohort(path, **options))
    assert added_up([part.ledger for part in parts]) == whole.ledger
    assert whole.ledger.balanced
    assert all(part.ledger.balanced for part in parts)
    assert sum(part.n_subjects for part in parts) == whole.n_subjects == len(one)
    stored = read_json(tmp_path / "two" / "metadata" / "clinode.json")
    assert Ledger.from_dict(stored["ledger"]) == whole.ledger


def test_a_folder_that_clinode_wrote_is_converted_by_shards_as_well(stays, tmp_path):
    convert(stays, tmp_path / "one")
    parts = shards(tmp_path / "one", tmp_path / "two", 2)
    assert sum(part.n_subjects for part in parts) == 14
    assert all(0 < part.n_subjects < 14 for part in parts)
    assert told(read_cohort(tmp_path / "two")) == told(read_cohort(tmp_path / "one"))


def test_what_a_column_is_does_not_depend_on_the_shard(stays, tmp_path):
    parts = shards(stays, tmp_path / "many", 4)
    whole = convert(stays, tmp_path / "one")
    assert told(read_cohort(tmp_path / "many")) == told(read_cohort(tmp_path / "one"))
    assert added_up([part.ledger for part in parts]) == whole.ledger
    assert whole.ledger.rows("observations", "dropped", "no subject") == 1


def test_the_same_shard_again_is_the_same_bytes(stays, tmp_path):
    out, parts = tmp_path / "meds", tmp_path / "meds.unfinished"
    convert(stays, out, shard=Shard(2, 3))
    first = digests(parts / "2")
    convert(stays, out, shard=Shard(2, 3))
    assert digests(parts / "2") == first
    for path in sorted((parts / "2").rglob("*"), reverse=True):
        path.unlink()
    (parts / "2").rmdir()
    convert(stays, out, shard=Shard(2, 3))
    assert digests(parts / "2") == first
    shards(stays, out, 3)
    whole = digests(out)
    assert not parts.exists()
    assert convert(stays, out, shard=Shard(1, 3)).is_whole
    assert digests(out) == whole
    shards(stays, tmp_path / "elsewhere" / "meds", 3)
    assert digests(tmp_path / "elsewhere" / "meds") == whole


def test_a_damaged_shard_is_made_again(stays, tmp_path):
    out, events_of_1 = tmp_path / "meds", tmp_path / "meds.unfinished" / "1" / "events.parquet"
    convert(stays, out, shard=Shard(1, 2))
    first = events_of_1.read_bytes()
    events_of_1.write_bytes(first[:100])
    convert(stays, out, shard=Shard(1, 2))
    assert events_of_1.read_bytes() == first


def test_other_data_options_or_numbers_of_shards_are_refused(stays, tmp_path):
    out = tmp_path / "meds"
    convert(stays, out, shard=Shard(1, 2))
    with pytest.raises(OutputError, match=r"differently.*n_shards"):
        convert(stays, out, shard=Shard(1, 3))
    with pytest.raises(OutputError, match=r"differently.*options"):
        convert(stays, out, shard=Shard(2, 2), options={"time_unit": "min"})
    with (stays / "observations.csv").open("a") as file:
        file.write("1,HR,80,1\n")
    with pytest.raises(OutputError, match=r"differently.*data"):
        convert(stays, out, shard=Shard(2, 2))
    with pytest.raises(ArgumentError, match="within the data"):
        convert(stays, stays / "meds")
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "mine").write_text("")
    with pytest.raises(OutputError, match="not empty"):
        convert(stays, occupied)


def test_ids_written_in_another_way_are_refused_once_all_shards_are_there(stays, tmp_path):
    table = pd.read_csv(stays / "observations.csv")
    table["subject_id"] = table["subject_id"].map("{:.0f}x".format)
    table.to_csv(stays / "observations.csv", index=False)
    with pytest.raises(SchemaError, match="none of the 14 subjects"):
        shards(stays, tmp_path / "meds", 3)
    assert not (tmp_path / "meds").exists()


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_nothing_half_written(stays, tmp_path):
    out = tmp_path / "meds"
    words = [sys.executable, "-m", "clinode", "convert", str(stays), str(out), "--shard"]
    started = time.monotonic()
    subprocess.run([*words, "1/2"], check=True, capture_output=True)
    lasts = time.monotonic() - started
    expected = digests(out.with_name("meds.unfinished") / "1")
    for share in (0.75, 0.9, 0.97):
        again = tmp_path / f"{share}"
        job = subprocess.Popen(
            [*words[:4], str(stays), str(again), "--shard", "1/2"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(share * lasts)
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
        there = again.with_name(f"{share}.unfinished") / "1"
        assert not there.exists() or digests(there) == expected
        convert(stays, again, shard=Shard(1, 2))
        assert digests(there) == expected


def test_python_and_duckdb_share_out_alike():
    ids = ["7-1", "", "é", "17", "long " * 50]
    for number in range(1, 6):
        shard = Shard(number, 5)
        found = [
            duckdb.execute(f"SELECT {shard.condition('?::VARCHAR')}", [name]).fetchall()[0][0]
            for name in [*ids, None]
        ]
        assert found == shard.holds([*ids, None]).tolist()


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ArgumentError, match="shard"):
        Shard.parse(text)


def test_two_ids_on_one_number_are_refused(tmp_path):
    text = next(t for t in (f"p-{k}" for k in range(999)) if len(str(whole_number(t))) <= 18)
    table = pd.DataFrame(
        {"subject_id": [text, str(whole_number(text))], "time": 1.0, "variable": "HR", "value": 80}
    )
    Cohort.from_tables(table).save(tmp_path / "saved")
    with pytest.raises(SchemaError, match="two subjects"):
        convert(tmp_path / "saved", tmp_path / "meds")
    ids = [text, str(whole_number(text))]
    apart = next(n for n in range(2, 99) if Shard(1, n).holds(ids).sum() == 1)
    with pytest.raises(SchemaError, match="two subjects"):
        shards(tmp_path / "saved", tmp_path / "shards", apart)
