"""The page of a steering study: whole, inert, deterministic, and of the numbers that were found."""

import re
from dataclasses import replace

import pytest
import torch
from markupsafe import escape

from clinode.brain import Connectome, WilsonCowanNetwork, simulate_connectome
from clinode.control import StimulusLimits, steer
from clinode.dynamics import find_equilibria
from clinode.errors import OutputError
from clinode.folder import read_json, verify_folder
from clinode.report import write_brain_report
from clinode.report.brain import brain_page
from clinode.report.brain_map import brain_map
from clinode.report.wording import BRAIN_LIMITS, FORBIDDEN


def study(connectome, **options):
    brain = WilsonCowanNetwork(connectome, K=2.0)
    rest = find_equilibria(brain)[0]
    target = {f"E:{connectome.labels[0]}": float(rest.state[0]) + 0.03}
    given = {"horizon": 20.0, "n_stimulated": 2, "n_nulls": 3, **options}
    return steer(brain, target, rest, limits=StimulusLimits(amplitude=2.0), **given)


@pytest.fixture(scope="module")
def steering():
    return study(simulate_connectome(6, seed=1))


@pytest.fixture(scope="module")
def page(steering):
    return brain_page(steering)


def test_the_folder_is_whole_and_its_numbers_are_those_of_the_page(steering, page, tmp_path):
    index = write_brain_report(steering, tmp_path / "steering")
    manifest = verify_folder(index.parent, "brain report")
    assert set(manifest["files"]) == {
        "index.html",
        "steering.json",
        "ranking.csv",
        "reach.csv",
        "stimulus.csv",
        "arrays.safetensors",
        "provenance.json",
    }
    assert index.read_text(encoding="utf-8") == page
    told = read_json(index.parent / "steering.json")
    for row in told["ranking"]["targets"]:
        assert f"{row['log10_energy']:.3f}" in page
    assert told["stimulus"]["verdict"][1:] in page
    assert f"{told['ranking']['targets'][0]['p_value']:.3f}" in page


def test_the_page_is_inert_and_refers_to_nothing_outside(page):
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)[^"']""", page)
    assert not re.findall(r"\son\w+=", page)
    assert len(page.encode()) < 300_000


def test_every_picture_has_words(page):
    assert all("alt=" in tag for tag in re.findall(r"<img[^>]*>", page))
    assert re.search(r'<svg class="brainmap"[^>]*aria-labelledby', page)


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_it_claims_nothing_of_a_patient(page, pattern):
    text = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    assert not re.search(pattern, text, re.IGNORECASE)


def test_its_limits_are_on_it_in_words(page):
    for line in BRAIN_LIMITS:
        assert str(escape(line)) in page


def test_the_same_study_gives_the_same_bytes(steering, tmp_path):
    first, second = (write_brain_report(steering, tmp_path / name).parent for name in "ab")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_a_connectome_without_centers_shows_its_matrix(steering, page):
    bare = replace(steering, network=replace(steering.network, centers=None))
    told = brain_page(bare)
    assert "brainmap" in page
    assert "no centers" in told
    assert '<svg class="brainmap"' not in told


def test_without_nulls_no_column_speaks_of_them(steering, page):
    assert "Median of nulls" in page
    assert "Median of nulls" not in brain_page(replace(steering, n_nulls=0))


@pytest.mark.slow
def test_hostile_labels_are_printed_not_obeyed():
    whole = simulate_connectome(4, seed=1)
    labels = ("<script>alert(1)</script>", '"><img src=x>', "{{ 7*7 }}", "a\u202eb")
    told = brain_page(study(Connectome(whole.weights, labels, whole.centers), n_nulls=0))
    assert "<script" not in told
    assert "<img src=x" not in told
    assert "{{ 7*7 }}" in told
    assert "\u202e" not in told


def test_an_occupied_folder_is_refused_and_a_brain_report_may_be_replaced(steering, tmp_path):
    write_brain_report(steering, tmp_path / "report")
    with pytest.raises(OutputError):
        write_brain_report(steering, tmp_path / "report")
    write_brain_report(steering, tmp_path / "report", replace=True)


def test_the_front_is_on_top_and_the_left_on_the_left():
    centers = torch.tensor([[-50.0, 0.0, 0.0], [50.0, 0.0, 0.0], [0.0, 80.0, 0.0]]).numpy()
    drawn = brain_map(("l", "r", "f"), centers, torch.ones(3, 3).numpy(),
                      torch.tensor([1.0, 2.0, float("nan")]).numpy(), {"r": 1}, {"f"})  # fmt: skip
    by_title = {r["title"].split(":")[0]: r for r in drawn.regions}
    assert float(by_title["l"]["x"]) < float(by_title["f"]["x"]) < float(by_title["r"]["x"])
    assert float(by_title["f"]["y"]) < float(by_title["l"]["y"])
    assert float(by_title["r"]["r"]) > float(by_title["l"]["r"])
    assert by_title["r"]["label"] == "1 r"
    assert by_title["f"]["title"] == "f: no candidate"
    assert by_title["f"]["ring"] is not None
