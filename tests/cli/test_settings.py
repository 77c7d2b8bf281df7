from dataclasses import dataclass

import pytest

from clinode.cli.settings import check_names, fill, with_changes
from clinode.errors import ArgumentError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    epochs: int = 3
    rate: float = 0.1

    def __post_init__(self):
        if self.epochs < 1:
            raise ArgumentError("epochs must be at least 1", fix="give more")


def test_settings_fill_a_dataclass_and_whole_numbers_pass_for_fractions():
    assert fill(Schedule, {"epochs": 5, "rate": 1}, where="x") == Schedule(epochs=5, rate=1.0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epoch": 5}, "no setting 'epoch'. Fix: did you mean 'epochs'"),
        ({"zzzzzz": 5}, "choose among epochs, rate"),
        ({"epochs": "five"}, "'epochs': input should be a valid integer"),
        ({"epochs": 1.5}, "'epochs': input should be a valid integer"),
        ({"epochs": True}, "'epochs': input should be a valid integer"),
        ({"epochs": 0}, "epochs must be at least 1. Fix: give more"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(values, words):
    with pytest.raises(ArgumentError, match=words):
        fill(Schedule, values, where="x.yaml")


def test_changes_reach_into_sections_and_leave_the_rest():
    stored = {"fit": {"epochs": 5, "rate": 0.1}, "seed": 0}
    changed = with_changes(stored, ["fit.rate=1e-3", "model.name=gru-d"])
    expected = {"fit": {"epochs": 5, "rate": 0.001}, "seed": 0, "model": {"name": "gru-d"}}
    assert changed == expected
    assert stored["fit"]["rate"] == 0.1


@pytest.mark.parametrize("change", ["epochs", "=3", "fit.=3", "seed.x=3"])
def test_a_change_of_another_form_is_refused(change):
    with pytest.raises(ArgumentError, match=r"expected name=value|is not a section"):
        with_changes({"seed": 0}, [change])


def test_known_names_pass():
    check_names(["a"], ["a", "b"], where="x")
