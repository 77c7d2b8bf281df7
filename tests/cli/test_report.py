import html
import re

import pandas as pd
import pytest

import clinode as cn
from clinode.cli.options import Counted
from clinode.training import FitConfig, fit_ensemble

BESIDE = ("--beside", "saliency", "--beside", ":carry")


@pytest.fixture(scope="module")
def cohort(stays):
    return cn.read_cohort(stays)


@pytest.fixture(scope="module")
def ensemble(cohort, tmp_path_factory):
    """Two members fitted to most of `stays`."""
    out = tmp_path_factory.mktemp("runs") / "both"
    train, _ = cn.split(cohort, (0.8, 0.2))
    model = cn.sequence.LinearLatentODE(latent=4, hidden=8)
    fit_ensemble(model, train, task=cn.Classify("died"), out=out, seeds=(0, 1),
                 config=FitConfig(epochs=1), progress=False)  # fmt: skip
    return out


@pytest.fixture(scope="module")
def forecasting(cli, stays, quick, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "ahead"
    ended = cli("fit", stays, "--horizon", "12", "--at", "12", "--out", out, *quick)
    assert ended.code == 0, ended.err
    return out


def text_of(path):
    body = re.sub(r"<style>.*?</style>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


@pytest.mark.slow
def test_everything_that_can_stand_on_the_pages_can_be_asked_for_in_one_call(
    cli, ensemble, forecasting, stays, cohort, secret, tmp_path
):
    chosen = [str(cohort.subjects[place]) for place in (7, 2, 11)]
    listed = tmp_path / "listed.txt"
    listed.write_text(f"{chosen[1]}\n\n {chosen[2]} \n", encoding="utf-8")
    ended = cli(
        "report", ensemble, stays, "--out", tmp_path / "report", "--part", "all",
        "--pick", chosen[0], "--pick-from", listed, "--forecasts", forecasting, "--members",
        *BESIDE, "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert ended.json["subjects"] == 3
    assert ended.json["members"] == 2
    assert ended.json["forecasts"] is True
    assert ended.json["beside"] == [
        {"method": "saliency", "baseline": "cohort_mean"},
        {"method": "integrated_gradients", "baseline": "carry"},
    ]
    assert ended.json["checks"] is None
    pages = tmp_path / "report"
    assert sorted(path.name for path in pages.glob("subject-*")) == [
        "subject-0003.html", "subject-0008.html", "subject-0012.html",
    ]  # fmt: skip
    text = text_of(pages / "subject-0003.html")
    for words in ("Range of 2 members", "Shared of the largest", "50 % interval"):
        assert words in text
    for path in pages.iterdir():
        assert secret not in path.read_text(encoding="utf-8")
    assert secret not in ended.out + ended.err


@pytest.mark.slow
def test_checks_of_maps_are_told_in_words_written_beside_them_and_shown_on_the_pages(
    cli, ensemble, stays, tmp_path
):
    out = tmp_path / "maps"
    asked = (ensemble, stays, "--part", "all", "--checks", "--check-subjects", 2)
    ended = cli("explain", *asked, "--out", out)
    assert ended.code == 0, ended.err
    table = pd.read_parquet(out / "checks.parquet")
    for name in table["check"].unique():
        assert f"Check of {name}: " in ended.out
    assert {"weight randomization", "seed stability", "label permutation"} <= set(table["check"])
    ended = cli("report", *asked, "--out", tmp_path / "report", "--subjects", 2)
    assert ended.code == 0, ended.err
    assert "Check of insertion and deletion: " in ended.out
    assert "insertion and deletion" in text_of(tmp_path / "report" / "cohort.html")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--members",), "this is one run"),
        (("--beside", "salience"), "salience"),
        (("--beside", "saliency:delete"), "delete"),
        (("--beside", ":cohort_mean"), "another way"),
        (("--forecasts", "RUN"), "--horizon"),
        (("--permuted-labels",), "give --checks too"),
        (("--checks", "--method", "occlusion"), "event_deletion"),
        (("--pick", "MRN-8675309-900"), "1 of the 1 subjects picked"),
        (("--pick-from", "nowhere.txt"), "cannot be read"),
        (("--pick", "MRN-8675309-900", "--subjects", "2"), "give one of them"),
        (("--task", "forecast"), "no task of the kind"),
    ],
)
def test_what_cannot_stand_on_the_pages_is_refused_before_anything_is_explained(
    cli, run_folder, stays, secret, tmp_path, words, told
):
    given = [run_folder if word == "RUN" else word for word in words]
    ended = cli("report", run_folder, stays, "--out", tmp_path / "report", *given)
    assert ended.code == 2, ended.err
    assert told in ended.err
    assert secret not in ended.err
    assert "explaining" not in ended.err
    assert not (tmp_path / "report").exists()


def test_what_is_left_is_told_every_few_seconds_in_proportion_to_what_is_done():
    clock, lines = iter([0.0, 1.0, 6.0, 7.0, 30.0, 40.0]), []
    counted = Counted(lines.append, "explained", "subjects", every=5.0, clock=lambda: next(clock))
    for done in (1, 20, 30, 75, 100):
        counted(done, 100)
    assert lines == [
        "explained 20 of 100 subjects, about 24 s left",
        "explained 75 of 100 subjects, about 10 s left",
    ]
