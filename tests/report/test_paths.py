import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinode.report.paths import dots, polyline, shapes, short

from .drawn import corners

places = st.lists(
    st.tuples(st.floats(-2000, 2000), st.floats(-2000, 2000)), min_size=1, max_size=60
)


@given(places)
def test_a_line_goes_through_its_places_however_many_steps_led_there(given_places):
    (found,) = corners(polyline(given_places))
    assert len(found) == len(given_places)
    for (x, y), (a, b) in zip(found, given_places, strict=True):
        assert x == pytest.approx(a, abs=0.0501)
        assert y == pytest.approx(b, abs=0.0501)


@given(places)
def test_a_dot_lies_where_it_belongs_and_has_no_length(given_places):
    parts = corners(dots(given_places))
    assert len(parts) == len(given_places)
    for part, (a, b) in zip(parts, given_places, strict=True):
        assert part[0] == part[-1] == pytest.approx((a, b), abs=0.501)


@given(places)
def test_a_shape_begins_at_its_place_and_does_not_move_the_next(given_places):
    parts = corners(shapes([(place, "h6l-3-4z") for place in given_places]))
    for part, (a, b) in zip(parts, given_places, strict=True):
        assert part[0] == pytest.approx((a, b), abs=0.501)
        x, y = part[0]
        assert part[1:] == [pytest.approx((x + 6, y)), pytest.approx((x + 3, y - 4))]


@given(st.floats(-1e4, 1e4))
def test_a_short_number_is_the_number_to_a_tenth(value):
    assert float(short(value)) == pytest.approx(value, abs=0.0501)


def test_nothing_is_drawn_of_nothing():
    assert polyline([]) == dots([]) == ""
