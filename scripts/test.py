"""Make the environment where it is missing, then run every check in it.

    python scripts/test.py [--data DIR] [--quick]

Lint, format, import directions, tests and doctests (quick ones, then slow ones), notebooks, and
types beside them. All of them run, whatever fails; a table at the end says which passed, and the
exit code is 0 only when all did. Standard library only; nothing of the system is touched.
"""

import argparse
import os
import sys
import tempfile
import time

import environment

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# Compiled modules are kept, whatever the caller says: tests start dozens of processes.
ONE_THREAD["PYTHONDONTWRITEBYTECODE"] = ""


def checks(python, data, quick):
    """What runs at one time, in order: each a list of names, commands, environment variables."""
    pytest = [python, "-m", "pytest", "-q", "--durations=8"]
    if data:  # in one word: pytest would take a second one for a place to look for its settings
        pytest += ["--data={}".format(data)]
    # Two workers of one thread each, each with files of its own, so that what a module fits is
    # fitted once; who is done early takes tests from the other.
    side_by_side = ["-n", "2", "--dist", "worksteal"]
    types = ("types", [python, "-m", "basedpyright"], {})
    rows = [
        [("lint", [python, "-m", "ruff", "check", "."], {})],
        [("format", [python, "-m", "ruff", "format", "--check", "."], {})],
        [("files", [python, "scripts/hooks.py", "all"], {})],
        [("import directions", [python.parent / "lint-imports", "--no-logo"], {})],
        [("tests and doctests", pytest + side_by_side + ["-m", "not slow"], ONE_THREAD)],
    ]
    if quick:
        return [*rows, [types]]
    # Quick tests check shapes and types; long computations run as a user runs them.
    unchecked = ["--jaxtyping-packages="]
    notebooks = [python, "-m", "pytest", "-q", "--nbmake", "--nbmake-timeout=300", "notebooks"]
    # Some tests wait for a process of their own, so nothing runs beside them; notebooks do not.
    return [
        *rows,
        [("slow tests", pytest + unchecked + side_by_side + ["-m", "slow"], ONE_THREAD)],
        [("notebooks", notebooks + side_by_side, ONE_THREAD), types],
    ]


def run_beside(rows):
    """Name, exit code and seconds of each check; the first speaks at once, the others when done."""
    (name, command, variables), others = rows[0], rows[1:]
    start, started = time.monotonic(), []
    try:
        for other, its_command, its_variables in others:
            output = tempfile.TemporaryFile()
            process = environment.start(its_command, output, **its_variables)
            started.append((other, process, output))
        environment.say("\n== {} ==".format(name))
        code = environment.run(command, **variables)
        results = [(name, code, time.monotonic() - start)]
        if code == 130:
            return results
        for other, process, output in started:
            code = process.wait()
            results.append((other, code, time.monotonic() - start))
            output.seek(0)
            environment.say("\n== {} ==".format(other))
            environment.say(output.read().decode("utf-8", "replace").rstrip())
        return results
    finally:
        for _, process, output in started:
            if process.poll() is None:
                process.kill()
                process.wait()
            output.close()


def main():
    """Run the checks and say which passed."""
    parser = argparse.ArgumentParser(description="Run every check of the project.")
    parser.add_argument("--data", metavar="DIR", help="folder with the open data sets")
    parser.add_argument("--quick", action="store_true", help="leave out slow tests and notebooks")
    options = parser.parse_args()
    data = os.path.abspath(options.data) if options.data else None
    python = environment.ready_python()
    results = []
    for rows in checks(python, data, options.quick):
        results += run_beside(rows)
        if results[-1][1] == 130:
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
