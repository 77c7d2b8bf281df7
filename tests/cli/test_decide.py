import numpy as np
import pandas as pd
import pytest
import torch

from clinode.behavior import DDM


@pytest.fixture(scope="module")
def saccades(tmp_path_factory):
    """Latencies in ms of two conditions whose lines swivel, and of another person."""
    generator = np.random.default_rng(0)
    rows = []
    for name, mean, spread in (("rare", 3.8, 0.76), ("often", 5.2, 1.04)):
        rate = mean + spread * generator.normal(size=400)
        latency = 1000 / rate[rate > 0.5]
        rows.append(pd.DataFrame({"who": "b", "target": name, "latency_ms": latency}))
    rows.append(pd.DataFrame({"who": "a", "target": "rare", "latency_ms": [250.0] * 5}))
    path = tmp_path_factory.mktemp("times") / "saccades.csv"
    pd.concat(rows).to_csv(path, index=False)
    return path


def test_latencies_of_one_response_are_fitted_checked_and_turned(cli, saccades, tmp_path):
    figure = tmp_path / "plot.png"
    words = ("--time", "latency_ms", "--unit", "ms", "--condition", "target", "--only", "who=b")
    ended = cli("decide", saccades, *words, "--figure", figure, "--json")
    assert ended.code == 0, ended.err
    found = ended.json
    assert found["preferred"] == "later"
    assert found["swivel_or_shift"]["preferred"] == "swivel"
    mean = {r["condition"]: r["value"] for r in found["parameters"]["later"]
            if r["parameter"] == "mean"}  # fmt: skip
    assert mean["rare"] == pytest.approx(3.8, abs=0.15)
    assert mean["often"] == pytest.approx(5.2, abs=0.2)
    assert figure.read_bytes().startswith(b"\x89PNG")
    told = cli("decide", saccades, *words)
    assert "will do" in told.out
    assert "the lines swivel: no worse than each by itself" in told.out


@pytest.mark.slow
def test_two_responses_are_held_against_three_models(cli, tmp_path):
    drawn = DDM(drift=1.0, bound=1.6, non_decision=0.25)
    rt, choice = drawn.sample(500, generator=torch.Generator().manual_seed(0))
    rt, choice = rt.flatten(), choice.flatten()
    path, figure = tmp_path / "trials.parquet", tmp_path / "plot.svg"
    pd.DataFrame({"rt": rt.numpy(), "right": choice.numpy()}).to_parquet(path)
    ended = cli("decide", path, "--time", "rt", "--choice", "right", "--figure", figure)
    assert ended.code == 0, ended.err
    assert all(name in ended.out for name in ("ddm", "lba", "wald race"))
    assert "<svg" in figure.read_text()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--time", "latency_ms"), 2, "seconds"),
        (("--time", "rt"), 3, "no column 'rt'; there are: who, target, latency_ms"),
        (("--time", "target"), 3, "rows hold no number"),
        (("--time", "latency_ms", "--unit", "min"), 2, "s or ms"),
        (("--time", "latency_ms", "--unit", "ms", "--only", "who=c"), 3, "no trial is left"),
        (("--time", "latency_ms", "--unit", "ms", "--only", "who"), 2, "COLUMN=VALUE"),
        (("--time", "latency_ms", "--unit", "ms", "--figure", "x.pdf"), 2, ".png or .svg"),
    ],
)
def test_what_cannot_be_read_is_told(cli, saccades, words, code, told):
    ended = cli("decide", saccades, *words)
    assert ended.code == code
    assert told in ended.err
    assert "250.0" not in ended.err


def test_a_file_that_is_not_there_is_told(cli, tmp_path):
    ended = cli("decide", tmp_path / "none.csv", "--time", "rt")
    assert ended.code == 3
    assert "no such file" in ended.err
