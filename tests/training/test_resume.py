"""A fit that is killed anywhere goes on to the bytes of one that was not."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from clinode.errors import OutputError
from clinode.folder import verify_folder
from clinode.training import fit

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

SCRIPT = Path(__file__).with_name("zygote.py")


N_STEPS = 10


class Zygote:
    """Starts fits in processes of their own; see zygote.py."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self._answer() == "ready"

    def start(self, out: Path) -> int:
        """The process that fits into a folder."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{out}\n")
        self._process.stdin.flush()
        process = int(self._answer())
        # An exit status left unread would come here, and a signal to 0 or -9 ends everything.
        assert process > 1, "an answer of the zygote was left unread"
        return process

    def wait(self) -> int:
        """Its exit status; negative after a signal."""
        return int(self._answer())

    def fit(self, out: Path) -> int:
        """The exit status of a fit that nobody disturbs."""
        self.start(out)
        return self.wait()

    def fit_and_signal(
        self, out: Path, number: signal.Signals, is_due: Callable[[], bool], delay: float = 0.0
    ) -> int:
        """The exit status of a fit that gets a signal some time after it is due."""
        process = self.start(out)
        try:
            while is_running(process) and not is_due():
                time.sleep(0.001)
            time.sleep(delay)
            if is_running(process):
                os.kill(process, number)
        finally:
            status = self.wait()
        return status

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def last_saved_is(out: Path, step: int) -> bool:
    """Whether the fit has a folder, and in it a checkpoint of this step or a later one."""
    names = names_in(Path(f"{out}.unfinished", "checkpoints"))
    saved = (int(name[5:]) for name in names or () if re.fullmatch(r"step-\d+", name))
    return names is not None and max(saved, default=0) >= step


def names_in(folder: Path) -> list[str] | None:
    """What a folder holds, or None where there is none: a fit renames its own at any moment."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return None


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def zygote():
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture(scope="module")
def unhurt(zygote, tmp_path_factory, digests):
    """Digests of a fit that nobody disturbed."""
    out = tmp_path_factory.mktemp("unhurt") / "run"
    assert zygote.fit(out) == 0
    return digests(out)


def kill_and_finish(zygote, out: Path, draws: random.Random, n_kills: int) -> int:
    """Kills a fit at random moments of its life, then lets it finish; how often it was killed.

    In order of time, so that no kill falls where the one before had already been.
    """
    n_killed = 0
    for step in sorted(draws.randint(0, N_STEPS) for _ in range(n_kills)):
        # a step takes some ms, what follows the last one (baselines, metrics, the run) far longer
        delay = draws.uniform(0.0, 1.5 if step == N_STEPS else 0.05)
        has_saved = partial(last_saved_is, out, step)
        n_killed += zygote.fit_and_signal(out, signal.SIGKILL, has_saved, delay) == -signal.SIGKILL
    assert zygote.fit(out) == 0
    return n_killed


@pytest.mark.parametrize("seed", range(4))
def test_a_fit_killed_at_a_random_moment_arrives_at_the_same_bytes(
    zygote, unhurt, tmp_path, digests, seed
):
    kill_and_finish(zygote, tmp_path / "run", random.Random(seed), n_kills=1)
    assert digests(tmp_path / "run") == unhurt
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # nothing is left beside it


def test_a_fit_killed_again_and_again_arrives_at_the_same_bytes(zygote, unhurt, tmp_path, digests):
    n_killed = 0
    for step in (0, 2, 5, 5, 8):
        has_saved = partial(last_saved_is, tmp_path / "run", step)
        status = zygote.fit_and_signal(tmp_path / "run", signal.SIGKILL, has_saved, 0.01)
        n_killed += status == -signal.SIGKILL
    assert n_killed >= 3
    assert zygote.fit(tmp_path / "run") == 0
    assert digests(tmp_path / "run") == unhurt


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.05])
def test_a_fit_killed_while_its_run_is_written_leaves_no_half_of_it(
    zygote, unhurt, tmp_path, digests, delay
):
    out = tmp_path / "run"

    def is_written() -> bool:
        drafts = [name for name in names_in(tmp_path) or () if name.startswith(".run.tmp-")]
        return any(names_in(tmp_path / draft) for draft in drafts) or out.exists()

    zygote.fit_and_signal(out, signal.SIGKILL, is_written, delay)
    if out.exists():
        verify_folder(out, "run")
    assert zygote.fit(out) == 0
    assert digests(out) == unhurt
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_at_random_moments_leave_no_trace(zygote, unhurt, tmp_path, digests):
    draws, n_killed = random.Random(7), 0
    for trial in range(20):  # what one kill spoils, no later one mends
        out = tmp_path / str(trial) / "run"
        out.parent.mkdir()
        n_killed += kill_and_finish(zygote, out, draws, n_kills=5)
        assert digests(out) == unhurt
        assert [path.name for path in out.parent.iterdir()] == ["run"]
    assert n_killed >= 60


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_fit_that_is_asked_to_stop_saves_and_can_be_resumed(
    zygote, unhurt, tmp_path, digests, number
):
    out = tmp_path / "run"
    assert zygote.fit_and_signal(out, number, partial(last_saved_is, out, 3)) == 75
    assert not out.exists()
    newest = max((tmp_path / "run.unfinished" / "checkpoints").iterdir())
    verify_folder(newest, "checkpoint")
    assert zygote.fit(out) == 0
    assert digests(out) == unhurt


def test_a_second_writer_is_turned_away_while_the_first_goes_on(
    zygote, unhurt, tmp_path, digests, small_model, train, task, small_config
):
    process = zygote.start(tmp_path / "run")
    while not (tmp_path / "run.unfinished").exists():
        time.sleep(0.001)
    with pytest.raises(OutputError, match=f"process {process} .* is writing this run"):
        fit(small_model, train, task=task, out=tmp_path / "run", config=small_config)
    assert zygote.wait() == 0
    assert digests(tmp_path / "run") == unhurt
