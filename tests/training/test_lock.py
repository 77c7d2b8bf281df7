import subprocess
import sys

import pytest

from clinode.errors import OutputError
from clinode.training.lock import one_writer

HOLD = """
import sys, time
from pathlib import Path
from clinode.training.lock import one_writer
with one_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_writer_is_told_who_holds_the_folder(tmp_path, holder):
    with pytest.raises(OutputError, match=f"process {holder.pid} .* is writing this run"):
        with one_writer(tmp_path / "run"):
            pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / ".run.lock").exists()
    with one_writer(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folders_beside_each_other_do_not_wait_for_each_other(tmp_path, holder):
    with one_writer(tmp_path / "other"):
        pass


RACE = """
import sys
from pathlib import Path
from clinode.errors import OutputError
from clinode.training.lock import one_writer
sys.stdin.readline()
try:
    with one_writer(Path(sys.argv[1])):
        print("won", flush=True)
        sys.stdin.readline()
except OutputError:
    print("told", flush=True)
"""


def test_of_many_that_start_together_one_wins(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path / "run")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.stdout.readline().strip() for process in processes if process.stdout]
    for process in processes:
        process.communicate("done\n")
    assert sorted(answers) == ["told"] * 5 + ["won"]
