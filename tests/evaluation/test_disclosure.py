import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinode.errors import ArgumentError
from clinode.evaluation import hide_small


def consistent(count, size, hidden):
    """Every table that agrees with what is shown: totals, and no hidden count at an end."""
    places = np.flatnonzero(hidden)
    total = int(count[places].sum())
    most = [total if size is None else int(size[p]) - 1 for p in places]
    for values in itertools.product(*(range(1, top + 1) for top in most[:-1])):
        last = total - sum(values)
        if 1 <= last <= most[-1]:
            yield (*values, last)


counts = st.lists(st.integers(0, 30), min_size=2, max_size=4)


@settings(max_examples=60, deadline=None)
@given(counts)
def test_no_small_group_follows_from_the_total_and_the_others(count):
    count = np.array(count)
    hidden = hide_small(count)
    assert hidden[(count > 0) & (count < 11)].all()
    if hidden.any() and not hidden.all():
        tables = np.array(list(consistent(count, None, hidden)))
        assert all(len(np.unique(column)) >= 4 for column in tables.T)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(11, 30), st.floats(0, 1)), min_size=2, max_size=4))
def test_no_small_part_of_a_group_follows_from_sizes_and_totals(groups):
    size = np.array([n for n, _ in groups])
    count = np.array([round(n * share) for n, share in groups])
    hidden = hide_small(count, size)
    rest = size - count
    assert hidden[((count > 0) & (count < 11)) | ((rest > 0) & (rest < 11))].all()
    if hidden.any() and not hidden.all():
        tables = np.array(list(consistent(count, size, hidden)))
        assert all(len(np.unique(column)) >= 4 for column in tables.T)


def test_two_single_subjects_are_not_hidden_behind_each_other():
    # 1 and 1 alone: their sum of 2 says that each is 1
    assert hide_small(np.array([1, 1, 40, 50])).tolist() == [True, True, True, False]


def test_nothing_is_hidden_where_nothing_is_small_and_nobody_is_nobody():
    assert not hide_small(np.array([0, 11, 200])).any()
    assert not hide_small(np.array([0, 20, 40]), np.array([30, 31, 40])).any()


def test_a_count_that_no_group_has_is_refused():
    with pytest.raises(ArgumentError, match="between 0 and the size"):
        hide_small(np.array([12, 3]), np.array([11, 3]))
