"""The page of one subject: forecasts, tasks, ensembles, second opinions, single changes."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from clinode.cohort import Variable
from clinode.report.answers import Answer, _apart
from clinode.report.fan import HISTORY, LEFT, RIGHT, Fans, subject_fans
from clinode.report.opinions import (
    KINDS,
    changes_table,
    kinds_of_subject,
    member_ranges,
    opinions_table,
)
from clinode.report.rendering import page_environment
from clinode.report.subject import Beside, subject_page
from clinode.report.tables import Table
from clinode.report.wording import LIMITS

from .drawn import corners

LACTATE = Variable(name="Lactate", label="Lactate", unit="mmol/L", normal=(0.5, 2.0))


def history(times, values, name="Lactate"):
    return pd.DataFrame({"time": times, "variable": name, "value": values})


def fans(times, value, half=(0.2, 0.6), name="Lactate", has_interval=True):
    times, value = np.asarray(times, dtype=float), np.asarray(value, dtype=float)
    inner, outer = half if has_interval else (np.nan, np.nan)
    ahead = pd.DataFrame(
        {
            "subject_id": 1,
            "time": times,
            "variable": name,
            "value": value,
            "low50": value - inner,
            "high50": value + inner,
            "low90": value - outer,
            "high90": value + outer,
        }
    )
    return Fans(
        ahead=ahead, history=HISTORY * 12.0, horizon=12.0, has_interval=has_interval, words="words"
    )


def drawn(found, style):
    return [mark["d"] for mark in found["charts"][0].marks if mark.get("style") == style]


def places(d):
    return [corner for part in corners(d) for corner in dict.fromkeys(part)]  # a dot ends at once


def test_a_fan_runs_from_the_measurements_to_the_horizon_and_higher_is_higher():
    found = subject_fans(
        fans([54.0, 60.0], [2.0, 3.0]), fans([54.0, 60.0], [2.0, 3.0]).ahead,
        history([24.0, 47.0], [1.0, 2.0]), 48.0, {"Lactate": LACTATE},
    )  # fmt: skip
    (line,) = drawn(found, "l1")
    (first, at_first), (last, at_last) = places(line)
    assert last == pytest.approx(RIGHT)
    assert at_last < at_first  # 3 stands above 2
    (dots,) = drawn(found, "dot")
    times = sorted(x for x, _ in places(dots))
    begin, end = 24.0, 60.0  # the first measurement lies within three horizons
    expected = [LEFT + (RIGHT - LEFT) * (t - begin) / (end - begin) for t in (24.0, 47.0)]
    assert times == pytest.approx(expected, abs=0.51)
    assert first == pytest.approx(LEFT + (RIGHT - LEFT) * 30 / 36, abs=0.06)


def test_the_inner_band_lies_within_the_outer_one():
    own = fans([54.0, 60.0], [2.0, 3.0])
    found = subject_fans(own, own.ahead, history([40.0], [1.0]), 48.0, {})
    outer, inner = drawn(found, "band")
    heights = [[y for _, y in places(d)] for d in (outer, inner)]
    assert min(heights[0]) < min(heights[1])
    assert max(heights[0]) > max(heights[1])


def test_a_course_without_an_interval_draws_no_band_and_tells_none():
    own = fans([54.0, 60.0], [2.0, 3.0], has_interval=False)
    found = subject_fans(own, own.ahead, history([40.0], [1.0]), 48.0, {})
    assert drawn(found, "band") == []
    assert "nan" not in found["charts"][0].title
    assert [list(row) for row in found["table"].rows] == [["Lactate", "2.00", "3.00"]]


def test_only_measured_variables_have_a_fan_and_the_explained_one_comes_first():
    both = [fans([54.0], [2.0], name=n).ahead for n in ("HR", "Lactate", "pH")]
    own = replace(fans([54.0], [2.0]), ahead=pd.concat(both))
    seen = pd.concat([history([40.0], [80.0], "HR"), history([41.0], [1.0])])
    found = subject_fans(own, own.ahead, seen, 48.0, {"Lactate": LACTATE}, "Lactate")
    names = [chart.title.partition(":")[0] for chart in found["charts"]]
    assert names == ["Lactate (mmol/L)", "HR"]
    assert subject_fans(own, own.ahead, seen.head(0), 48.0, {}) is None


def test_what_lies_long_before_is_left_out_of_the_picture():
    own = fans([54.0, 60.0], [2.0, 3.0])
    found = subject_fans(own, own.ahead, history([0.0, 40.0], [99.0, 1.0]), 48.0, {})
    (dots,) = drawn(found, "dot")
    assert len(places(dots)) == 1
    assert 48.0 - own.history > 0.0


def events(attributions, names=None, times=None):
    n = len(attributions)
    return pd.DataFrame(
        {
            "kind": "observation",
            "time": np.arange(n, dtype=float) if times is None else times,
            "variable": names or [f"v{k}" for k in range(n)],
            "value": 1.0,
            "attribution": attributions,
        }
    )


def test_the_range_of_an_event_is_that_of_the_same_event_of_each_member():
    shown = events([0.5, -0.2], names=["HR", "HR"], times=[2.0, 2.0])  # told apart by their order
    members = [
        events([0.4, -0.3], names=["HR", "HR"], times=[2.0, 2.0]),
        events([0.6, 0.1], names=["HR", "HR"], times=[2.0, 2.0]),
        shown.head(0),  # withheld
    ]
    low, high, n = member_ranges(shown, members)
    assert n == 2
    np.testing.assert_allclose(low, [0.4, -0.3])
    np.testing.assert_allclose(high, [0.6, 0.1])
    assert member_ranges(shown, [shown.head(0)]) is None


def map_of(method="integrated_gradients", baseline="cohort_mean"):
    from clinode.attribution import Attributions

    empty = pd.DataFrame()
    return Attributions(events=empty, gates=empty, method=method, baseline=baseline,
                        outcome="died", tolerance=0.01)  # fmt: skip


def test_agreement_counts_shared_variables_and_their_directions():
    first = events([5.0, -4.0, 3.0, -2.0, 1.0, 0.1])
    other = events([5.0, 4.0, 3.0, -2.0, 0.05, 1.0])  # v1 turned round; v4 gave way to v5
    found = opinions_table([(map_of(), first), (map_of(baseline="carry"), other)], {})
    assert list(found["table"].rows[1][2:]) == ["4 of 5", "3 of 4"]
    same = opinions_table([(map_of(), first), (map_of("saliency"), first)], {})
    assert same["words"].startswith("The ways agree on most")
    opposite = first.assign(attribution=-first["attribution"])
    apart = opinions_table([(map_of(), first), (map_of("saliency"), opposite)], {})
    assert apart["words"].startswith("The ways disagree")
    assert opinions_table([(map_of(), first)], {}) is None


def test_a_subject_without_another_map_says_so():
    first = events([1.0])
    found = opinions_table([(map_of(), first), (map_of("saliency"), first.head(0))], {})
    assert found["table"].rows[1][1] == "no map of this subject"


def test_shares_of_the_kinds_are_of_all_that_moved():
    row = {"values": 0.6, "ordering": -0.3, "timing": 0.1}
    row |= {f"{name}_error": 0.01 for name in KINDS}
    words = kinds_of_subject(row, "log-odds", "the mean")["words"]
    assert re.findall(r"(\d+) %", words) == ["60", "30", "10"]
    still = kinds_of_subject(dict.fromkeys(row, 0.0), "log-odds", "the mean")
    assert still["words"] == "Nothing moved the output of this record."


def test_a_subject_that_no_single_value_takes_over_the_threshold_is_told_so():
    found = changes_table(pd.DataFrame(), 0.3, {})
    assert found["table"] is None
    assert "30 %" in found["words"]


def test_labels_of_curves_do_not_lie_upon_each_other():
    rng = np.random.default_rng(0)
    for _ in range(20):
        places = rng.uniform(0, 30, size=4).tolist()
        moved = sorted(_apart(places))
        assert np.diff(moved).min() >= 15.0 - 1e-9


def crowded(n_variables=36, n_points=1000):
    rng = np.random.default_rng(0)
    names = [f"measured quantity {k}" for k in range(n_variables)]
    variables = {
        n: Variable(name=n, label=n.capitalize(), unit="mmol/L", normal=(0.5, 2.0)) for n in names
    }
    which = np.concatenate([np.arange(n_variables), rng.integers(n_variables, size=n_points)])
    table = events(
        rng.normal(size=n_points), names=[names[k] for k in which[:n_points]],
        times=np.sort(rng.uniform(0, 48, n_points)),
    ).assign(subject_id=1, value=rng.normal(5, 2, n_points), end=np.nan)  # fmt: skip
    hours_ = np.arange(2.0, 13.0, 2.0) + 48.0
    own = [fans(hours_, rng.normal(5, 2, len(hours_)), name=n).ahead for n in names]
    ahead = replace(fans([54.0], [1.0]), history=48.0, ahead=pd.concat(own, ignore_index=True))
    return table, variables, ahead


def test_a_page_of_36_variables_and_1000_points_stays_under_300_kilobytes():
    table, variables, ahead = crowded()
    gate = {"withheld": False, "why": "", "gap": 0.001, "prediction_time": 48.0}
    found = map_of()
    beside = Beside(
        fans=subject_fans(ahead, ahead.ahead, table, 48.0, variables),
        members=[table] * 5,
        others=[(map_of(baseline="carry"), table)],
    )
    answer = Answer(headline="12 %", words="words", worked="worked", spread="spread")
    page = subject_page(
        attributions=found, events=table, gate=gate, answer=answer, beside=beside,
        variables=variables, known=list(variables), seen=list(table["variable"]), scored=None,
    )  # fmt: skip
    environment = page_environment()
    html = environment.get_template("subject.html").render(
        **page, ordinal="#0001", outcome="died", baseline="the mean", limits=LIMITS,
        provenance=Table("p", [], []), here="",
        style=environment.get_template("style.css").render(),
    )  # fmt: skip
    assert len(beside.fans["charts"]) == len(variables)
    assert len(html.encode()) < 300_000
