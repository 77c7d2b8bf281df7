import json

import numpy as np

from clinode.cli.answers import as_json, as_text, broken_table, count, interval, table


def test_a_number_that_does_not_exist_is_null_in_json():
    found = json.loads(as_json({"a": float("nan"), "b": [np.float64(0.5), np.int64(2), None]}))
    assert found == {"a": None, "b": [0.5, 2, None]}


def test_names_from_data_cannot_steer_the_terminal():
    assert as_text(["a\x1b[2Jb\nc"]) == "a\\u001b[2Jb\nc\n"
    lines = table(["name", "rows"], [["evil\x1b]0;x\x07", 3], ["[red]plain[/red]", 4_000]])
    assert "\x1b" not in "".join(lines)
    assert "[red]plain[/red]" in lines[2]


def test_columns_of_numbers_are_aligned_to_the_right_and_nothing_is_cut():
    lines = table(["variable", "rows"], [["x" * 150, 5], ["lactate", 12_345]])
    assert lines[1] == "x" * 150 + "       5"
    assert lines[2].endswith("  12,345")


def test_an_estimate_is_said_with_its_interval_or_that_there_is_none():
    assert interval({"value": 0.87, "low": 0.852, "high": 0.888}) == "0.870 [0.852, 0.888]"
    assert interval({"value": None, "verdict": "undefined: one class"}) == "undefined"


def test_counts_agree_with_their_nouns():
    assert count(1, "subject") == "1 subject"
    assert count(4000, "subject") == "4,000 subjects"


def test_a_table_that_is_too_wide_is_broken_between_columns():
    header = ["", *(f"metric {k}" for k in range(6))]
    rows = [["model", *(f"0.{k} [0.0, 1.0]" for k in range(6))], ["prevalence", *["undefined"] * 6]]
    whole = broken_table(header, rows, None)
    assert whole == broken_table(header, rows, 200)
    assert len(whole) == 3
    for width in (80, 60, 40):
        lines = broken_table(header, rows, width)
        assert max(map(len, lines)) <= width
        assert sum(line.startswith("model") for line in lines) == lines.count("") + 1
        for k in range(6):
            assert sum(f"metric {k}" in line for line in lines) == 1
    assert broken_table(header, rows, 10) == broken_table(header, rows, 25)  # a column stays whole
