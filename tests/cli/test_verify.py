"""`clinode verify` beside the run and the data that a report is to be made from."""

import json
import shutil

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def report(cli, run_folder, stays, tmp_path_factory):
    out = tmp_path_factory.mktemp("verified") / "report"
    ended = cli("report", run_folder, stays, "--out", out, "--subjects", 2, "--tolerance", "0.05")
    assert ended.code == 0, ended.err
    return out


def test_a_report_passes_beside_its_run_and_data_whatever_their_format(
    cli, report, run_folder, stays, tmp_path
):
    ended = cli("verify", report, "--run", run_folder, "--data", stays)
    assert ended.code == 0, ended.err
    assert "Made from this run and from these data" in ended.out
    for path in stays.glob("*.csv"):
        shuffled = pd.read_csv(path).sample(frac=1, random_state=0)
        shuffled.to_parquet(tmp_path / f"{path.stem}.parquet", index=False)
    answer = cli("verify", report, "--data", tmp_path, "--json")
    assert answer.code == 0
    assert answer.json["compared"] == ["data"]


@pytest.mark.parametrize(
    ("table", "column"), [("observations", "value"), ("outcomes", "died"), ("statics", "Age")]
)
def test_a_changed_cell_is_named_by_its_table_and_never_shown(
    cli, report, stays, secret, table, column, tmp_path
):
    copy = shutil.copytree(stays, tmp_path / "stays")
    held = pd.read_csv(copy / f"{table}.csv")
    held.loc[0, column] = 0 if held.loc[0, column] == 1 else 1 if column == "died" else 41
    held.to_csv(copy / f"{table}.csv", index=False)
    ended = cli("verify", report, "--data", copy)
    assert ended.code == 3
    assert f"other {table}" in ended.err
    assert secret not in ended.err


def test_another_run_is_named_with_what_was_set_otherwise(cli, report, stays, quick, tmp_path):
    out = tmp_path / "other"
    ended = cli("fit", stays, "--outcome", "died", "--out", out, *quick, "--set", "model.latent=5")
    assert ended.code == 0, ended.err
    ended = cli("verify", report, "--run", out, "--data", stays)
    assert ended.code == 3
    assert "other weights" in ended.err
    assert "model.latent is 4 in the report, 5 in the run" in ended.err


def test_the_command_is_kept_without_paths_and_identifiers(cli, report, run_folder, secret):
    text = (report / "provenance.json").read_text(encoding="utf-8")
    command = json.loads(text)["command"]
    assert command.startswith("clinode report death stays --out report --subjects 2")
    assert str(run_folder.parent) not in text
    assert secret not in text
    for page in report.glob("*.html"):
        assert "--tolerance 0.05" in page.read_text(encoding="utf-8")


def test_how_data_are_read_needs_data(cli, report):
    ended = cli("verify", report, "--time-unit", "h")
    assert ended.code == 2
    assert "--data" in ended.err
