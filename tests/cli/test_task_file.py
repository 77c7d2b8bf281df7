import pytest

TASK = """
name: fast
window: 12
horizon: 12
label: {variable: HR, above: 100}
record_ends: negative
exclude:
  - {static: age, below: 30}
"""


@pytest.fixture
def task_file(tmp_path):
    path = tmp_path / "task.yaml"
    path.write_text(TASK)
    return path


def test_a_task_file_is_checked_fitted_and_evaluated(cli, stays, quick, task_file, tmp_path):
    told = cli("check", stays, "--task-file", task_file, "--out", tmp_path / "f.json", "--json")
    assert told.code == 0, told.err
    flow = told.json["flow"]
    assert [step["rule"] for step in flow["steps"]] == ["in the cohort", "age below 30"]
    assert flow["steps"][0]["n_left"] == 80
    known = flow["n_positive"] + flow["n_negative"]
    assert known + flow["n_unknown"] == flow["steps"][-1]["n_left"] == told.json["n_subjects"]
    run = tmp_path / "run"
    fitted = cli("fit", stays, "--task-file", task_file, "--out", run, "--json", *quick)
    assert fitted.code == 0, fitted.err
    assert fitted.json["flow"] == flow
    assert fitted.json["task"] == {
        "kind": "classify",
        "outcome": "fast",
        "at": 12.0,
        "auxiliary": [],
    }
    measured = cli("evaluate", run, stays, "--task-file", task_file, "--part", "all", "--json")
    assert measured.code == 0, measured.err
    assert measured.json["n_records"] == known
    assert measured.json["n_positive"] == flow["n_positive"]


def test_a_person_is_told_the_flow(cli, stays, task_file, tmp_path):
    told = cli("check", stays, "--task-file", task_file, "--out", tmp_path / "f.json")
    assert "age below 30" in told.out
    assert "Labels: " in told.out


def test_a_task_file_beside_another_task_is_refused(cli, stays, task_file, tmp_path):
    call = ("fit", stays, "--task-file", task_file, "--out", tmp_path / "run")
    ended = cli(*call, "--outcome", "died")
    assert ended.code == 2
    assert "--task-file says what is predicted" in ended.err
    ended = cli("convert", stays, tmp_path / "meds", "--task-file", task_file)
    assert ended.code == 2


def test_a_wrong_task_file_ends_with_its_line(cli, stays, task_file, tmp_path):
    task_file.write_text(TASK.replace("above", "abov"))
    ended = cli("fit", stays, "--task-file", task_file, "--out", tmp_path / "run")
    assert ended.code == 2
    assert "line 5, label.abov: there is no key 'abov' here" in ended.err
    task_file.write_text(TASK.replace("HR", "Heart"))
    ended = cli("fit", stays, "--task-file", task_file, "--out", tmp_path / "run")
    assert ended.code == 3
    assert "no variable 'Heart'" in ended.err


def test_several_tasks_are_one_run_from_a_config(cli, stays, quick, tmp_path):
    config = tmp_path / "both.yaml"
    config.write_text(
        "task:\n  kind: several\n  tasks:\n    - {kind: classify, outcome: died, at: 12}\n"
        "    - {kind: forecast, horizon: 12, at: 12}\n"
    )
    run = tmp_path / "run"
    ended = cli("fit", stays, "--config", config, "--out", run, *quick)
    assert ended.code == 0, ended.err
    assert "Task classify" in ended.out
    assert "Task forecast" in ended.out
    told = cli("evaluate", run, stays, "--part", "all", "--json")
    assert told.code == 0, told.err
    assert told.json["tasks"]["classify"]["auroc"]["verdict"] == "ok"
    ended = cli("predict", run, stays, "--out", tmp_path / "p.csv")
    assert ended.code == 0, ended.err
