import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clinode.errors import OutputError
from clinode.training import lock
from clinode.training.lock import one_writer

# loads the file by itself: the package around it takes seconds to import
HOLD = """
import importlib.util, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("lock", sys.argv[1])
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
with lock.one_writer(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    path = Path(lock.__file__)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
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


def test_of_many_that_start_together_one_wins(tmp_path):
    together, told = threading.Barrier(20), threading.Barrier(20)
    answers = []

    def race():
        together.wait()
        try:
            with one_writer(tmp_path / "run"):
                answers.append("won")
                told.wait(timeout=60)  # holds it until everybody has tried
        except OutputError:
            answers.append("told")
            told.wait(timeout=60)

    threads = [threading.Thread(target=race) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["told"] * 19 + ["won"]


def test_the_next_one_wins_once_the_first_is_done(tmp_path):
    for _ in range(3):
        with one_writer(tmp_path / "run"):
            pass


def test_a_folder_that_is_not_there_cannot_be_locked(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        with one_writer(tmp_path / "nowhere" / "run"):
            pass
