import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of a process are others there")
LONGER = ("--set", "fit.epochs=40", "--set", "model.latent=4", "--set", "fit.checkpoint_seconds=0")


def start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "clinode", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_until(condition, process: subprocess.Popen[str]) -> None:
    """Wait until something is so; the process must live until then."""
    limit = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.01)


def has_checkpoint(out) -> bool:
    folder = out.with_name(f"{out.name}.unfinished") / "checkpoints"
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_fit_exits_with_75_and_the_same_command_arrives_at_the_same_bytes(
    stays, tmp_path, number
):
    out = tmp_path / "stopped"
    call = ("fit", stays, "--outcome", "died", *LONGER)
    process = start(*call, "--out", out)
    wait_until(lambda: has_checkpoint(out), process)
    process.send_signal(number)
    _, told = process.communicate(timeout=180)
    assert process.returncode == 75, told
    assert "goes on" in told
    assert not out.exists()
    for place in (out, tmp_path / "straight"):
        process = start(*call, "--out", place)
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
    weights = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("stopped", "straight")]
    assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_cannot_be_resumed_exits_with_130_and_leaves_nothing(tmp_path, number):
    out = tmp_path / "demo"
    process = start("demo", out, "--subjects", "2000")
    wait_until(lambda: any(tmp_path.iterdir()), process)
    process.send_signal(number)
    _, told = process.communicate(timeout=180)
    assert process.returncode == 130, told
    assert "interrupted" in told
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_exits_with_6_and_leaves_nothing_half_written(run_folder, stays, tmp_path):
    code = (
        "import resource, sys; from clinode.cli import main; "
        "sys.dont_write_bytecode = True; "  # or compiled modules would be cut off too
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); main(sys.argv[1:])"
    )
    words = ["predict", str(run_folder), str(stays), "--out", str(tmp_path / "p.csv")]
    command = [sys.executable, "-c", code, *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 6, ended.stderr
    assert "full" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_output_that_nobody_reads_any_more_is_no_error():
    with start("list", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=120) == 0
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_help_is_shown_whatever_the_terminal_knows(locale):
    command = [sys.executable, "-m", "clinode", "--help"]
    environment = {**os.environ, "LC_ALL": locale, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(command, capture_output=True, env=environment, check=True).stdout
    assert b"evaluate" in shown
