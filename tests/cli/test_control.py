import numpy as np
import pytest

import clinode as cn
from clinode.brain import simulate_connectome
from clinode.folder import verify_folder

SMALL = ("control", "generated", "--regions", 4, "--set", "K=2", "--horizon", "20 ms")
TO = ("--to", "E:lh_precuneus=rest+0.03")


@pytest.mark.slow
def test_a_connectome_becomes_a_page_with_a_checked_stimulus(cli, tmp_path):
    out = tmp_path / "steering"
    words = ["--nulls", 2, "--amplitude", 2, "--stimulate", 1, "--out", out]
    ended = cli(*SMALL, *TO, *words)
    assert ended.code == 0, ended.err
    assert "describes the model, not a patient" in ended.out
    assert "1. stimulus:lh_precuneus" in ended.out
    verify_folder(out, "brain report")
    again = cli(*SMALL, *TO, *words)
    assert again.code == 2  # occupied


@pytest.mark.slow
def test_a_connectome_from_a_file_gives_the_answer_of_the_one_in_memory(cli, tmp_path):
    made = simulate_connectome(4, 0)
    np.savez(tmp_path / "own.npz", weights=made.weights, labels=np.array(made.labels))
    words = [*TO, "--null", "none", "--stimulate", 1, "--json"]
    given = cli("control", tmp_path / "own.npz", *SMALL[4:], *words)
    generated = cli(*SMALL, *words)
    assert given.code == generated.code == 0
    assert given.json["ranking"] == generated.json["ranking"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--to", "E:lh_precunius=1"), "lh_precuneus"),
        (("--to", "E:lh_precuneus"), "takes NAME=VALUE"),
        ((*TO, "--model", "wilson-cowen"), "did you mean 'wilson-cowan'"),
        ((*TO, "--equilibrium", 50), "choose one of 0:"),
        ((*TO, "--null", "nothing"), "--null must be one of"),
        ((*TO, "--at", "stimulus:nowhere"), "stimulus:nowhere"),
        ((*TO, "--amplitude", -1), "amplitude must be positive"),
        ((*TO, "--horizon", "20 mV"), "dimension"),
        ((*TO, "--labels", "names.txt"), "names of its own"),
    ],
)
def test_a_wrong_call_says_what_is_right(cli, words, told):
    ended = cli(*SMALL, *words)
    assert ended.code == 2
    assert told in ended.err


def test_a_file_that_is_no_connectome_is_an_error_of_the_data(cli, tmp_path):
    (tmp_path / "weights.csv").write_text("1,2,3\n4,5,6\n")
    ended = cli("control", tmp_path / "weights.csv", *TO)
    assert ended.code == 3
    assert "weights.csv" in ended.err


@pytest.mark.slow
def test_the_latent_system_of_a_run_is_steered_by_the_same_command(cli, run_folder, tmp_path):
    cohort = cn.simulate_cohort(60, seed=2)
    run = cn.fit(
        cn.sequence.LinearLatentODE(latent=4),
        cohort,
        task=cn.Classify(cohort.outcomes.columns[-1]),
        out=tmp_path / "run",
        config=cn.FitConfig(epochs=1),
        progress=False,
    )
    words = ("control", run.folder, "--to", "HR=rest-1", "--horizon", "12 h", "--stimulate", 1)
    ended = cli(*words, "--out", tmp_path / "steering")
    assert ended.code == 0, ended.err
    assert "describes the model, not a patient" in ended.out
    verify_folder(tmp_path / "steering", "brain report")
    named = cli(*words, "--model", "wilson-cowan")
    assert named.code == 2
    assert "brings its own system" in named.err
    untreated = cli("control", run_folder, *words[2:])
    assert untreated.code == 2
    assert "has no inputs: nothing can steer it" in untreated.err
