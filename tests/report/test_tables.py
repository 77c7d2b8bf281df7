import math

from clinode.cohort.definition import CohortFlow, FlowStep
from clinode.report.data import flow_steps
from clinode.report.tables import interval, told_tables
from clinode.statistics import Estimate


def test_a_result_is_told_as_its_numbers_and_its_lists():
    told = {
        "verdict": "passed",
        "share": {"value": 0.25, "low": 0.2, "high": 0.3, "verdict": "ok"},
        "nothing": math.nan,
        "rows": [{"name": "values", "n": 3}, {"name": "timing", "n": None}],
        "inner": {"passed": True},
    }
    tables = told_tables(told, "Checks")
    assert [t.caption for t in tables] == ["Checks", "Checks: rows", "Checks: inner"]
    assert tables[0].rows == [
        ["verdict", "passed"],
        ["share", "0.250 [0.200, 0.300]"],
        ["nothing", "–"],
    ]
    assert tables[1].rows == [["values", "3"], ["timing", "–"]]
    assert tables[2].rows == [["passed", "yes"]]


def test_the_same_numbers_of_several_things_are_one_table():
    share = {"value": 0.25, "low": 0.2, "high": 0.3, "verdict": "ok"}
    told = {"cohort": {"values": {"share": share, "n": 3}, "timing": {"share": share, "n": 4}}}
    (table,) = told_tables(told, "Kinds")
    assert list(table.columns) == ["Of", "share", "n"]
    assert table.rows == [
        ["values", "0.250 [0.200, 0.300]", "3"],
        ["timing", "0.250 [0.200, 0.300]", "4"],
    ]
    unlike = told_tables({"cohort": {"values": {"n": 3}, "timing": {"m": 4}}}, "Kinds")
    assert [t.caption for t in unlike] == ["Kinds: cohort: values", "Kinds: cohort: timing"]


def test_rows_of_single_subjects_are_left_out():
    told = {"subjects": [{"subject_id": "MRN-1", "share": 0.2}], "n": 1}
    tables = told_tables(told, "Kinds")
    assert [t.caption for t in tables] == ["Kinds"]
    assert "MRN" not in str(tables)


def test_a_hostile_or_endless_text_is_one_short_line():
    tables = told_tables({"name": "a\u202eb\n" + "x" * 10_000}, "Checks")
    text = str(tables[0].rows[0][1])
    assert len(text) <= 200
    assert "\u202e" not in text
    assert "\n" not in text


def test_an_estimate_without_a_value_says_why():
    assert interval(Estimate.undefined("no positives")) == "undefined: no positives"
    assert interval(Estimate(-0.5, math.nan, math.nan, "no interval"), digits=1) == "−0.5"


def flow(*out):
    left, steps = 500, []
    for number, n in enumerate(out):
        left -= n
        steps.append(
            FlowStep(
                rule=f"rule {number}", n_out=n, n_left=left, n_subjects_out=n, n_subjects_left=left
            )
        )
    return CohortFlow(steps=tuple(steps), n_positive=100, n_negative=300, n_unknown=0)


def test_the_flow_of_a_cohort_shows_no_small_step_and_none_by_subtraction():
    steps = flow_steps(flow(0, 40, 3, 60))
    assert [s["out"] for s in steps] == ["0", "not shown", "not shown", "60"]
    assert [s["left"] for s in steps] == ["500", "not shown", "not shown", "397"]


def test_a_flow_without_small_steps_is_shown_whole():
    steps = flow_steps(flow(0, 40, 0, 60))
    assert [s["left"] for s in steps] == ["500", "460", "460", "400"]
