import pytest

from clinode import errors


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (errors.ArgumentError, 2),
        (errors.OutputError, 2),
        (errors.SchemaError, 3),
        (errors.CheckpointError, 3),
        (errors.SolverError, 4),
        (errors.ClinodeError, 5),
        (errors.ResourceError, 6),
        (errors.Interrupted, 75),
    ],
)
def test_each_kind_of_failure_has_the_exit_code_of_the_contract(kind, exit_code):
    assert kind("it failed").exit_code == exit_code


def test_every_kind_of_failure_has_a_code_of_its_own():
    kinds = [errors.ClinodeError, *errors.ClinodeError.__subclasses__()]
    assert len({kind.code for kind in kinds}) == len(kinds)


def test_an_error_says_where_what_how_to_mend_it_and_what_was_lost():
    error = errors.SchemaError(
        "3 values are not numbers",
        where="labs.csv row 41 column 'value'",
        fix="remove the text",
        lost="1 epoch",
    )
    assert str(error) == (
        "labs.csv row 41 column 'value': 3 values are not numbers. Fix: remove the text. "
        "Lost: 1 epoch"
    )
    assert error.to_dict()["code"] == "CLN-D01"
    assert error.to_dict()["lost"] == "1 epoch"


def test_an_error_that_lost_nothing_does_not_speak_of_loss():
    assert str(errors.ArgumentError("horizon must be positive")) == "horizon must be positive"


def test_an_argument_error_is_also_a_value_error():
    with pytest.raises(ValueError, match="positive"):
        raise errors.ArgumentError("horizon must be positive")


def test_a_name_from_data_cannot_steer_the_terminal_or_start_a_line():
    told = str(
        errors.SchemaError("no column 'a\x1b]0;owned\x07\nerror: b\u202ec'", where="x\r.csv")
    )
    assert told == r"x\u000d.csv: no column 'a\u001b]0;owned\u0007\u000aerror: b\u202ec'"


def test_text_that_people_write_is_left_as_it_is():
    assert errors.printable("Größe, µmol/L, 体温 – ok") == "Größe, µmol/L, 体温 – ok"


def test_a_name_of_a_megabyte_is_cut_in_words():
    shown = errors.printable("x" * 1_000_000)
    assert len(shown) < 5_000
    assert shown.endswith("… (996,000 more characters)")
    assert errors.printable("x" * 4_000) == "x" * 4_000
