"""Each fault of a file is one typed error that names file, row and column, and no patient."""

import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import clinode.cohort.assembly
from clinode.cohort import read_cohort
from clinode.errors import ClinodeError, SchemaError

GENERATE = [Phase.explicit, Phase.reuse, Phase.generate]  # shrinking a table takes minutes
HEADER = "subject_id,time,variable,value\n"
SECRET = "SECRET-4711"
ROWS = f"{SECRET},0.0,HR,80\n{SECRET},1.0,HR,81\nother,0.5,K,4.1\n"


def csv_file(folder, text, name="obs.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path, **options):
    with pytest.raises(SchemaError) as caught:
        read_cohort(path, **options)
    error = caught.value
    assert SECRET not in str(error)
    assert error.lost == "nothing"
    assert error.exit_code == 3
    assert "\n" not in str(error)
    return error


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "no header"),
        ((HEADER + ROWS).encode("utf-16"), "the file is UTF-16"),
        (b"subject_id,time,variable,val\x00ue\n1,2,HR,3\n", "line 1 holds a NUL byte"),
        (b"subject_id,time,time,value\n1,2,3,4\n", "columns 2 and 3 are both called 'time'"),
        (b"subject_id,,variable,value\n1,2,3,4\n", "column 2 has no name"),
        (b"subject_id,time,=A1,value\n1,2,3,4\n", "column 3 is a spreadsheet formula"),
        (b"subject_id,t\xe9mps,variable,value\n1,2,3,4\n", "byte 12 (line 1) is not UTF-8"),
    ],
)
def test_a_file_without_a_proper_header_is_refused(tmp_path, content, words):
    error = refused(csv_file(tmp_path, content))
    assert words in error.problem
    assert error.where == "obs.csv"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (ROWS + f"{SECRET},1.0,HR\n", "line 5 has 3 cells, expected 4"),
        (ROWS + f"{SECRET},1.0,HR,80,9\n", "line 5 has 5 cells, expected 4"),
        (ROWS + f'{SECRET},1.0,"HR,80\n', "the quotation mark opened in line 5"),
        (ROWS + f"{SECRET},1.0,H\x00R,80\n", "line 5 holds a NUL byte"),
    ],
)
def test_a_broken_row_is_named_by_its_line(tmp_path, rows, words):
    error = refused(csv_file(tmp_path, HEADER + rows))
    assert words in error.problem
    assert error.where == "obs.csv"


def test_bytes_that_are_not_utf8_are_named_by_place(tmp_path):
    content = (HEADER + ROWS).encode() + b"x,1,caf\xe9,3\n"
    error = refused(csv_file(tmp_path, content))
    assert error.problem == f"byte {content.index(0xE9):,} (line 5) is not UTF-8"
    assert "UTF-8" in error.fix


def test_missing_files_and_folders_are_named(tmp_path):
    assert "no such file" in refused(tmp_path / "nothing.csv").problem
    path = csv_file(tmp_path, HEADER + ROWS)
    error = refused(path, statics=tmp_path / "patients.csv")
    assert (error.where, error.problem) == ("patients.csv", "the file is missing")


def test_a_folder_with_nothing_usable_says_what_it_holds(tmp_path):
    assert "the folder holds nothing" in refused(tmp_path).problem
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "first.csv").write_text("x")
    (tmp_path / "second.csv").write_text("x")
    error = refused(tmp_path)
    assert "first.csv, notes.md, second.csv" in error.problem
    assert "read_cohort(" in error.fix


def test_a_folder_of_many_files_is_not_listed_since_names_may_be_ids(tmp_path):
    for k in range(20):
        (tmp_path / f"{SECRET}-{k}.dat").write_text("x")
    assert "20 files (.dat)" in refused(tmp_path).problem


def test_two_tables_that_could_be_one_are_both_named(tmp_path):
    csv_file(tmp_path, HEADER + ROWS, "obs.csv")
    csv_file(tmp_path, HEADER + ROWS, "vitals.csv")
    assert "both obs.csv and vitals.csv could be the observations" in refused(tmp_path).problem


def test_a_kind_of_file_that_is_not_read_is_refused(tmp_path):
    error = refused(csv_file(tmp_path, "x", "obs.xlsx"))
    assert "'.xlsx' is neither of CSV nor of Parquet" in error.problem


def test_a_parquet_file_that_is_truncated_or_none_is_refused(tmp_path):
    path = tmp_path / "obs.parquet"
    generator = np.random.default_rng(0)
    n = 20000
    pd.DataFrame(
        {
            "subject_id": generator.integers(0, 50, n),
            "time": generator.uniform(0, 9, n),
            "variable": "x",
            "value": generator.normal(size=n),
        }
    ).to_parquet(path)
    whole = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        error = refused(path)
        assert error.where == "obs.parquet"
        assert "empty" in error.problem or "truncated" in error.problem
    path.write_bytes(b"PAR1" + b"x" * 100 + b"PAR1")
    assert "truncated" in refused(path).problem


def test_a_compressed_file_that_is_truncated_is_refused(tmp_path):
    whole = gzip.compress((HEADER + ROWS * 2000).encode())
    error = refused(csv_file(tmp_path, whole[: len(whole) // 2], "obs.csv.gz"))
    assert error.where == "obs.csv.gz"
    assert "truncated" in error.problem
    error = refused(csv_file(tmp_path, HEADER + ROWS, "plain.csv.gz"))
    assert "not compressed as its name says" in error.problem


def test_text_in_a_value_column_is_counted_and_strictly_an_error_with_its_row(tmp_path):
    path = csv_file(tmp_path, HEADER + ROWS + f"{SECRET},2.0,HR,high\n")
    cohort = read_cohort(path)
    assert cohort.ledger.rows("observations", "dropped", "not a number") == 1
    error = refused(path, strict=True)
    assert error.problem == "row 4, column 'value': not a number"


def test_a_value_column_of_texts_is_the_wrong_column(tmp_path):
    rows = "".join(f"{SECRET},{k},HR,word{k}\n" for k in range(12))
    error = refused(csv_file(tmp_path, HEADER + rows))
    assert "column 'value' holds text in 12 of 12 rows, expected numbers; first in row 1" in (
        error.problem
    )


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("nan", "NaN"),
        ("NaN", "NaN"),
        ("", "no value"),
        ("NA", "no value"),
        ("inf", "infinite"),
        ("-Infinity", "infinite"),
        ("1e400", "infinite"),
        ("=1+1", "a formula"),
        ("@SUM(A1)", "a formula"),
        ("+cmd", "a formula"),
        ("<0.01", "a bound (< or >)"),
        ("1_000", "not a number"),
        ("１２", "not a number"),
        ('"1,5"', "not a number"),
    ],
)
def test_a_cell_that_is_no_number_is_dropped_by_its_reason(tmp_path, cell, reason):
    path = csv_file(tmp_path, HEADER + ROWS + f"{SECRET},2.0,HR,{cell}\n")
    cohort = read_cohort(path)
    assert cohort.n_observations == 3
    assert cohort.ledger.rows("observations", "dropped", reason) == 1
    assert cohort.ledger.balanced
    assert refused(path, strict=True).problem == f"row 4, column 'value': {reason}"


@pytest.mark.parametrize(
    ("row", "reason", "column"),
    [
        (",2.0,HR,80\n", "no subject", "subject_id"),
        ("=A1,2.0,HR,80\n", "a formula in place of a subject", "subject_id"),
        (f"{SECRET},,HR,80\n", "no time", "time"),
        (f"{SECRET},soon,HR,80\n", "the time is not a number", "time"),
        (f"{SECRET},inf,HR,80\n", "the time is not a number", "time"),
        (f"{SECRET},2.0,,80\n", "no variable name", "variable"),
        (
            f'{SECRET},2.0,"=HYPERLINK(""x"")",80\n',
            "a formula in place of a variable name",
            "variable",
        ),
    ],
)
def test_a_row_without_subject_time_or_name_is_dropped_by_its_reason(tmp_path, row, reason, column):
    path = csv_file(tmp_path, HEADER + ROWS + row)
    cohort = read_cohort(path)
    assert cohort.subjects.tolist() == [SECRET, "other"]
    assert cohort.ledger.rows("observations", "dropped", reason) == 1
    assert cohort.ledger.balanced
    assert refused(path, strict=True).problem == f"row 4, column {column!r}: {reason}"


def test_an_end_that_is_no_number_is_blamed_on_its_column(tmp_path):
    path = csv_file(tmp_path, HEADER + ROWS)
    text = f"subject_id,start,end,drug,rate\n{SECRET},1,2,x,1\n{SECRET},3,soon,x,1\n"
    inputs = csv_file(tmp_path, text, "inputs.csv")
    ledger = read_cohort(path, inputs=inputs).ledger
    assert ledger.rows("inputs", "dropped", "the end is not a number") == 1
    error = refused(path, inputs=inputs, strict=True)
    assert error.problem == "row 2, column 'end': the end is not a number"


def test_formulas_as_names_of_variables_never_enter_the_cohort(tmp_path):
    path = csv_file(tmp_path, HEADER + ROWS + f"{SECRET},2,=cmd,1\n{SECRET},3,@x,1\n")
    names = [variable.name for variable in read_cohort(path).schema.variables]
    assert names == ["HR", "K"]


def test_faults_of_statics_outcomes_and_inputs_name_their_table(tmp_path):
    path = csv_file(tmp_path, HEADER + ROWS)
    statics = csv_file(tmp_path, f"subject_id,age\n{SECRET},old\nother,50\n", "statics.csv")
    cohort = read_cohort(path, statics=statics)
    assert cohort.ledger.rows("statics", "dropped", "not a number") == 1
    error = refused(path, statics=statics, strict=True)
    assert (error.where, error.problem) == ("statics.csv", "row 1, column 'age': not a number")
    formula = csv_file(tmp_path, f"subject_id,age\n{SECRET},70\n=A1,50\n", "statics.csv")
    cohort = read_cohort(path, statics=formula)
    assert cohort.ledger.rows("statics", "dropped", "a formula in place of a subject") == 1
    error = refused(path, statics=formula, strict=True)
    assert error.problem == "row 2, column 'subject_id': a formula in place of a subject"
    outcomes = csv_file(tmp_path, f"subject_id,died\n{SECRET},0\n{SECRET},1\n", "outcomes.csv")
    error = refused(path, outcomes=outcomes)
    assert error.where == "outcomes.csv"
    assert error.problem.startswith("row 2, column 'died'")
    text = f"subject_id,start,end,drug,rate\n{SECRET},1,2,x,1\n{SECRET},3,2,x,1\n"
    inputs = csv_file(tmp_path, text, "inputs.csv")
    assert read_cohort(path, inputs=inputs).ledger.rows("inputs", "dropped") == 1
    error = refused(path, inputs=inputs, strict=True)
    assert error.where == "inputs.csv"
    assert error.problem == "row 2, column 'end': ends before it starts"


def test_files_of_one_table_must_agree(tmp_path):
    one = csv_file(tmp_path, HEADER + ROWS, "a.csv")
    two = csv_file(tmp_path, "subject_id,time,value,variable\n1,2,3,x\n", "b.csv")
    error = refused([one, two])
    assert (error.where, error.problem) == ("b.csv", "the header differs from that of a.csv")
    frame = pd.DataFrame({"subject_id": [1], "time": [0.0], "variable": ["x"], "value": [1.0]})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.assign(value="1").to_parquet(tmp_path / "b.parquet")
    error = refused([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert "column 'value' differs from that of a.parquet" in error.problem


def test_a_failed_reading_leaves_no_folder_behind(tmp_path, monkeypatch):
    made = []

    def remember():
        made.append(folder := tmp_path / "work")
        folder.mkdir()
        return folder

    monkeypatch.setattr(clinode.cohort.assembly, "temporary_folder", remember)
    with pytest.raises(SchemaError):
        read_cohort(csv_file(tmp_path, HEADER + ROWS + "ragged\n"))
    assert made
    assert not made[0].exists()


@settings(
    max_examples=40,
    deadline=None,
    phases=GENERATE,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_no_mutation_of_a_file_escapes_as_anything_but_our_errors(data, tmp_path):
    whole = bytearray((HEADER + ROWS * 3).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        place = data.draw(st.integers(0, max(0, len(whole) - 1)))
        if kind == "flip" and whole:
            whole[place] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del whole[place : place + data.draw(st.integers(1, 20))]
        else:
            whole[place:place] = data.draw(
                st.sampled_from([b'"', b"\x00", b"\n", b",", b"\xff", b"=1"])
            )
    path = csv_file(tmp_path, bytes(whole), "mutated.csv")
    outcome = outcome_of(path)
    if isinstance(outcome, ClinodeError):
        assert SECRET not in str(outcome)
    else:
        assert outcome.ledger.balanced
        assert np.isfinite(outcome.arrays().value).all()


def outcome_of(path):
    try:
        return read_cohort(path)
    except ClinodeError as error:
        return error


def test_a_header_without_a_row_is_an_empty_table(tmp_path):
    assert refused(csv_file(tmp_path, HEADER)).problem == "there is a header and no row"


def test_an_index_that_pandas_wrote_is_explained(tmp_path):
    error = refused(csv_file(tmp_path, "," + HEADER + "0," + ROWS))
    assert error.problem == "column 1 has no name"
    assert "to_csv(index=False)" in error.fix
