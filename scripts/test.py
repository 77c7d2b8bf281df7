"""Make the environment where it is missing, then run every check in it.

    python scripts/test.py [--data DIR] [--quick]

Lint, format, import directions, types, tests and doctests (quick ones, then slow ones), notebooks.
All of them run, whatever fails; a table at the end says which passed, and the exit code is 0 only
when all did. Standard library only; nothing of the system is touched.
"""

import argparse
import os
import sys
import time

import environment

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# Compiled modules are kept, whatever the caller says: tests start dozens of processes.
ONE_THREAD["PYTHONDONTWRITEBYTECODE"] = ""


def checks(python, data, quick):
    """Name, command and environment variables of each check, in the order they run."""
    pytest = [python, "-m", "pytest", "-q", "--durations=8"]
    if data:  # in one word: pytest would take a second one for a place to look for its settings
        pytest += ["--data={}".format(data)]
    # Two workers of one thread each, each with files of its own, so that what a module fits is
    # fitted once; who is done early takes tests from the other.
    side_by_side = ["-n", "2", "--dist", "worksteal"]
    rows = [
        ("lint", [python, "-m", "ruff", "check", "."], {}),
        ("format", [python, "-m", "ruff", "format", "--check", "."], {}),
        ("files", [python, "scripts/hooks.py", "all"], {}),
        ("import directions", [python.parent / "lint-imports", "--no-logo"], {}),
        ("types", [python, "-m", "basedpyright"], {}),
        ("tests and doctests", pytest + side_by_side + ["-m", "not slow"], ONE_THREAD),
    ]
    if not quick:
        # Quick tests check shapes and types; long computations run as a user runs them.
        unchecked = ["--jaxtyping-packages="]
        notebooks = [python, "-m", "pytest", "-q", "--nbmake", "--nbmake-timeout=300", "notebooks"]
        rows += [
            ("slow tests", pytest + unchecked + side_by_side + ["-m", "slow"], ONE_THREAD),
            ("notebooks", notebooks, ONE_THREAD),
        ]
    return rows


def main():
    """Run the checks and say which passed."""
    parser = argparse.ArgumentParser(description="Run every check of the project.")
    parser.add_argument("--data", metavar="DIR", help="folder with the open data sets")
    parser.add_argument("--quick", action="store_true", help="leave out slow tests and notebooks")
    options = parser.parse_args()
    data = os.path.abspath(options.data) if options.data else None
    python = environment.ready_python()
    results = []
    for name, command, variables in checks(python, data, options.quick):
        environment.say("\n== {} ==".format(name))
        start = time.monotonic()
        code = environment.run(command, **variables)
        results.append((name, code, time.monotonic() - start))
        if code == 130:
            break
    environment.say("\n== summary ==")
    for name, code, seconds in results:
        word = "passed" if code == 0 else "FAILED ({})".format(code)
        environment.say("{:<20} {:>6.0f} s  {}".format(name, seconds, word))
    return int(any(code != 0 for _, code, _ in results))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
