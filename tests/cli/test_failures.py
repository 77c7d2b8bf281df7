import errno
import json

import pytest

from clinode.cli.failures import told_to_a_person
from clinode.errors import Interrupted, SchemaError, SolverError

EXAMPLES = {"fit": "clinode fit stays/ --outcome death --out runs/death"}


def ended(error: BaseException, given: list[str]) -> int:
    with pytest.raises(SystemExit) as stopped, told_to_a_person(given, EXAMPLES):
        raise error
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SchemaError("no column 'time'"), 3),
        (SolverError("it did not converge"), 4),
        (Interrupted("stopped on request"), 75),
        (KeyboardInterrupt(), 130),
        (MemoryError(), 6),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), 6),
        (OSError(errno.ENOSPC, "No space left on device"), 6),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 6),
        (ZeroDivisionError("division by zero"), 5),
    ],
)
def test_every_failure_has_its_exit_code(error, code):
    assert ended(error, ["fit"]) == code


def test_a_failure_of_ours_is_one_line_with_its_words(capsys):
    ended(SchemaError("no column 'time'", where="labs.csv", fix="name it: time=..."), ["fit"])
    told = capsys.readouterr()
    expected = "error CLN-D01: labs.csv: no column 'time'. Fix: name it: time=...\n"
    assert told.err == expected
    assert told.out == ""


def test_an_unexpected_failure_shows_no_word_of_its_own_since_it_may_hold_a_value(capsys):
    assert ended(KeyError("patient 4711 glucose 86.5"), ["fit"]) == 5
    told = capsys.readouterr().err
    assert "KeyError" in told
    assert "4711" not in told
    assert told.count("\n") == 1


def test_debug_shows_the_traceback(capsys):
    ended(KeyError("column"), ["fit", "--debug"])
    assert "Traceback" in capsys.readouterr().err


def test_a_program_gets_one_json_object(capsys):
    ended(SchemaError("no column 'time'", where="labs.csv"), ["fit", "--json"])
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["exit_code"] == 3
    assert found["error"]["where"] == "labs.csv"
    assert found["error"]["code"] == "CLN-D01"
    assert told.err == ""


def test_what_exits_by_itself_is_left_alone():
    with pytest.raises(SystemExit) as stopped, told_to_a_person([], EXAMPLES):
        raise SystemExit(0)
    assert stopped.value.code == 0
