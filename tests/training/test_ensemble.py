import json
import shutil

import numpy as np
import pytest

from clinode.cohort import Classify, Forecast
from clinode.errors import ArgumentError, CheckpointError, OutputError
from clinode.sequence import LinearLatentODE
from clinode.training import FitConfig, load_run
from clinode.training.ensemble import fit_ensemble, load_ensemble
from clinode.training.forecasting import forecast_moments, moments_table

QUICK = FitConfig(epochs=1, batch_size=32)


@pytest.fixture(scope="module")
def parts(make_cohort):
    return make_cohort(80), make_cohort(40, seed=1, first_id=1001)


@pytest.fixture(scope="module")
def risks(parts, tmp_path_factory):
    out = tmp_path_factory.mktemp("ensemble") / "risk"
    model = LinearLatentODE(latent=4)
    return fit_ensemble(
        model, *parts, task=Classify("died"), out=out, seeds=(3, 5), config=QUICK, progress=False
    )


def test_the_ensemble_says_the_mean_logit_of_its_members(risks, parts):
    table = risks.predict(parts[1])
    members = [load_run(risks.folder / f"seed-{s}").predict(parts[1]) for s in (3, 5)]
    first, second = (member["logit"].to_numpy() for member in members)
    assert not np.allclose(first, second)
    logit = (first + second) / 2
    np.testing.assert_allclose(table["logit"], logit, rtol=1e-12)
    np.testing.assert_allclose(table["probability"], 1 / (1 + np.exp(-logit)), rtol=1e-12)
    loaded = load_ensemble(risks.folder).predict(parts[1])
    np.testing.assert_array_equal(loaded["logit"], table["logit"])
    outcome = parts[1].outcomes["died"].to_numpy()
    brier = np.mean((table["probability"].to_numpy() - outcome) ** 2)
    measured = risks.evaluate(parts[1], n_resamples=20).to_dict()
    assert measured["brier"]["value"] == pytest.approx(brier, rel=1e-9)


def test_a_forecast_is_the_mixture_of_its_members(parts, tmp_path):
    ensemble = fit_ensemble(
        LinearLatentODE(latent=4),
        parts[0],
        task=Forecast(horizon=12.0, at=24.0),
        out=tmp_path / "forecast",
        seeds=(0, 1),
        config=QUICK,
        progress=False,
    )
    hours = np.array([6.0])
    records = ensemble.runs[0].records(parts[1])
    (m0, s0), (m1, s1) = (forecast_moments(run, records, hours) for run in ensemble.runs)
    assert not np.allclose(m0, m1)
    spread = np.sqrt((s0**2 + s1**2) / 2 + (m0 - m1) ** 2 / 4)  # of two equal parts, by hand
    factor = np.full(m0.shape[2], 1.6448536269514722)  # of a normal distribution: no calibration
    expected = moments_table(records, hours, (m0 + m1) / 2, spread, factor)
    found = ensemble.predict(parts[1], hours_after=[6.0])
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-9)
    assert ensemble.evaluate(parts[1], n_resamples=20).to_dict()


def test_an_ensemble_refuses_other_seeds_and_exchanged_members(risks, parts, tmp_path):
    model, task = LinearLatentODE(latent=4), Classify("died")
    with pytest.raises(OutputError, match="other seeds"):
        fit_ensemble(model, *parts, task=task, out=risks.folder, seeds=(3,), config=QUICK)
    with pytest.raises(ArgumentError, match="different from each other"):
        fit_ensemble(model, *parts, task=task, out=tmp_path / "twice", seeds=(3, 3))
    copy = tmp_path / "copy"
    shutil.copytree(risks.folder, copy)
    stored = json.loads((copy / "ensemble.json").read_text())
    stored["seeds"] = stored["seeds"][::-1]
    (copy / "ensemble.json").write_text(json.dumps(stored))
    with pytest.raises(CheckpointError, match="another run than"):
        load_ensemble(copy)
