import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinode.errors import printable
from clinode.report.wording import (
    FORBIDDEN,
    LIMITS,
    measured,
    ordinal,
    percent,
    probability,
    signed,
    significant,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "0.012"), (12.6, "13"), (0.0, "0"), (-0.555, "-0.56"), (math.nan, "undefined")],
)
def test_a_number_keeps_two_significant_digits(value, text):
    assert significant(value) == text


@given(st.floats(1e-3, 1e5), st.integers(1, 6))
def test_significant_digits_err_by_at_most_half_a_unit_of_the_last_one(value, digits):
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    assert abs(float(significant(value, digits)) - value) <= 0.5 * unit * (1 + 1e-9)


def test_a_measured_value_is_printed_without_trailing_zeros():
    assert [measured(v) for v in (70.0, 7.4, 0.6, 133.25)] == ["70", "7.4", "0.6", "133.2"]


def test_a_probability_is_never_rounded_to_certainty():
    assert percent(1e-9) == "<1 %"
    assert percent(1 - 1e-9) == ">99 %"
    assert percent(0.314) == "31 %"


@given(st.floats(-800, 800))
def test_probability_inverts_the_logit_at_every_size(logit):
    p = probability(logit)
    assert 0 <= p <= 1
    if abs(logit) < 30:
        assert math.log(p / (1 - p)) == pytest.approx(logit, abs=1e-2)


def test_a_contribution_carries_its_sign_and_small_ones_are_zero():
    assert [signed(v) for v in (0.4, -0.4, 0.001)] == ["+0.40", "−0.40", "0.00"]


def test_direction_changing_characters_are_spelled_out():
    assert printable("lac\u202etate\n") == "lac\\u202etate\\u000a"


def test_a_subject_is_named_by_its_position():
    assert ordinal(416) == "#0417"


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_the_limits_of_every_page_make_no_claim_about_the_disease(pattern):
    assert not re.search(pattern, " ".join(LIMITS), flags=re.IGNORECASE)
