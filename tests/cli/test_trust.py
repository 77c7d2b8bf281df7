import pandas as pd
import pytest


@pytest.fixture(scope="module")
def many(make_stays, tmp_path_factory):
    """Enough subjects to set some aside, and outcomes that no risk separates."""
    folder = make_stays(tmp_path_factory.mktemp("many") / "stays", n_subjects=260, seed=3)
    outcomes = pd.read_csv(folder / "outcomes.csv")
    outcomes.loc[::4, "died"] = 1 - outcomes.loc[::4, "died"]
    outcomes.to_csv(folder / "outcomes.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def risk(cli, many, quick, tmp_path_factory):
    out = tmp_path_factory.mktemp("trust") / "risk"
    words = ("--outcome", "died", "--out", out, "--fractions", "0.4,0,0.6", *quick)
    ended = cli("fit", many, *words)
    assert ended.code == 0, ended.err
    return out


@pytest.mark.slow
def test_a_risk_is_recalibrated_with_its_evidence_and_then_answers_so(cli, many, risk, tmp_path):
    out = tmp_path / "mended"
    ended = cli("evaluate", risk, many, "--recalibrate", out, "--method", "platt")
    assert ended.code == 0, ended.err
    assert "cross-fitted: platt" in ended.out
    assert "calibration_slope" in ended.out
    assert "Drift from the training part" in ended.out
    assert cli("verify", out).code == 0
    assert "Recalibrated: platt" in cli("evaluate", out, many, "--part", "all").out
    answers = []
    for folder in (risk, out):
        table = tmp_path / f"{folder.name}.csv"
        assert cli("predict", folder, many, "--out", table).code == 0
        answers.append(pd.read_csv(table)["probability"])
    assert not answers[0].equals(answers[1])
    assert answers[0].rank().equals(answers[1].rank())
    held_out = cli("evaluate", out, many)
    assert held_out.code == 2
    assert "held-out" in held_out.err


def test_a_method_without_a_folder_and_training_subjects_are_refused(cli, many, risk, tmp_path):
    assert "--recalibrate" in cli("evaluate", risk, many, "--method", "platt").err
    ended = cli("evaluate", risk, many, "--part", "train", "--recalibrate", tmp_path / "x")
    assert ended.code == 3
    assert "trained the run" in ended.err


@pytest.mark.slow
def test_intervals_hold_the_share_that_is_asked_for(cli, many, quick, tmp_path):
    out = tmp_path / "course"
    words = ("--horizon", "12", "--at", "12", "--fractions", "0.4,0.4,0.2", *quick)
    assert cli("fit", many, "--out", out, *words).code == 0
    widths = []
    for level in ("0.5", "0.9"):
        ended = cli("predict", out, many, "--level", level, "--out", tmp_path / "p.csv")
        assert ended.code == 0, ended.err
        assert "Intervals: split conformal" in ended.out
        table = pd.read_csv(tmp_path / "p.csv")
        widths.append((table["high"] - table["low"]).mean())
    assert widths[0] < widths[1]
    evaluated = cli("evaluate", out, many, "--json").json
    assert evaluated["coverage"]["low"] <= evaluated["coverage"]["value"]
    assert evaluated["drift"]["comparisons"]
    calibrating = cli("evaluate", out, many, "--part", "calibrate", "--json").json
    assert calibrating["n_trained_on"] == calibrating["n_read"]


def test_a_level_of_a_risk_is_refused(cli, many, risk, tmp_path):
    ended = cli("predict", risk, many, "--level", "0.8", "--out", tmp_path / "p.csv")
    assert ended.code == 2
    assert "forecasts" in ended.err


def test_check_says_how_far_data_have_moved_from_a_run(cli, many, risk, tmp_path):
    moved = tmp_path / "moved.csv"
    table = pd.read_csv(many / "observations.csv")
    hot = table["value"] + 3.0 * (table["variable"] == "Temp")
    table.assign(value=hot).to_csv(moved, index=False)
    same = cli("check", many, "--run", risk, "--json", "--out", tmp_path / "a.json").json
    assert same["drift"]["verdict"].startswith("0 large")
    ended = cli("check", moved, "--run", risk, "--out", tmp_path / "b.json")
    assert ended.code == 0, ended.err
    line = next(line for line in ended.out.splitlines() if line.startswith("value "))
    assert "Temp" in line
    assert line.endswith("large shift")
