import csv
import io

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from clinode.spreadsheet import csv_text

TRIGGERS = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠")
ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
likely = st.builds(
    "".join, st.lists(st.sampled_from([*TRIGGERS[:7], *TRIGGERS[8:], "'", "a", ",", '"', " "]))
)
numbers = st.floats(allow_nan=False, allow_infinity=False)


def cells(text):
    return list(csv.reader(io.StringIO(text, newline="")))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(ids | likely, numbers), min_size=1, max_size=6), likely)
def test_no_text_begins_like_a_formula_and_numbers_keep_every_digit(rows, head):
    table = pd.DataFrame(rows, columns=[head + "x", "number"])
    found = cells(csv_text(table))
    assert not [row for row in found if row[0].startswith(TRIGGERS)]
    assert [float(row[1]) for row in found[1:]] == [number for _, number in rows]
    assert len(found) == 1 + len(rows)


@settings(max_examples=150, deadline=None)
@given(st.lists(ids | likely, min_size=1))
def test_one_apostrophe_less_gives_every_text_back(names):
    found = [row[0] for row in cells(csv_text(pd.DataFrame({"name": names, "n": 1.5})))[1:]]
    guarded = [text[:1] == "'" and text.lstrip("'").startswith(TRIGGERS) for text in found]
    assert [text[one:] for text, one in zip(found, guarded, strict=True)] == names


def test_numbers_in_a_column_of_text_are_numbers_and_categories_are_text():
    table = pd.DataFrame({"mixed": [-1.5, "=1+1", None], "kind": pd.Categorical(["@a", "b", "@a"])})
    assert cells(csv_text(table))[1:] == [["-1.5", "'@a"], ["'=1+1", "b"], ["", "'@a"]]


def test_a_carriage_return_inside_of_a_name_begins_no_cell():
    text = csv_text(pd.DataFrame({"name": ["a\r=1+1", "b"], "x": [np.nan, 2.0]}))
    assert '"a\r=1+1"' in text


def test_two_columns_of_one_name_stay_two():
    table = pd.DataFrame([["=1", "=2"]], columns=["a", "a"])
    assert csv_text(table) == "a,a\n'=1,'=2\n"
