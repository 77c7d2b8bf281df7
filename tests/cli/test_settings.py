from dataclasses import dataclass

import pytest

from clinode.cli.settings import check_names, fill, parse_yaml, read_yaml, with_changes
from clinode.errors import ArgumentError


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-2", -2),
        ("007", 7.0),
        ("0123", 123.0),
        ("22:30", "22:30"),
        ("NO", "NO"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("2026-01-02", "2026-01-02"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ('"1e-3"', "1e-3"),
        ("nan", "nan"),
        (".inf", ".inf"),
    ],
)
def test_a_word_means_what_it_looks_like(text, meaning):
    found = parse_yaml(f"a: {text}", where="x.yaml")["a"]
    assert found == meaning
    assert type(found) is type(meaning)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", "a name is repeated at line 2"),
        ("a: &x [1]\nb: *x", "aliases are not allowed at line 2"),
        ("a: !!python/object/apply:os.system [true]", "tags are not allowed at line 1"),
        ("a: !!str 5", "tags are not allowed"),
        ("a: [1, 2", "not valid YAML"),
        ("[1, 2]: 3", "a name must be one word"),
        ("a: " + "[" * 5000, "nested too deeply|not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
    ],
)
def test_what_settings_must_not_hold_is_refused_with_its_line(text, words):
    with pytest.raises(ArgumentError, match=words):
        parse_yaml(text, where="x.yaml")


def test_a_file_that_is_missing_not_utf8_or_no_table_of_names_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"x\.yaml: the file cannot be read"):
        read_yaml(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ArgumentError, match="byte 3 is not UTF-8"):
        read_yaml(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_text("- 1\n- 2\n", encoding="utf-8")
    with pytest.raises(ArgumentError, match="expected lines of the form"):
        read_yaml(tmp_path / "x.yaml")


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
