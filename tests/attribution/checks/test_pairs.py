from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, spearmanr

from clinode.attribution import Attributions
from clinode.attribution.checks.pairs import SideBySide, mean_of_known, side_by_side
from clinode.attribution.checks.stability import _tau
from clinode.errors import ArgumentError


def told(values: list[list[float]], withheld: list[bool] | None = None, **other: Any):
    """Attributions of as many subjects as there are lists."""
    subject = np.repeat(np.arange(len(values)), [len(own) for own in values])
    time = np.concatenate([np.arange(len(own), dtype=float) for own in values])
    events = pd.DataFrame(
        {"subject_id": subject, "kind": "observation", "time": time, "variable": "HR"}
    ).assign(value=1.0, attribution=np.concatenate(values))
    hidden = [False] * len(values) if withheld is None else withheld
    gates = pd.DataFrame({"subject_id": np.arange(len(values)), "withheld": hidden})
    words = {"method": "m", "baseline": "b", "outcome": "o", "tolerance": 0.01}
    events = events[~np.array(hidden)[subject]].reset_index(drop=True)
    return Attributions(events=events, gates=gates, **{**words, **other})


def test_agreement_of_the_largest_is_that_of_a_hand_counted_example():
    # the three largest of each: events 0, 1, 2 and events 0, 2, 3; event 2 has two signs
    first, second = np.array([5.0, -4.0, 3.0, 1.0]), np.array([5.0, 0.5, -4.0, 3.0])
    found = SideBySide((first,), (second,)).top(3)
    assert {name: column.item() for name, column in found.items()} == pytest.approx(
        {"feature": 2 / 3, "sign": 1 / 3, "rank": 1 / 3, "signed rank": 1 / 3, "chance": 3 / 4}
    )
    same = SideBySide((first,), (first,)).top(2)
    assert [same[name].item() for name in ("feature", "sign", "rank", "signed rank")] == [1.0] * 4


def test_two_random_orders_share_what_chance_says():
    draw = np.random.default_rng(0)
    many = [(draw.normal(size=20), draw.normal(size=20)) for _ in range(2000)]
    found = SideBySide(*(tuple(part) for part in zip(*many, strict=True))).top(5)
    assert found["feature"].mean() == pytest.approx(found["chance"][0], abs=0.01)
    assert found["sign"].mean() == pytest.approx(found["chance"][0] / 2, abs=0.01)


def test_rank_correlations_are_those_of_scipy_with_ties_too():
    draw = np.random.default_rng(1)
    maps = [draw.integers(-4, 5, 30).astype(float) for _ in range(2)]
    found = SideBySide((maps[0],), (maps[1],)).rank_correlation().item()
    expected: Any = spearmanr(np.abs(maps[0]), np.abs(maps[1]))
    assert found == pytest.approx(expected.statistic, abs=1e-12)
    rows = draw.integers(0, 4, (2, 5, 9)).astype(float)
    for tau, a, b in zip(_tau(rows[0], rows[1]), rows[0], rows[1], strict=True):
        expected = kendalltau(a, b)
        assert tau == pytest.approx(expected.statistic, abs=1e-12)


def test_signs_count_where_both_have_one_and_by_size_what_moves_nothing_counts_little():
    first, second = np.array([1.0, 1.0, 0.001, 0.0]), np.array([2.0, 1.0, -0.002, 5e-9])
    pair = SideBySide((first,), (second,))
    assert pair.same_sign().item() == pytest.approx(2 / 3)
    assert pair.same_sign_by_size().item() > 0.99
    assert pair.change().item() == pytest.approx(np.sqrt(1 + 0.003**2) / np.sqrt(2), rel=1e-5)


def test_a_subject_that_one_map_withholds_and_one_with_two_events_have_no_number():
    values = [[1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [1.0, 2.0]]
    pair = side_by_side(told(values), told(values, [True, False, False]))
    found = pair.rank_correlation()
    assert np.isnan(found[[0, 2]]).all()
    assert found[1] == pytest.approx(1.0)
    assert np.isnan(pair.change()).tolist() == [True, False, False]
    both = mean_of_known([np.array([np.nan, 1.0, np.nan]), np.array([2.0, 3.0, np.nan])])
    np.testing.assert_array_equal(both, [2.0, 2.0, np.nan])


def test_maps_of_other_subjects_or_events_are_refused():
    values = [[1.0, 2.0], [1.0]]
    with pytest.raises(ArgumentError, match="not of the same subjects"):
        side_by_side(told(values), told(values[:1]))
    with pytest.raises(ArgumentError, match="not of the same events"):
        side_by_side(told(values), told([[1.0], [1.0, 2.0]]))


def test_a_missing_time_is_the_same_in_both():
    one = told([[1.0, 2.0, 3.0]])
    static = replace(one, events=one.events.assign(time=[np.nan, 1.0, 2.0]))
    assert side_by_side(static, static).change().item() == 0.0
