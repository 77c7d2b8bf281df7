"""How long `import clinode` and `clinode --help` take, as a person meets them.

    python scripts/benchmarks/startup.py [--repeats 10] [--json]

Each is a new process; the median is what counts, the first run (cold caches) is shown apart. The
time of `python -c pass` stands beside them, since nobody can be quicker.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": (["-c", "pass"], None),
    "import clinode": (["-c", "import clinode"], 0.3),
    "clinode --help": (["-m", "clinode", "--help"], 0.5),
    "clinode fit --help": (["-m", "clinode", "fit", "--help"], 0.5),
}


def seconds_of(arguments: list[str], repeats: int) -> list[float]:
    """Wall time of each of several new processes."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Start-up times.")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for name, (arguments, goal) in COMMANDS.items():
        taken = seconds_of(arguments, options.repeats)
        rows.append(
            {"what": name, "first": taken[0], "median": statistics.median(taken), "goal": goal}
        )
    if options.json:
        print(json.dumps({"python": platform.python_version(), "rows": rows}))
        return
    for row in rows:
        goal = "" if row["goal"] is None else f"  goal {row['goal']:.1f} s"
        print(f"{row['what']:<20} median {row['median']:.3f} s  first {row['first']:.3f} s{goal}")


if __name__ == "__main__":
    main()
