import contextlib
import io
import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clinode.cli import main

SECRET = "MRN-8675309"  # begins every identifier: no output may hold it
SETTINGS = ("--set", "fit.epochs=2", "--set", "model.latent=4")


@dataclass(frozen=True)
class Ended:
    """How a call of the command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def call(*words: object) -> Ended:
    """Call the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    earlier = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([str(word) for word in words])
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    finally:
        signal.signal(signal.SIGTERM, earlier)
    return Ended(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def cli():
    """Calls the command line in this process: `cli("check", folder)` -> code, out, err."""
    return call


@pytest.fixture(scope="session")
def secret() -> str:
    """What every identifier of the test data begins with."""
    return SECRET


@pytest.fixture(scope="session")
def quick() -> tuple[str, ...]:
    """Settings of a fit that takes seconds."""
    return SETTINGS


@pytest.fixture(scope="session")
def make_stays():
    """Writes a folder of tables: `make_stays(folder, n_subjects)`."""
    return write_stays


def write_stays(folder: Path, n_subjects: int = 80, seed: int = 0) -> Path:
    """A folder of CSV tables: two variables, and sicker subjects are measured more often.

    The last subject is never measured and the one before it once.
    """
    generator = np.random.default_rng(seed)
    rows, outcomes = [], []
    for number in range(n_subjects):
        sick = generator.random() < 0.4
        subject = f"{SECRET}-{number:03d}"
        n_rows = {n_subjects - 1: 0, n_subjects - 2: 1}.get(number, 6 + 4 * sick)
        for hour in np.sort(generator.uniform(0, 24, n_rows)).round(3):
            rows.append((subject, hour, "HR", round(80 + 25 * sick + generator.normal(0, 8), 1)))
            rows.append((subject, hour, "Temp", round(37 + generator.normal(0, 0.4), 2)))
        outcomes.append((subject, int(sick)))
    folder.mkdir(parents=True, exist_ok=True)
    columns = ["subject_id", "time", "variable", "value"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "observations.csv", index=False)
    table = pd.DataFrame(outcomes, columns=["subject_id", "died"])
    table.to_csv(folder / "outcomes.csv", index=False)
    statics = table[["subject_id"]].assign(Age=generator.integers(20, 90, n_subjects))
    statics.to_csv(folder / "statics.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def stays(tmp_path_factory) -> Path:
    return write_stays(tmp_path_factory.mktemp("data") / "stays")


@pytest.fixture(scope="session")
def run_folder(stays, tmp_path_factory) -> Path:
    """A run that the command line fitted on `stays`."""
    out = tmp_path_factory.mktemp("runs") / "death"
    ended = call("fit", stays, "--outcome", "died", "--out", out, *SETTINGS)
    assert ended.code == 0, ended.err
    return out
