import csv

import pandas as pd
import pytest

from clinode.cli.tables import write_table
from clinode.errors import ArgumentError

TABLE = pd.DataFrame(
    {
        "subject_id": ["=1+1", "+cmd|' /C calc'!A0", "@x", "\tx", "＝1", "plain, with comma"],
        "logit": [-1.5, 0.1 + 0.2, 1e-300, -0.0, 3.0, 1 / 3],
    }
)


def test_text_that_a_spreadsheet_would_run_is_quoted_and_numbers_keep_every_digit(tmp_path):
    write_table(TABLE.rename(columns={"logit": "-logit"}), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["subject_id", "'-logit"]
    assert [row[0][0] for row in rows] == ["'", "'", "'", "'", "'", "p"]
    assert [float(row[1]) for row in rows] == TABLE["logit"].tolist()


def test_parquet_comes_back_as_it_was(tmp_path):
    write_table(TABLE, tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), TABLE)


def test_values_of_measured_and_of_categorical_quantities_share_a_column_of_parquet(tmp_path):
    mixed = pd.DataFrame({"value": pd.Series([0.1 + 0.2, "B", None, 3], dtype=object)})
    write_table(mixed, tmp_path / "a.parquet")
    found = pd.read_parquet(tmp_path / "a.parquet")["value"]
    assert found.isna().tolist() == [False, False, True, False]
    assert found.dropna().tolist() == ["0.30000000000000004", "B", "3"]


def test_another_ending_is_refused_in_words(tmp_path):
    with pytest.raises(ArgumentError, match=r"ends in \.csv or \.parquet"):
        write_table(TABLE, tmp_path / "a.xlsx")
    assert list(tmp_path.iterdir()) == []
