"""A step computed in parts, or by several processes, is the step of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from clinode.cohort import Classify, Cohort, Forecast, PackedRecords, Preprocessor, Survive
from clinode.sequence import MODELS, LinearLatentODE

DOUBLE = torch.float64
TASKS = {
    "classify": Classify("died", at=30.0, auxiliary=("stay",)),
    "forecast": Forecast(8.0, at=30.0),
    "survive": Survive("until", "event", landmark=24.0),
}


def make_cohort(n_subjects: int, seed: int = 0) -> Cohort:
    generator = np.random.default_rng(seed)
    n = generator.poisson(14, n_subjects) + 1
    subject = np.repeat(np.arange(n_subjects), n)
    level = generator.normal(size=n_subjects)
    observations = pd.DataFrame(
        {
            "subject_id": subject,
            "time": np.round(generator.uniform(0, 48, len(subject)), 2),
            "variable": np.array(["first", "second"])[generator.integers(0, 2, len(subject))],
            "value": np.exp(0.3 * level[subject] + 0.2 * generator.normal(size=len(subject))),
        }
    ).drop_duplicates(["subject_id", "time", "variable"])
    outcomes = pd.DataFrame(
        {
            "subject_id": np.arange(n_subjects),
            "died": (level + generator.normal(size=n_subjects) > 0).astype(float),
            "stay": np.where(np.arange(n_subjects) % 3 == 0, np.nan, level),
            "until": generator.exponential(60, n_subjects) + 20,
            "event": generator.integers(0, 2, n_subjects),
        }
    )
    return Cohort.from_tables(observations=observations, outcomes=outcomes)


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
@pytest.mark.parametrize("name", ["linear-latent-ode", "kalman-latent-ode", "latent-ode"])
def test_the_losses_of_parts_add_up_to_that_of_the_step(task, name):
    cohort = make_cohort(21)
    records = PackedRecords.build(cohort, Preprocessor.fit(cohort, task), task)
    model = MODELS[name](latent=3).build(records.schema, task, torch.Generator().manual_seed(0))
    model.prepare(records)
    model.double()
    whole = model.loss(records.batch(np.arange(21), DOUBLE), None)
    expected = torch.autograd.grad(whole, list(model.parameters()), allow_unused=True)
    parts = [records.batch(piece, DOUBLE) for piece in np.array_split(np.arange(21), 4)]
    counts = torch.stack([model.counts(part) for part in parts]).sum(dim=0)
    torch.testing.assert_close(counts, model.counts(records.batch(np.arange(21), DOUBLE)))
    model.zero_grad(set_to_none=True)
    total = 0.0
    for part in parts:
        loss = model.loss(part, None, counts)
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole.item(), rel=1e-12)
    for parameter, slope in zip(model.parameters(), expected, strict=True):
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        wanted = torch.zeros_like(parameter) if slope is None else slope
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-13)


PROGRAM = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import torch

torch.set_num_threads(1)
from test_distributed import fit_double, make_cohort

fit_double(Path(sys.argv[2]), make_cohort(40), make_cohort(20, seed=1).take(range(20)))
"""


def fit_double(out: Path, train: Cohort, tune: Cohort, accumulate: int = 1):
    """A fit in float64 that draws nothing, so that only the order of sums can differ."""
    import clinode
    from clinode.sequence import SequenceModel
    from clinode.training import FitConfig, fit

    shifted = {
        "observations": tune.observations.assign(subject_id=lambda t: t["subject_id"] + 1000),
        "outcomes": pd.DataFrame(tune.outcomes).assign(subject_id=lambda t: t["subject_id"] + 1000),
    }
    build = SequenceModel.build

    def double(self, schema, task, generator):
        return build(self, schema, task, generator).double()

    batch = PackedRecords.batch
    SequenceModel.build = double
    PackedRecords.batch = lambda self, indices, dtype=DOUBLE, device="cpu", **asked: batch(
        self, indices, DOUBLE, device, **asked
    )
    try:
        model = LinearLatentODE(
            latent=3,
            hidden=4,
            statistics_hidden=4,
            head_hidden=4,
            dropout=0.0,
            statistics_dropout=0.0,
            drop_variable=0.0,
            drop_observation=0.0,
        )
        config = FitConfig(epochs=3, batch_size=16, bucket_batches=2, accumulate=accumulate)
        return fit(
            model,
            train,
            Cohort.from_tables(**shifted),
            task=clinode.Classify("died", at=30.0),
            out=out,
            config=config,
            progress=False,
        )
    finally:
        SequenceModel.build, PackedRecords.batch = build, batch


def curve(folder: Path) -> np.ndarray:
    found = json.loads((folder / "metrics.json").read_text())["curve"]
    return np.array([[one["train_loss"], one["tune_loss"]] for one in found])


def test_a_fit_in_parts_is_the_fit(tmp_path):
    train, tune = make_cohort(40), make_cohort(20, seed=1)
    fit_double(tmp_path / "whole", train, tune)
    fit_double(tmp_path / "parts", train, tune, accumulate=3)
    np.testing.assert_allclose(curve(tmp_path / "parts"), curve(tmp_path / "whole"), rtol=1e-10)


@pytest.mark.slow
def test_two_processes_fit_what_one_fits(tmp_path):
    train, tune = make_cohort(40), make_cohort(20, seed=1)
    fit_double(tmp_path / "one", train, tune)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517"]
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, *launch, str(program), here, str(tmp_path / "two")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(curve(tmp_path / "two"), curve(tmp_path / "one"), rtol=1e-6)
    ours, other = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    for name, value in ours.items():
        torch.testing.assert_close(value, other[name], rtol=1e-6, atol=1e-8)
