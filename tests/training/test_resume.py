"""A fit that is killed anywhere goes on to the bytes of one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clinode.folder import verify_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

UNHURT = Path(__file__).with_name("zygote.py")


class Zygote:
    """Starts fits in processes of their own; see zygote.py."""

    def __init__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(UNHURT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self._answer() == "ready"

    def fit(self, out: Path, *signals: tuple[float, signal.Signals]) -> int:
        """The exit status of a fit to which each signal was sent after its delay, seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{out}\n")
        self._process.stdin.flush()
        process = int(self._answer())
        for delay, number in signals:
            time.sleep(delay)
            try:
                os.kill(process, number)
            except ProcessLookupError:
                break
        return int(self._answer())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture(scope="module")
def zygote():
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture(scope="module")
def unhurt(zygote, tmp_path_factory, digests):
    """Digests of a fit that nobody disturbed, and how long it took."""
    out = tmp_path_factory.mktemp("unhurt") / "run"
    started = time.monotonic()
    assert zygote.fit(out) == 0
    return digests(out), time.monotonic() - started


def kill_and_resume(zygote, out: Path, moments: list[float]) -> int:
    """Kills a fit at each moment after its start, then lets it finish; how often it was killed."""
    n_killed = 0
    for moment in moments:
        status = zygote.fit(out, (moment, signal.SIGKILL))
        n_killed += status == -signal.SIGKILL
        if status == 0:
            break
    assert zygote.fit(out) == 0
    return n_killed


@pytest.mark.parametrize("seed", range(6))
def test_a_fit_killed_at_a_random_moment_arrives_at_the_same_bytes(
    zygote, unhurt, tmp_path, digests, seed
):
    expected, duration = unhurt
    moment = random.Random(seed).uniform(0.0, 0.95 * duration)
    kill_and_resume(zygote, tmp_path / "run", [moment])
    assert digests(tmp_path / "run") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # nothing is left beside it


def test_a_fit_killed_again_and_again_arrives_at_the_same_bytes(zygote, unhurt, tmp_path, digests):
    expected, duration = unhurt
    draws = random.Random(99)
    n_killed = kill_and_resume(
        zygote, tmp_path / "run", [draws.uniform(0.1, 0.4) * duration for _ in range(8)]
    )
    assert n_killed >= 2
    assert digests(tmp_path / "run") == expected


@pytest.mark.slow
def test_sixty_kills_at_random_moments_leave_no_trace(zygote, unhurt, tmp_path, digests):
    expected, duration = unhurt
    draws = random.Random(7)
    for trial in range(60):
        out = tmp_path / str(trial) / "run"
        out.parent.mkdir()
        moments = [draws.uniform(0.0, 1.0) * duration for _ in range(draws.randint(1, 3))]
        kill_and_resume(zygote, out, moments)
        assert digests(out) == expected
        assert [path.name for path in out.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_fit_that_is_asked_to_stop_saves_and_can_be_resumed(
    zygote, unhurt, tmp_path, digests, number, share
):
    expected, duration = unhurt
    out = tmp_path / "run"
    status = zygote.fit(out, (share * duration, number))
    assert status == 75
    assert not out.exists()
    newest = max((tmp_path / "run.unfinished" / "checkpoints").iterdir())
    verify_folder(newest, "checkpoint")
    assert zygote.fit(out) == 0
    assert digests(out) == expected


def test_a_second_writer_is_turned_away_while_the_first_goes_on(zygote, unhurt, tmp_path, digests):
    expected, duration = unhurt
    other = Zygote()
    try:
        assert zygote._process.stdin is not None
        zygote._process.stdin.write(f"{tmp_path / 'run'}\n")
        zygote._process.stdin.flush()
        zygote._answer()
        time.sleep(0.3 * duration)
        assert other.fit(tmp_path / "run") == 2
        assert int(zygote._answer()) == 0
    finally:
        other.close()
    assert digests(tmp_path / "run") == expected
