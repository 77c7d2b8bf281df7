"""What a fit foretells against what it then took: time left after one epoch, and peak memory.

Each fit runs in a process of its own on the simulated cohort. Beside the time told at the end of
the first epoch stands the time until the last one was over, beside the foretold peak the largest
resident set that the system saw (`ru_maxrss`), and the same without what was held before.

    python scripts/benchmarks/foretold.py [--subjects 400] [--epochs 4] [--cpu]
"""

import argparse
import functools
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FAMILIES = ("linear-latent-ode", "gru-d", "ode-rnn")
BATCHES = (32, 256)
LEFT = re.compile(r"epoch 1: .* (?:at most|about) (?:(\d+) h ?)?(?:(\d+) min ?)?(?:(\d+) s )?left")
HELD = re.compile(r"([\d.]+) ([MG])B of them held")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--subjects", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument(
        "--cpu", action="store_true", help="count CPU seconds, on a machine with more to do"
    )
    parser.add_argument("--one", nargs=2, metavar=("FAMILY", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        fit_one(options.one[0], int(options.one[1]), options)
        return
    print(f"{options.subjects} simulated subjects, {options.epochs} epochs")
    for family in FAMILIES:
        for batch in BATCHES:
            sizes = ("--subjects", str(options.subjects), "--epochs", str(options.epochs))
            clock = ["--cpu"] if options.cpu else []
            command = [sys.executable, __file__, *sizes, *clock, "--one", family, str(batch)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            told, found = done.stderr, json.loads(done.stdout)
            report(f"{family}, batches of {batch}", told, found)


class Stopwatch:
    """A tracker that notes when epochs end."""

    def __init__(self, clock: Callable[[], float]):
        self.clock, self.epochs = clock, []

    def start(self, name: str, settings: Mapping[str, Any], *, identity: str, step: int) -> None:
        """Nothing is counted yet."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Of an epoch, its end."""
        if "epoch/loss" in values:
            self.epochs.append(self.clock())

    def finish(self, status: str) -> None:
        """Nothing is left to do."""


def fit_one(family: str, batch: int, options: argparse.Namespace) -> None:
    """One fit; prints what it took as JSON, and what it foretold to the standard error."""
    import clinode
    from clinode.sequence import MODELS
    from clinode.training import loop
    from clinode.training.time_left import TimeLeft

    clock = time.process_time if options.cpu else time.monotonic
    loop.TimeLeft = functools.partial(TimeLeft, clock=clock)
    stopwatch = Stopwatch(clock)
    cohort = clinode.simulate_cohort(options.subjects, seed=0)
    train, tune, _ = clinode.split(cohort)
    with tempfile.TemporaryDirectory() as folder:
        run = clinode.fit(
            MODELS[family](),
            train,
            tune,
            task=clinode.Classify("in_hospital_death"),
            out=Path(folder) / "run",
            config=clinode.FitConfig(epochs=options.epochs, batch_size=batch),
            trackers=[stopwatch],
        )
        lines = (run.folder / "log.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    ends = stopwatch.epochs
    (foretold,) = [line["expected_peak_bytes"] for line in told if line["event"] == "memory"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux
    print(json.dumps({"took": ends[-1] - ends[0], "foretold": foretold, "peak": peak}))


def report(name: str, told: str, found: dict[str, float]) -> None:
    """One line of the table."""
    left, held = LEFT.search(told), HELD.search(told)
    if left is None or held is None:
        print(f"{name}: nothing was foretold")
        return
    hours, minutes, seconds = (float(part or 0) for part in left.groups())
    seconds += 3600 * hours + 60 * minutes
    before = float(held[1]) * (1e9 if held[2] == "G" else 1e6)
    print(
        f"{name}: {seconds:.0f} s left told, {found['took']:.1f} s taken "
        f"({seconds / found['took']:.2f}); peak {found['foretold'] / 1e6:.0f} MB told, "
        f"{found['peak'] / 1e6:.0f} MB measured ({found['foretold'] / found['peak']:.2f}; beyond "
        f"what was held {(found['foretold'] - before) / (found['peak'] - before):.2f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
