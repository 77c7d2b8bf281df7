import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def followed(make_stays, tmp_path_factory):
    """Stays whose outcomes tell when follow-up ended, and how."""
    folder = make_stays(tmp_path_factory.mktemp("followed") / "stays", n_subjects=90, seed=5)
    outcomes = pd.read_csv(folder / "outcomes.csv")
    generator = np.random.default_rng(0)
    kept = outcomes[[outcomes.columns[0]]].copy()
    kept["end"] = 12 + generator.exponential(40, len(kept)).round(2)
    kept["status"] = generator.choice([0, 1, 2], len(kept), p=[0.3, 0.4, 0.3])
    kept.to_csv(folder / "outcomes.csv", index=False)
    return folder


def test_the_time_to_an_event_is_fitted_measured_and_predicted(cli, followed, quick, tmp_path):
    out, table = tmp_path / "run", tmp_path / "p.csv"
    words = ("--end", "end", "--event", "status", "--cause", "status", "--landmark", 12)
    ended = cli("fit", followed, *words, "--out", out, "--fractions", "0.7,0,0.3", *quick)
    assert ended.code == 0, ended.err
    assert "aalen_johansen" in ended.out
    assert "Cause 2:" in ended.out
    ended = cli("evaluate", out, followed, "--json")
    assert ended.code == 0, ended.err
    assert {"auc", "integrated_brier", "concordance_ipcw"} < set(ended.json)
    assert cli("predict", out, followed, "--out", table).code == 0
    columns = list(pd.read_csv(table).columns)
    assert columns[:2] == ["subject_id", "prediction_time"]
    assert columns[-1] == "probability"
    assert sum(name.startswith("incidence_2_") for name in columns) == 3


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--end", "end"), 2, "--event COLUMN"),
        (("--landmark", 3), 2, "--end COLUMN"),
        (("--end", "end", "--event", "status", "--outcome", "status"), 2, "give one of them"),
        (("--end", "end", "--event", "status", "--at", 3), 2, "--landmark HOURS"),
        (("--end", "end", "--event", "status"), 3, "something else than 0 and 1"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_words(cli, followed, tmp_path, words, code, told):
    ended = cli("fit", followed, *words, "--out", tmp_path / "run")
    assert ended.code == code, ended.err
    assert told in ended.err.replace("\n", " ")
    assert not (tmp_path / "run").exists()
