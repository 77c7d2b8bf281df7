import json

import pandas as pd
import pytest

WORDS = ("bench", "attribution", "--quick", "--sets", "rare_feature,ornstein")


def test_a_quick_run_answers_with_scores_and_writes_them(cli, tmp_path):
    path = tmp_path / "scores.csv"
    words = ("--methods", "integrated_gradients,saliency", "--folds", 2, "--out", path, "--json")
    ended = cli(*WORDS, *words)
    assert ended.code == 0, ended.err
    summary = ended.json["summary"]
    assert [row["set"] for row in summary] == ["rare_feature"] * 2 + ["ornstein"] * 2
    assert summary[0]["auprc"] == 1.0
    assert summary[0]["off"] < 1e-9
    assert len(ended.json["folds"]) == len(pd.read_csv(path)) == 8
    again = cli(*WORDS, *words)
    for one, other in zip(ended.json["folds"], again.json["folds"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_a_person_sees_a_table_what_happens_and_a_warning(cli, tmp_path):
    path = tmp_path / "scores.json"
    words = (*WORDS[:3], "--sets", "rare_feature", "--methods", "kernel_shap")
    ended = cli(*words, "--out", path)
    assert ended.code == 0, ended.err
    assert "refused" in ended.out
    assert "Compare by AUPRC" in ended.out
    assert "no more" in ended.out
    assert "rare_feature, fold 1 of 1" in ended.err
    assert json.loads(path.read_text())["folds"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("bench", "attribution", "--sets", "stat"), "unknown set"),
        (("bench", "attribution", "--sets", "state", "--methods", "deeplift"), "refused"),
        (("bench", "attribution", "--sets", "state", "--out", "x.txt"), ".csv or .json"),
        (("bench", "attribution", "--through", "gru"), "choose among"),
        (("bench", "attribution", "--through", "gru-d", "--sets", "state"), "no cohort"),
        (("bench", "nothing"), "attribution"),
        (("bench", "attribution", "--sets", ","), "no set"),
    ],
)
def test_a_wrong_call_ends_with_two_and_says_why(cli, words, told):
    ended = cli(*words)
    assert ended.code == 2
    assert told in ended.err


def test_the_sets_are_listed(cli):
    names = {one["name"] for one in cli("list", "--json").json["sets"]}
    assert {"state", "rare_feature", "irregular_mixed"} <= names
