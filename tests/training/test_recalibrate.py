import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from clinode.cohort import Cohort
from clinode.errors import ArgumentError, CheckpointError, OutputError, SchemaError
from clinode.training import evaluate, load_run
from clinode.training.recalibrate import recalibrate


def with_truth(run, cohort, change, seed=0):
    """The cohort with outcomes drawn from a changed logit of the run."""
    logit = run.logits(run.records(cohort))
    died = np.random.default_rng(seed).random(len(logit)) < expit(change(logit))
    outcomes = pd.DataFrame({"subject_id": cohort.subjects, "died": died.astype(float)})
    return Cohort.from_tables(cohort.observations, statics=cohort.statics, outcomes=outcomes)


@pytest.fixture(scope="module")
def shifted(fitted, make_cohort):
    """Where the outcome is commoner than the run thinks."""
    return with_truth(fitted, make_cohort(900, seed=5, first_id=20_001), lambda z: z + 1.0)


@pytest.fixture(scope="module")
def mended(fitted, shifted, tmp_path_factory):
    out = tmp_path_factory.mktemp("recalibrated") / "death"
    return recalibrate(fitted, shifted, out=out, method="platt", n_resamples=60)


def test_a_recalibrated_run_says_what_the_map_of_its_logit_says(fitted, mended, shifted):
    raw = fitted.predict(shifted)["logit"].to_numpy()
    shown = mended.predict(shifted)
    expected = mended.calibration.slope * raw + mended.calibration.value[0]
    np.testing.assert_allclose(shown["logit"], expected, rtol=1e-9)
    np.testing.assert_allclose(shown["probability"], expit(expected), rtol=1e-9)
    np.testing.assert_array_equal(mended.logits(mended.records(shifted)), raw)
    assert mended.weights_sha256 == fitted.weights_sha256
    assert mended.metrics == fitted.metrics


def test_new_subjects_are_better_calibrated(fitted, mended, make_cohort):
    new = with_truth(fitted, make_cohort(900, seed=6, first_id=40_001), lambda z: z + 1.0, seed=1)
    before, after = (evaluate(run, new, n_resamples=50).to_dict() for run in (fitted, mended))
    assert before["calibration_intercept"]["value"] > 0.7
    assert abs(after["calibration_intercept"]["value"]) < 0.3
    assert after["ece"]["value"] < before["ece"]["value"]
    assert after["auroc"]["value"] == pytest.approx(before["auroc"]["value"], abs=1e-12)


def test_the_evidence_is_stored_and_its_subjects_took_part(mended, shifted, tmp_path):
    stored = json.loads((mended.folder / "recalibration.json").read_text())
    rows = {row["method"]: row for row in stored["evidence"]}
    assert rows["none"]["calibration_intercept"]["low"] > 0.5
    assert rows["platt"]["log_loss"]["value"] < rows["none"]["log_loss"]["value"]
    assert stored["verdict"].startswith("platt: cross-validated log loss -")
    took = mended.parts.set_index("subject_id")["split"]
    assert (took.loc[shifted.subjects] == "calibrate").all()
    assert evaluate(mended, shifted, n_resamples=20).n_trained_on == len(shifted)
    shutil.copytree(mended.folder, tmp_path / "run")
    path = tmp_path / "run" / "recalibration.json"
    path.write_text(path.read_text().replace("platt", "plumb"))
    with pytest.raises(CheckpointError, match="recalibration"):
        load_run(tmp_path / "run")


def test_a_risk_that_is_right_is_left_as_it_is(fitted, make_cohort, tmp_path):
    right = with_truth(fitted, make_cohort(300, seed=7, first_id=60_001), lambda z: z)
    left = recalibrate(fitted, right, out=tmp_path / "run", n_resamples=100)
    assert left.calibration.method == "none"
    assert "left as it is" in left.calibration.verdict
    pd.testing.assert_frame_equal(left.predict(right), fitted.predict(right))


def test_what_cannot_be_recalibrated_is_refused(fitted, forecaster, train, make_cohort, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(SchemaError, match="120 of 120 subjects trained"):
        recalibrate(fitted, train, out=out)
    rare = with_truth(fitted, make_cohort(150, seed=8, first_id=80_001), lambda z: 0 * z - 3.0)
    with pytest.raises(SchemaError, match=r"subjects with the outcome; a recalibration needs 20"):
        recalibrate(fitted, rare, out=out)
    with pytest.raises(ArgumentError, match="only a risk"):
        recalibrate(forecaster, rare, out=out)
    with pytest.raises(ArgumentError, match="method"):
        recalibrate(fitted, rare, out=out, method="beta")
    with pytest.raises(OutputError):
        recalibrate(fitted, rare, out=fitted.folder)
    assert not out.exists()
