import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinode.report.charts import Chart, Dots, Panel, dot_chart, nice_range, nice_ticks, swarm

from .drawn import corners

numbers = st.floats(-1e4, 1e4)


@given(numbers, st.floats(1e-3, 1e4))
def test_ticks_are_round_equally_spaced_and_inside(low, span):
    ticks = nice_ticks(low, low + span)
    assert 1 <= len(ticks) <= 8
    slack = 1e-6 * span
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)
    if len(ticks) > 1:
        np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-6, atol=1e-9)


@given(numbers, st.floats(1e-3, 1e4))
def test_a_widened_range_holds_what_it_was_widened_from(low, span):
    first, last = nice_range(low, low + span)
    slack = 1e-6 * max(span, abs(low))
    assert first <= low + slack
    assert last >= low + span - slack


def test_a_point_lies_where_its_numbers_say_and_outliers_at_the_edge():
    panel = Panel(Chart("c", "t", "d", 100, 100), 10, 20, 90, 80, (0.0, 2.0), (0.0, 1.0))
    assert panel.across(1.0) == pytest.approx(50)
    assert panel.up(0.25) == pytest.approx(65)
    assert (panel.across(7.0), panel.up(-1.0)) == (90, 80)


def test_a_line_breaks_where_a_number_is_missing():
    chart = Chart("c", "t", "d", 100, 100)
    panel = Panel(chart, 0, 0, 100, 100, (0.0, 4.0), (0.0, 1.0))
    panel.line("l1", [0, 1, 2, 3, 4], [0.1, 0.2, math.nan, 0.4, 0.5])
    assert [len(part) for part in corners(chart.marks[0]["d"])] == [2, 2]
    panel.line("l1", [0.0], [math.nan])
    assert len(chart.marks) == 1  # nothing to draw, nothing drawn


@given(st.lists(st.floats(0, 300), min_size=1, max_size=200))
def test_dots_of_a_swarm_stay_in_their_row(values):
    offsets = swarm(values, 4.0, step=2.6, most=12.0)
    assert np.abs(offsets).max() <= 12.0 + 2.6
    assert len(offsets) == len(values)


def test_dots_are_one_path_a_panel_and_rows_without_a_number_stay_empty():
    dots = Dots(title="x", unit="u", value=[0.1, math.nan], low=[0.0, math.nan], high=[0.2, 1.0])
    chart = dot_chart("c", "t", "d", ["first", "second"], [dots, dots])
    points = [mark for mark in chart.marks if mark["style"] == "p"]
    assert [len(corners(mark["d"])) for mark in points] == [1, 1]
    words = [mark["words"] for mark in chart.marks if "words" in mark]
    assert {"first", "second", "x", "u"} <= set(words)
