import re

import numpy as np
import pandas as pd
import pytest

from clinode.cohort import Variable
from clinode.report.timeline import LEFT, MOST_MARKS, RIGHT, timeline

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


def corner(mark):
    (found,) = re.findall(r"^M(-?[\d.]+) (-?[\d.]+)", mark["path"])
    return float(found[0]), float(found[1])


def test_time_runs_linearly_from_time_zero_to_the_prediction_time():
    picture = timeline(events([0.0, 12.0, 24.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]), 24.0, {})
    found = [corner(mark)[0] + 2 for mark in picture.rows[0]["marks"]]
    assert found == pytest.approx([LEFT, (LEFT + RIGHT) / 2, RIGHT], abs=0.2)


def test_a_higher_value_stands_higher_in_its_row():
    picture = timeline(events([1.0, 2.0], [5.0, 1.0], [0.0, 0.0]), 24.0, {"Lactate": LACTATE})
    high, low = (corner(mark)[1] for mark in picture.rows[0]["marks"])
    assert high < low


def test_the_sign_of_a_contribution_is_told_by_shape_not_only_by_color():
    picture = timeline(events([1.0, 2.0], [1.0, 1.0], [0.5, -0.5]), 24.0, {})
    up, down = picture.rows[0]["marks"]
    assert (up["style"], down["style"]) == ("u", "v")
    tips = [float(re.findall(r"l-[\d.]+ (-?[\d.]+)z", m["path"])[0]) for m in (up, down)]
    assert tips[0] < 0 < tips[1]  # the tip points up, and down


def test_rows_are_ordered_by_the_size_of_their_contributions():
    both = pd.concat([events([1.0], [1.0], [0.1], "Sodium"), events([1.0], [2.0], [-0.9])])
    picture = timeline(both, 24.0, {})
    assert [row["label"] for row in picture.rows] == ["Lactate", "Sodium"]


def test_a_crowded_subject_is_thinned_aloud_and_keeps_the_sum_of_its_contributions():
    rng = np.random.default_rng(0)
    n = 4 * MOST_MARKS
    crowd = events(np.sort(rng.uniform(0, 48, n)), rng.normal(size=n), rng.normal(size=n))
    picture = timeline(crowd, 48.0, {})
    assert len(picture.rows[0]["marks"]) < MOST_MARKS
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
