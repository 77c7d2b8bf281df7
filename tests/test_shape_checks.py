import numpy as np
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation

from clinode.sequence import heads
from clinode.statistics import benjamini_hochberg
from clinode.system import Quantity


@pytest.fixture(autouse=True)
def _hooks(request):
    if not request.config.getoption("--jaxtyping-packages"):
        pytest.skip("types are not checked in this call")


def share(shape: tuple[int, ...], other: tuple[int, ...]) -> torch.Tensor:
    return heads.known_share(torch.ones(shape), torch.ones(other).bool(), torch.ones(()))


def test_two_arguments_of_one_declared_shape_must_have_one_shape():
    assert share((2, 3), (2, 3)).shape == ()
    assert share((4,), (4,)).shape == ()  # names bind within a call, not beyond it
    with pytest.raises(BeartypeCallHintViolation):
        share((2, 3), (2, 4))


def test_an_argument_of_another_rank_or_type_than_declared_is_found():
    with pytest.raises(BeartypeCallHintViolation):
        benjamini_hochberg(np.full((2, 2), 0.5))
    with pytest.raises(BeartypeCallHintViolation):
        Quantity(7, "mV")  # pyright: ignore[reportArgumentType]


def test_many_calls_do_not_tire_the_check():
    for _ in range(100):  # of these the first are checked, and one in fifty
        share((2,), (2,))
    with pytest.raises(BeartypeCallHintViolation):
        [share((2, 3), (1, 3)) for _ in range(50)]


def test_each_test_begins_with_a_checked_call():
    with pytest.raises(BeartypeCallHintViolation):
        share((2, 3), (2, 4))
