import numpy as np
import pytest

from clinode.errors import ArgumentError, CheckpointError, SchemaError
from clinode.evaluation import Histories
from clinode.evaluation.interpolation_baselines import (
    InterpolationBaselines,
    fit_interpolation_baselines,
)

# two records, two variables; of the second record only variable 1 was seen
SEEN = Histories(
    row_start=np.array([0, 4, 5]),
    time=np.array([0.0, 1.0, 10.0, 20.0, 3.0]),
    variable=np.array([0, 1, 0, 0, 1]),
    value=np.array([1.0, 9.0, 3.0, 8.0, 4.0]),
    static=np.empty((2, 0)),
    n_variables=2,
)
RECORD = np.array([0, 0, 0, 0, 0, 1, 1])
VARIABLE = np.array([0, 0, 0, 0, 1, 0, 1])
TIME = np.array([4.0, 16.0, -2.0, 25.0, 5.0, 1.0, 3.0])


def test_each_baseline_by_hand():
    target = np.array([2.0, 6.0, 1.0, 8.0, 10.0, 5.0, 4.0])
    fitted = fit_interpolation_baselines(SEEN, RECORD, VARIABLE, TIME, target)
    level = np.array([(2 + 6 + 1 + 8 + 5) / 5, 7.0])
    np.testing.assert_allclose(fitted.level, level)
    told = fitted.predict(SEEN, RECORD, VARIABLE, TIME)
    expected = {
        "mean": level[VARIABLE],
        "patient_mean": [4.0, 4.0, 4.0, 4.0, 9.0, level[0], 4.0],
        "last_value": [1.0, 3.0, 1.0, 8.0, 9.0, level[0], 4.0],
        "nearest_value": [1.0, 8.0, 1.0, 8.0, 9.0, level[0], 4.0],
        "linear": [1.8, 6.0, 1.0, 8.0, 9.0, level[0], 4.0],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(told[name].mean, values, err_msg=name)
    error = (np.array(expected["linear"]) - target) ** 2
    of_first = VARIABLE == 0
    assert told["linear"].spread is not None
    assert told["linear"].spread[0] == pytest.approx(np.sqrt(error[of_first].mean()))


def test_a_record_does_not_see_another_one():
    one = fit_interpolation_baselines(SEEN, RECORD, VARIABLE, TIME, np.ones(7))
    moved = Histories(**{**vars(SEEN), "value": np.array([1.0, 9.0, 3.0, 8.0, 400.0])})
    first = RECORD == 0
    for name, held in one.predict(moved, RECORD, VARIABLE, TIME).items():
        plain = one.predict(SEEN, RECORD, VARIABLE, TIME)[name]
        np.testing.assert_array_equal(held.mean[first], plain.mean[first])


def test_a_line_is_followed_exactly_and_stored_baselines_say_the_same():
    time = np.linspace(0, 10, 11)
    seen = Histories(
        row_start=np.array([0, 6]),
        time=time[::2],
        variable=np.zeros(6, dtype=np.int64),
        value=2 * time[::2] + 1,
        static=np.empty((1, 0)),
        n_variables=1,
    )
    asked = (np.zeros(5, np.int64), np.zeros(5, np.int64), time[1::2])
    fitted = fit_interpolation_baselines(seen, *asked, 2 * time[1::2] + 1)
    stored = InterpolationBaselines.from_arrays(fitted.to_arrays())
    for held in (fitted, stored):
        np.testing.assert_allclose(held.predict(seen, *asked)["linear"].mean, 2 * time[1::2] + 1)


def test_nothing_hidden_other_variables_and_missing_arrays_are_refused():
    empty = np.empty(0, dtype=np.int64)
    with pytest.raises(SchemaError, match="hidden observation"):
        fit_interpolation_baselines(SEEN, empty, empty, np.empty(0), np.empty(0))
    fitted = fit_interpolation_baselines(SEEN, RECORD, VARIABLE, TIME, np.ones(7))
    other = Histories(**{**vars(SEEN), "n_variables": 3})
    with pytest.raises(ArgumentError, match="2 variables, but the records have 3"):
        fitted.predict(other, RECORD, VARIABLE, TIME)
    with pytest.raises(CheckpointError, match="incomplete"):
        InterpolationBaselines.from_arrays({"level": np.ones(2)})
