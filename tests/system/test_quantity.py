import math

import pytest

from clinode.errors import ArgumentError
from clinode.system import (
    Quantity,
)

REGIONS = ("lh_precuneus", "rh_precuneus", "lh_insula")


def test_a_block_has_one_flat_name_a_label_and_a_single_value_has_its_own():
    assert Quantity("E", "1", labels=REGIONS).names == tuple(f"E:{r}" for r in REGIONS)
    assert Quantity("E", "1", labels=REGIONS).size == 3
    assert (Quantity("V", "mV").names, Quantity("V", "mV").size) == (("V",), 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "E:left", "unit": "1"}, "without ':'"),
        ({"name": "", "unit": "1"}, "name is a word"),
        ({"name": "V", "unit": ""}, "no unit"),
        ({"name": "E", "unit": "1", "labels": ("a", "a")}, "distinct"),
        ({"name": "V", "unit": "mV", "range": (1.0, 1.0)}, "low < high"),
        ({"name": "V", "unit": "mV", "range": (0.0, math.inf)}, "finite"),
        ({"name": "V", "unit": "mV", "range": (0.0, 1.0), "default": 2.0}, "outside range"),
    ],
)
def test_a_quantity_that_makes_no_sense_is_refused(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        Quantity(**arguments)
