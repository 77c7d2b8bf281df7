"""The environment of a checkout: a virtual environment in `.venv` with the locked dependencies.

Shared by `demo.py` and `test.py`. Standard library only, and nothing newer than Python 3.6 in its
grammar, so that a Python that is too old can still say so.
"""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / "clinode-stamp"
LOG = ENVIRONMENT / "install.log"
OLDEST = (3, 11)
GIGABYTES_NEEDED = 4  # about 2 for what is installed, as much again while it is unpacked


def ready_python():
    """Path of the environment's Python, with the environment made or brought up to date.

    Ends the program with one readable line where that cannot be done.
    """
    if sys.version_info < OLDEST:
        give_up(
            "clinode needs Python {}.{} or newer; this is {}.{}. Run the script with a newer one, "
            "such as python3.11.".format(*(OLDEST + tuple(sys.version_info[:2])))
        )
    wanted = fingerprint()
    if STAMP.is_file() and STAMP.read_text() == wanted and works(python_inside()):
        return python_inside()
    free = shutil.disk_usage(str(ROOT)).free / 1e9
    if free < GIGABYTES_NEEDED and not works(python_inside()):
        give_up_for_space()
    try:
        make_environment()
        install()
        STAMP.write_text(wanted)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            give_up_for_space()
        give_up("the environment could not be made: {}".format(error))
    return python_inside()


def python_inside():
    """Where the environment's Python is on this system."""
    if os.name == "nt":
        return ENVIRONMENT / "Scripts" / "python.exe"
    return ENVIRONMENT / "bin" / "python"


def run(command, **variables):
    """Run a command in the checkout, with variables added to its environment; its exit code."""
    command = [str(part) for part in command]
    try:
        return subprocess.call(command, cwd=str(ROOT), env=dict(os.environ, **variables))
    except KeyboardInterrupt:
        return 130


def start(command, output, **variables):
    """Start a command in the checkout that writes all it says to a file."""
    command = [str(part) for part in command]
    variables = dict(os.environ, **variables)
    return subprocess.Popen(
        command, cwd=str(ROOT), env=variables, stdout=output, stderr=subprocess.STDOUT
    )


def fingerprint():
    """What the environment depends on: the lock, the package's own needs, where it all lies."""
    parts = [(ROOT / "requirements.lock").read_bytes(), (ROOT / "pyproject.toml").read_bytes()]
    parts += [str(ROOT).encode(), "{}.{}".format(*sys.version_info[:2]).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def works(python):
    """Whether a Python can be run at all (an environment may have been moved)."""
    if not python.is_file():
        return False
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        return subprocess.call([str(python), "-c", "import pip, clinode"], **quiet) == 0
    except OSError:
        return False


def make_environment():
    """Make `.venv` unless a working one is there."""
    if python_inside().is_file():
        usable = "import pip, sys; sys.exit(sys.version_info < (3, 11))"
        probe = [str(python_inside()), "-c", usable]
        if subprocess.call(probe, stderr=subprocess.DEVNULL) == 0:
            return
    say("Making a virtual environment in .venv")
    command = [sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode != 0:
        show_tail(made.stdout.decode(errors="replace"))
        give_up(
            "the virtual environment could not be made. On Debian and Ubuntu it needs the package "
            "python3-venv."
        )


def install():
    """Install the locked dependencies, then the package itself, in place."""
    say("Installing the locked dependencies into .venv (some minutes, once)")
    pip = [str(python_inside()), "-m", "pip", "install", "--disable-pip-version-check"]
    pip += ["--no-input", "--no-color"]
    steps = [
        [*pip, "-r", str(ROOT / "requirements.lock")],
        [*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)],
    ]
    with LOG.open("wb") as log:
        for step in steps:
            log.flush()
            if subprocess.call(step, stdout=log, stderr=subprocess.STDOUT, cwd=str(ROOT)) != 0:
                fail_to_install()


def fail_to_install():
    """Say why pip failed, as far as its own words tell."""
    told = LOG.read_bytes().decode(errors="replace")
    show_tail(told)
    if "No space left on device" in told or "not enough space" in told:
        give_up_for_space()
    give_up("the dependencies could not be installed; all that pip said is in {}.".format(LOG))


def show_tail(text, lines=15):
    """Print the last lines of what a program said."""
    for line in text.strip().splitlines()[-lines:]:
        print("    " + line.encode("ascii", "replace").decode())


def say(text):
    """Tell what happens, at once."""
    print(text, flush=True)


def give_up_for_space():
    """End with one line about the full disk."""
    free = shutil.disk_usage(str(ROOT)).free / 1e9
    give_up(
        "the disk is full: installing needs about {} GB, {:.1f} GB are free. Free some space and "
        "run it again.".format(GIGABYTES_NEEDED, free),
        6,
    )


def give_up(problem, code=2):
    """End with one line that says why."""
    print("error: " + problem, file=sys.stderr, flush=True)
    sys.exit(code)
