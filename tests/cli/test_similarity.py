import numpy as np
import pandas as pd
import pytest

from clinode.similarity import compare, rdm


@pytest.fixture
def files(tmp_path):
    """Two models and three subjects; subjects are the first model with noise."""
    draw = np.random.default_rng(0)
    truth, other = draw.normal(size=(16, 30)), draw.normal(size=(16, 5))
    columns = [f"unit {k}" for k in range(30)]
    names = [f"image {k}" for k in range(16)]
    pd.DataFrame(truth, columns=columns).to_csv(tmp_path / "truth.csv", index=False)
    np.save(tmp_path / "chance.npy", other)
    for k in range(3):
        noisy = pd.DataFrame(truth + 0.5 * draw.normal(size=truth.shape), columns=columns)
        noisy.to_parquet(tmp_path / f"subject{k}.parquet")
    named = pd.DataFrame(truth, columns=columns)
    named.insert(0, "stimulus", names)
    named.to_csv(tmp_path / "named.csv", index=False)
    return tmp_path


def test_pairs_have_the_likeness_of_the_library_with_an_interval(cli, files):
    words = (files / "truth.csv", files / "chance.npy", "--resamples", 30, "--json")
    ended = cli("similarity", *words)
    assert ended.code == 0, ended.err
    (row,) = ended.json["comparisons"]
    told = [rdm(pd.read_csv(files / "truth.csv").to_numpy()), rdm(np.load(files / "chance.npy"))]
    assert row["value"] == pytest.approx(compare(*told, "corr").value, abs=1e-12)
    assert row["low"] <= row["value"] <= row["high"]
    assert (row["n_pairs"], row["n_left_out"]) == (120, 0)


def test_the_model_that_made_the_subjects_is_first_and_drawn(cli, files):
    subjects = [word for k in range(3) for word in ("--subject", files / f"subject{k}.parquet")]
    words = ("similarity", files / "chance.npy", files / "truth.csv", *subjects)
    ended = cli(*words, "--resamples", 50, "--figure", files / "ranking.png")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[1].startswith("truth")
    assert "Noise ceiling of 3 subjects" in ended.out
    assert (files / "ranking.png").read_bytes().startswith(b"\x89PNG")


def test_dissimilarities_are_read_as_they_are(cli, files):
    draw = np.random.default_rng(1)
    for name in ("a", "b"):
        square = rdm(draw.normal(size=(8, 4))).matrix.numpy()
        pd.DataFrame(square).to_csv(files / f"{name}.csv", index=False, header=False)
    words = (files / "a.csv", files / "b.csv", "--rdms", "--resamples", 20)
    drawn = files / "pairs.svg"
    ended = cli("similarity", *words, "--method", "spearman", "--figure", drawn, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["n_stimuli"] == 8
    assert drawn.is_file()
    first, second = (
        rdm_of for rdm_of in (np.loadtxt(files / f"{x}.csv", delimiter=",") for x in "ab")
    )
    upper = np.triu_indices(8, 1)
    ranks = [pd.Series(x[upper]).rank() for x in (first, second)]
    assert ended.json["comparisons"][0]["value"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("truth.csv",), 2, "nothing to compare it with"),
        (("truth.csv", "absent.csv"), 3, "absent.csv"),
        (("truth.csv", "named.csv"), 2, "different stimuli"),
        (("truth.csv", "chance.npy", "--rdms"), 3, "is not symmetric"),
        (("truth.csv", "chance.npy", "--method", "likeness"), 2, "method must be one of"),
        (("truth.csv", "chance.npy", "--subject", "chance.npy"), 2, "at least two subjects"),
        (("truth.csv", "truth.csv"), 2, "the same name"),
        (("truth.csv", "chance.npy", "--figure", "x.txt"), 2, "expected a name in .png"),
        (("truth.csv", "text.csv"), 3, "holds text"),
        (("truth.csv", "empty.csv"), 3, "cannot be read"),
        (("truth.csv", "empty.npy"), 3, "cannot be read"),
        (("truth.csv", "void.npy"), 3, "must be (stimulus, unit)"),
    ],
)
def test_a_wrong_call_says_what_is_right(cli, files, words, code, told):
    (files / "text.csv").write_text("name,x\na,1\nb,2\n")
    (files / "empty.csv").write_text("")
    (files / "empty.npy").write_bytes(b"")
    np.save(files / "void.npy", np.zeros((0, 3)))
    ended = cli("similarity", *(files / w if "." in w else w for w in words))
    assert ended.code == code, ended.err
    assert told in ended.err
