import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch


@pytest.fixture
def copy(stays, tmp_path):
    """The tables, to be spoiled."""
    return shutil.copytree(stays, tmp_path / "stays")


def test_check_accounts_for_every_row_and_writes_a_fingerprint(cli, stays, tmp_path):
    ended = cli("check", stays, "--json", "--out", tmp_path / "fingerprint.json")
    assert ended.code == 0, ended.err
    n_rows = len(pd.read_csv(stays / "observations.csv"))
    rows = {"read": 0, "kept": 0}
    for entry in ended.json["ledger"]:
        if entry["table"] == "observations":
            rows[entry["action"]] += entry["rows"]
    assert rows == {"read": n_rows, "kept": n_rows}
    assert ended.json["balanced"] is True
    assert ended.json["n_subjects"] == 80
    stored = json.loads((tmp_path / "fingerprint.json").read_text(encoding="utf-8"))
    assert stored["n_subjects"] == 80


def test_check_shows_what_was_dropped_and_strict_makes_it_an_error(cli, copy, tmp_path):
    with (copy / "observations.csv").open("a", encoding="utf-8") as file:
        file.write("MRN-8675309-001,5.0,HR,high\nMRN-8675309-001,6.0,HR,9999\n")
    out = ("--out", tmp_path / "fingerprint.json")
    ended = cli("check", copy, *out)
    assert ended.code == 0, ended.err
    assert "dropped" in ended.out
    strict = cli("check", copy, "--strict", *out)
    assert strict.code == 3
    assert strict.err.count("\n") == 1
    assert "observations.csv" in strict.err


def test_a_suggested_policy_is_a_file_that_reading_follows(cli, copy, tmp_path):
    policy = tmp_path / "policy.yaml"
    out = ("--out", tmp_path / "fingerprint.json")
    assert cli("check", copy, "--suggest", policy, *out).code == 0
    assert "sentinels" in policy.read_text(encoding="utf-8")
    assert cli("check", copy, "--policy", policy, *out).code == 0


def test_a_run_is_written_whole_and_its_answers_agree(cli, run_folder, stays, tmp_path):
    assert cli("verify", run_folder).code == 0
    evaluated = cli("evaluate", run_folder, stays, "--part", "all", "--json")
    assert evaluated.code == 0, evaluated.err
    assert 0 <= evaluated.json["auroc"]["low"] <= evaluated.json["auroc"]["value"]
    assert evaluated.json["baselines"]
    for ending in ("csv", "parquet"):
        ended = cli("predict", run_folder, stays, "--out", tmp_path / f"p.{ending}")
        assert ended.code == 0, ended.err
    written = pd.read_csv(tmp_path / "p.csv")
    pd.testing.assert_frame_equal(written, pd.read_parquet(tmp_path / "p.parquet"))
    assert len(written) == 80, "subjects with no and with one observation have a prediction too"
    assert written["probability"].between(0, 1).all()


def test_evaluate_takes_only_those_who_had_no_part_in_the_fit(cli, run_folder, stays):
    parts = pd.read_parquet(run_folder / "split.parquet")
    ended = cli("--json", "evaluate", run_folder, stays)
    assert ended.code == 0, ended.err
    assert ended.json["n_read"] == 80 - len(parts)
    assert ended.json["n_trained_on"] == 0


def test_the_same_fit_again_is_the_same_run_and_another_is_refused(
    cli, run_folder, stays, quick, tmp_path
):
    weights = (run_folder / "model.safetensors").read_bytes()
    call = ("fit", stays, "--outcome", "died", *quick)
    assert cli(*call, "--out", run_folder).code == 0
    assert (run_folder / "model.safetensors").read_bytes() == weights
    other = cli(*call, "--out", run_folder, "--seed", "1")
    assert other.code == 2
    assert "another" in other.err
    assert cli(*call, "--out", tmp_path / "again").code == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == weights


def test_the_settings_of_a_run_make_the_same_run(cli, run_folder, stays, tmp_path):
    config = ("--config", run_folder / "config.yaml")
    ended = cli("fit", stays, *config, "--out", tmp_path / "again")
    assert ended.code == 0, ended.err
    again, first = tmp_path / "again" / "model.safetensors", run_folder / "model.safetensors"
    assert again.read_bytes() == first.read_bytes()


def test_explanations_hold_only_what_was_measured(cli, run_folder, stays, tmp_path):
    out = tmp_path / "attributions"
    ended = cli("explain", run_folder, stays, "--part", "all", "--out", out, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["subjects"] == 80
    assert cli("verify", out, "--json").json["kind"] == "attributions"
    events = pd.read_parquet(out / "attributions.parquet").query("kind == 'observation'")
    asked = pd.read_parquet(out / "gates.parquet")[["subject_id", "prediction_time"]]
    measured = pd.read_csv(stays / "observations.csv").merge(asked, on="subject_id")
    measured = measured.query("time <= prediction_time")
    keys = ["subject_id", "time", "variable"]
    found = events[keys].astype({"variable": str}).merge(measured[keys], on=keys)
    assert len(found) == len(events) > 0
    assert ended.json["withheld"] or len(events) == len(measured)
    assert cli("explain", run_folder, stays, "--out", out).code == 2
    words = ("explain", run_folder, stays, "--out", out, "--replace", "--kinds")
    refused = cli(*words, "--method", "shapley", "--baseline", "delete")
    assert refused.code == 2
    assert "leave --kinds out" in refused.err
    split = cli(*words, "--json")
    assert split.code == 0, split.err
    shares = [both["share"]["value"] for both in split.json["kinds"].values()]
    assert sum(shares) == pytest.approx(1)
    table = pd.read_parquet(out / "kinds.parquet")
    total = table[["values", "ordering", "timing"]].sum(axis=1)
    np.testing.assert_allclose(total, table["output"] - table["base"], atol=1e-9)


def test_a_report_is_a_folder_of_pages_without_identifiers(
    cli, run_folder, stays, tmp_path, secret
):
    ended = cli("report", run_folder, stays, "--out", tmp_path / "report", "--subjects", "3")
    assert ended.code == 0, ended.err
    pages = sorted(path.name for path in (tmp_path / "report").glob("*.html"))
    assert sum(name.startswith("subject-") for name in pages) == 3
    assert {"index.html", "cohort.html", "performance.html", "methods.html"} <= set(pages)
    assert all(secret.encode() not in (tmp_path / "report" / p).read_bytes() for p in pages)
    assert cli("verify", tmp_path / "report").code == 0


def test_no_identifier_reaches_an_answer(cli, run_folder, stays, tmp_path, secret):
    calls = [
        ("check", stays, "--out", tmp_path / "f.json"),
        ("evaluate", run_folder, stays),
        ("evaluate", run_folder, stays, "--json"),
        ("predict", run_folder, stays, "--out", tmp_path / "p.csv"),
        ("explain", run_folder, stays, "--out", tmp_path / "e"),
        ("verify", run_folder, "--json"),
    ]
    for words in calls:
        ended = cli(*words)
        assert ended.code == 0, ended.err
        assert secret not in ended.out + ended.err
    assert secret.encode() not in (tmp_path / "f.json").read_bytes()
    for name in ("config.yaml", "schema.json", "fingerprint.json", "metrics.json", "log.jsonl"):
        assert secret.encode() not in (run_folder / name).read_bytes()


@pytest.mark.parametrize(
    "spoil",
    ["missing", "empty", "no columns", "not utf-8", "truncated line"],
)
def test_data_that_cannot_be_read_are_refused_in_one_line_that_names_the_file(
    cli, copy, tmp_path, spoil, secret
):
    path = copy / "observations.csv"
    if spoil == "missing":
        path = copy = copy / "observations-2.csv"
    elif spoil == "empty":
        path.write_bytes(b"")
    elif spoil == "no columns":
        path.write_text("a,b\n1,2\n", encoding="utf-8")
    elif spoil == "not utf-8":
        path.write_bytes(path.read_bytes() + f"{secret}-000,1.0,HR\xff,80\n".encode("latin-1"))
    else:
        path.write_bytes(path.read_bytes() + f'{secret}-000,"1.0,HR,80\n'.encode())
    ended = cli("check", copy, "--out", tmp_path / "f.json")
    assert ended.code == 3
    assert ended.err.count("\n") == 1
    assert path.name in ended.err
    assert secret not in ended.err
    assert not (tmp_path / "f.json").exists()


def test_an_unknown_variable_is_refused_at_prediction(cli, run_folder, copy, tmp_path, secret):
    with (copy / "observations.csv").open("a", encoding="utf-8") as file:
        file.write(f"{secret}-001,5.0,Troponin Q,1.5\n")
    ended = cli("predict", run_folder, copy, "--out", tmp_path / "p.csv")
    assert ended.code == 3
    assert "Troponin Q" in ended.err
    assert secret not in ended.err
    assert not (tmp_path / "p.csv").exists()


def test_a_cohort_that_lost_every_subject_is_no_prediction(cli, run_folder, copy, tmp_path):
    for name in ("observations", "outcomes", "statics"):
        table = pd.read_csv(copy / f"{name}.csv", dtype=str)
        table["subject_id"] = "=" + table["subject_id"]
        table.to_csv(copy / f"{name}.csv", index=False)
    ended = cli("predict", run_folder, copy, "--out", tmp_path / "p.csv")
    assert ended.code == 3
    assert "no subject is left" in ended.err
    assert not (tmp_path / "p.csv").exists()


def test_one_class_only_is_refused(cli, copy, tmp_path, quick):
    outcomes = pd.read_csv(copy / "outcomes.csv").assign(died=0)
    outcomes.to_csv(copy / "outcomes.csv", index=False)
    ended = cli("fit", copy, "--outcome", "died", "--out", tmp_path / "run", *quick)
    assert ended.code == 3
    assert "class" in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--outcome", "dead"), 3, "dead"),
        (("--outcome", "died", "--horizon", "6"), 2, "give one of them"),
        ((), 2, "--outcome COLUMN"),
        (("--outcome", "died", "--model", "gru"), 2, "gru-d"),
        (("--outcome", "died", "--set", "fit.epoch=3"), 2, "did you mean 'epochs'"),
        (("--outcome", "died", "--set", "fits.epochs=3"), 2, "did you mean 'fit'"),
        (("--outcome", "died", "--set", "model.latnt=3"), 2, "did you mean 'latent'"),
        (("--outcome", "died", "--set", "fit.epochs=many"), 2, "valid integer"),
        (("--outcome", "died", "--set", "fit.epochs=0"), 2, "epochs"),
        (("--outcome", "died", "--fractions", "0.5"), 2, "three numbers"),
        (("--outcome", "died", "--at", "noon"), 2, "--at"),
        (("--outcome", "died", "--format", "excel"), 2, "excel"),
        (("--outcome", "died", "--seed"), 2, "--seed"),
    ],
)
def test_a_call_that_cannot_work_is_told_how_it_would(cli, stays, tmp_path, words, code, told):
    ended = cli("fit", stays, "--out", tmp_path / "run", *words)
    assert ended.code == code, ended.err
    errors = [line for line in ended.err.splitlines() if line.startswith("error CLN-")]
    assert len(errors) == 1
    assert told in errors[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda_is_an_error_and_never_a_silent_change(cli, stays, run_folder, tmp_path):
    calls = [
        ("fit", stays, "--outcome", "died", "--out", tmp_path / "run"),
        ("predict", run_folder, stays, "--out", tmp_path / "p.csv"),
        ("evaluate", run_folder, stays),
        ("explain", run_folder, stays, "--out", tmp_path / "e"),
    ]
    for words in calls:
        ended = cli(*words, "--device", "cuda")
        assert ended.code == 2
        assert "CUDA" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.safetensors", "schema.json", "baselines.safetensors"])
def test_an_altered_run_is_refused_with_the_name_of_the_file(
    cli, run_folder, stays, tmp_path, name
):
    run = shutil.copytree(run_folder, tmp_path / "run")
    data = bytearray((run / name).read_bytes())
    data[len(data) // 2] ^= 1
    (run / name).write_bytes(data)
    for words in (("verify", run), ("predict", run, stays, "--out", tmp_path / "p.csv")):
        ended = cli(*words)
        assert ended.code == 3
        assert name in ended.err
    assert not (tmp_path / "p.csv").exists()


def test_a_folder_of_another_kind_is_not_a_run(cli, stays, tmp_path):
    ended = cli("predict", stays, stays, "--out", tmp_path / "p.csv")
    assert ended.code == 3
    assert "not written by clinode" in ended.err


def test_data_of_the_fit_itself_have_no_held_out_part(cli, stays, quick, tmp_path):
    everyone = ("--fractions", "1,0,0")
    run = tmp_path / "run"
    fitted = cli("fit", stays, "--outcome", "died", "--out", run, *quick, *everyone)
    assert fitted.code == 0, fitted.err
    assert "the training part itself" in fitted.out
    ended = cli("evaluate", run, stays)
    assert ended.code == 2
    assert "--part all" in ended.err


def test_a_forecast_is_fitted_evaluated_and_predicted(cli, stays, quick, tmp_path):
    run = tmp_path / "forecast"
    call = ("fit", stays, "--horizon", "12", "--at", "12", "--out", run, "--json")
    ended = cli(*call, *quick)
    assert ended.code == 0, ended.err
    assert ended.json["task"]["kind"] == "forecast"
    evaluated = cli("evaluate", run, stays)
    assert evaluated.code == 0, evaluated.err
    assert cli("predict", run, stays, "--out", tmp_path / "p.csv").code == 0
    assert {"variable", "low", "high"} <= set(pd.read_csv(tmp_path / "p.csv").columns)
    assert cli("explain", run, stays, "--out", tmp_path / "e").code == 2


def test_list_shows_what_there_is_to_choose_from(cli):
    found = cli("list", "--json").json
    assert {"linear-latent-ode", "gru-d", "ode-rnn"} <= {row["name"] for row in found["models"]}
    assert {"integrated_gradients", "saliency"} <= {row["name"] for row in found["methods"]}
    assert {"cohort_mean", "normal", "carry"} <= {row["name"] for row in found["baselines"]}
    assert {"long", "wide", "meds", "physionet2012"} <= {row["name"] for row in found["readers"]}
    assert all(row["about"] for rows in found.values() for row in rows)


def test_the_doctor_finds_this_machine_fit_and_gives_a_fix_where_it_is_not(cli):
    ended = cli("doctor", "--json")
    assert ended.code == 0, ended.out
    findings = ended.json["findings"]
    assert {finding["status"] for finding in findings} <= {"ok", "warn"}
    assert all(finding["fix"] for finding in findings if finding["status"] != "ok")
    assert {"packages", "numerics", "control", "disk"} <= {finding["name"] for finding in findings}


def test_the_doctor_fails_with_a_fix_when_a_package_is_too_old(cli, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0.1")
    ended = cli("doctor")
    assert ended.code == 6
    assert "needs >=" in ended.out
    assert "pip install" in ended.out


def test_help_and_version_are_not_errors(cli):
    assert cli("--version").out.startswith("clinode 0.")
    assert "demo" in cli().out
    assert cli("fit", "--help").code == 0
