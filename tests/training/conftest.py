import hashlib
import importlib.util
from pathlib import Path

import pytest

from clinode.cohort import Classify, Forecast
from clinode.sequence import LinearLatentODE
from clinode.training import FitConfig, fit


def _load(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


small_cohort = _load("small_cohort")


@pytest.fixture(scope="session")
def make_tables():
    """Function (n_subjects, seed, first_id) -> tables of a small cohort."""
    return small_cohort.make_tables


@pytest.fixture(scope="session")
def make_cohort():
    """Function (n_subjects, seed, first_id) -> a small cohort."""
    return small_cohort.make_cohort


@pytest.fixture(scope="session")
def train(make_cohort):
    return make_cohort(120, seed=0)


@pytest.fixture(scope="session")
def held_out(make_cohort):
    return make_cohort(200, seed=1, first_id=5001)


@pytest.fixture(scope="session")
def task():
    return Classify("died", at=48.0)


@pytest.fixture(scope="session")
def small_model():
    """A configuration that trains in a fraction of a second."""
    return LinearLatentODE(latent=3, hidden=6, statistics_hidden=6, head_hidden=8, static_code=4)


@pytest.fixture(scope="session")
def small_config():
    return FitConfig(epochs=3, batch_size=16, bucket_batches=2)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory, small_model, train, task, small_config):
    """A run that nobody may change."""
    out = tmp_path_factory.mktemp("runs") / "death"
    return fit(small_model, train, task=task, out=out, config=small_config, progress=False)


@pytest.fixture(scope="session")
def forecaster(tmp_path_factory, small_model, train, small_config):
    """A forecasting run that nobody may change."""
    out = tmp_path_factory.mktemp("runs") / "course"
    task = Forecast(24.0, at=24.0)
    return fit(small_model, train, task=task, out=out, config=small_config, progress=False)


@pytest.fixture(scope="session")
def digests():
    """Function (run folder) -> SHA-256 of what a run computes, by file."""

    def of(folder: Path) -> dict[str, str]:
        names = (
            "model.safetensors",
            "baselines.safetensors",
            "metrics.json",
            "predictions.parquet",
            "schema.json",
            "config.yaml",
            "split.parquet",
        )
        return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}

    return of
