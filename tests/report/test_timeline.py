import numpy as np
import pandas as pd
import pytest

from clinode.cohort import Variable
from clinode.report.timeline import LEFT, MOST_MARKS, RIGHT, TITLED_MARKS, label, timeline

from .drawn import corners

LACTATE = Variable(name="Lactate", label="Lactate", unit="mmol/L", normal=(0.5, 2.0))


def events(times, values, attributions, name="Lactate"):
    return pd.DataFrame(
        {
            "subject_id": 1,
            "kind": "observation",
            "time": times,
            "variable": name,
            "value": values,
            "attribution": attributions,
            "end": np.nan,
        }
    )


def test_time_runs_linearly_from_time_zero_to_the_prediction_time():
    picture = timeline(events([0.0, 12.0, 24.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]), 24.0, {})
    (mark,) = picture.rows[0]["marks"]  # dots of one row are one path
    found = [part[0][0] for part in corners(mark["path"])]
    assert found == pytest.approx([LEFT, (LEFT + RIGHT) / 2, RIGHT], abs=0.51)


def test_a_higher_value_stands_higher_in_its_row():
    picture = timeline(events([1.0, 2.0], [5.0, 1.0], [0.0, 0.0]), 24.0, {"Lactate": LACTATE})
    high, low = (part[0][1] for part in corners(picture.rows[0]["marks"][0]["path"]))
    assert high < low


def test_the_sign_of_a_contribution_is_told_by_shape_not_only_by_color():
    picture = timeline(events([1.0, 2.0], [1.0, 1.0], [0.5, -0.5]), 24.0, {})
    up, down = picture.rows[0]["marks"]
    assert (up["style"], down["style"]) == ("u", "v")
    (up_part,), (down_part,) = corners(up["path"]), corners(down["path"])
    assert up_part[2][1] < up_part[0][1]  # the tip points up
    assert down_part[2][1] > down_part[0][1]


def test_every_point_is_drawn_once_and_the_largest_can_be_pointed_at():
    rng = np.random.default_rng(1)
    n = 4 * TITLED_MARKS
    picture = timeline(events(np.arange(n) * 0.1, np.ones(n), rng.normal(size=n)), 48.0, {})
    marks = picture.rows[0]["marks"]
    assert sum(len(corners(mark["path"])) for mark in marks) == n
    assert sum(bool(mark["title"]) for mark in marks) == TITLED_MARKS
    assert len(marks) <= TITLED_MARKS + 5  # the others are one path for each kind of mark


def test_rows_are_ordered_by_the_size_of_their_contributions():
    both = pd.concat([events([1.0], [1.0], [0.1], "Sodium"), events([1.0], [2.0], [-0.9])])
    picture = timeline(both, 24.0, {})
    assert [row["label"] for row in picture.rows] == ["Lactate", "Sodium"]


def test_a_crowded_subject_is_thinned_aloud_and_keeps_the_sum_of_its_contributions():
    rng = np.random.default_rng(0)
    n = 4 * MOST_MARKS
    crowd = events(np.sort(rng.uniform(0, 48, n)), rng.normal(size=n), rng.normal(size=n))
    picture = timeline(crowd, 48.0, {})
    drawn = [part for mark in picture.rows[0]["marks"] for part in corners(mark["path"])]
    assert len(drawn) < MOST_MARKS
    assert "hourly means" in picture.note
    assert float(picture.rows[0]["sum"].replace("−", "-")) == pytest.approx(
        crowd["attribution"].sum(), abs=0.006
    )


def test_an_infusion_is_drawn_from_start_to_end_and_a_bolus_at_its_time():
    given = events([6.0, 12.0], [2.0, 4.0], [0.3, 0.1], "insulin").assign(kind="input")
    given["end"] = [18.0, np.nan]
    bars = timeline(given, 24.0, {}).rows[0]["bars"]
    assert bars[0]["width"] == pytest.approx((RIGHT - LEFT) / 2, abs=0.2)
    assert bars[1]["width"] == 3


def test_a_subject_without_measurements_has_an_empty_picture():
    picture = timeline(events([], [], []), 24.0, {})
    assert picture.rows == []
    assert picture.decision == RIGHT


def test_a_name_that_does_not_fit_says_so_and_keeps_its_unit():
    long = Variable(name="p", label="Diastolic blood pressure, measured invasively", unit="mmHg")
    assert label(long, "p").endswith("… (mmHg)")
    assert label(LACTATE, "Lactate") == "Lactate (mmol/L)"
    assert label(None, "x" * 100).endswith("…")
