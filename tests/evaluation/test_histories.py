import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinode.errors import ArgumentError
from clinode.evaluation import Histories, decayed_means, summarize


def random_table(seed, n_records=6, n_rows=60, n_variables=4):
    generator = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "record": generator.integers(0, n_records - 1, n_rows),  # the last has no row
            "time": generator.uniform(0, 48, n_rows).round(1),
            "variable": generator.integers(0, n_variables - 1, n_rows),  # nor has the last
            "value": generator.normal(50, 20, n_rows),
        }
    )
    table = table.drop_duplicates(["record", "time", "variable"])
    return table.sort_values(["record", "time", "variable"], ignore_index=True)


def as_histories(table, n_records=6, n_variables=4, static=None):
    return Histories(
        row_start=np.searchsorted(table["record"], np.arange(n_records + 1)),
        time=table["time"].to_numpy(),
        variable=table["variable"].to_numpy(),
        value=table["value"].to_numpy(),
        static=np.empty((n_records, 0)) if static is None else static,
        n_variables=n_variables,
    )


@given(st.integers(0, 10_000))
def test_the_seven_statistics_are_those_of_pandas(seed):
    table = random_table(seed)
    found = summarize(as_histories(table))
    group = table.groupby(["record", "variable"])["value"]
    expected = group.agg(["first", "last", "mean", "min", "max"])
    expected["sd"], expected["count"] = group.std(ddof=0), group.count()
    whole = np.full(found.shape, np.nan)
    whole[:, 6] = 0
    record, variable = (expected.index.get_level_values(k).to_numpy() for k in (0, 1))
    whole[record, :, variable] = expected.to_numpy()
    np.testing.assert_allclose(found, whole, atol=1e-9)


def test_logarithms_are_taken_before_the_statistics_and_negatives_count_as_zero():
    table = pd.DataFrame(
        {"record": [0, 0], "time": [1.0, 2.0], "variable": [0, 0], "value": [9.9, -3.0]}
    )
    first, last, mean, low, high, sd, count = summarize(as_histories(table), np.array([True] * 4))[
        0, :, 0
    ]
    assert (first, last) == pytest.approx((np.log(10.0), np.log(0.1)))
    assert mean == pytest.approx(0, abs=1e-12)
    assert (low, high) == (last, first)
    assert (sd, count) == pytest.approx((np.log(10.0), 2))


def test_a_forgetting_mean_weighs_by_age():
    table = pd.DataFrame(
        {"record": [0, 0], "time": [1.0, 4.0], "variable": [0, 0], "value": [2.0, 6.0]}
    )
    short, long = decayed_means(as_histories(table), (3.0, 1e9))[0, :, 0]
    assert short == pytest.approx((2 * np.exp(-1) + 6) / (np.exp(-1) + 1))
    assert long == pytest.approx(4.0)


def test_a_forgetting_mean_outlives_weeks_without_a_measurement():
    table = pd.DataFrame(
        {"record": [0, 0], "time": [0.0, 1e5], "variable": [0, 0], "value": [2.0, 6.0]}
    )
    assert decayed_means(as_histories(table))[0, :, 0] == pytest.approx(6.0)


def test_nothing_measured_anywhere_is_nothing_known():
    empty = random_table(0).iloc[:0]
    summary = summarize(as_histories(empty))
    assert (summary[:, 6] == 0).all()
    assert np.isnan(summary[:, :6]).all()
    assert np.isnan(decayed_means(as_histories(empty))).all()


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_a_record_is_summarised_alike_in_any_company(seed):
    table = random_table(seed)
    whole, means = summarize(as_histories(table)), decayed_means(as_histories(table))
    for record in range(6):
        own = table[table["record"] == record].assign(record=0)
        alone = as_histories(own, n_records=1)
        np.testing.assert_array_equal(summarize(alone)[0], whole[record])
        np.testing.assert_array_equal(decayed_means(alone)[0], means[record])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"static": np.empty((5, 0))}, "6 records, but 5 rows of statics"),
        ({"row_start": np.array([0, 1, 2, 3, 4, 5, 6])}, "row_start must run from 0 to"),
        ({"n_variables": 1}, "variable positions must lie in 0..0"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(change, problem):
    with pytest.raises(ArgumentError, match=problem):
        Histories(**vars(as_histories(random_table(1))) | change)


def test_time_may_not_run_backward_within_a_record_but_starts_anew_in_the_next():
    table = pd.DataFrame(
        {"record": [0, 0, 3], "time": [1.0, 9.0, 0.0], "variable": [0, 0, 0], "value": [1.0] * 3}
    )
    assert len(as_histories(table)) == 6
    with pytest.raises(ArgumentError, match="runs backward within a record in 1 places"):
        as_histories(table.assign(time=[9.0, 1.0, 0.0]))


def test_values_that_are_no_numbers_have_no_place():
    table = random_table(2)
    table.loc[3, "value"] = np.inf
    with pytest.raises(ArgumentError, match="values must be finite"):
        as_histories(table)
