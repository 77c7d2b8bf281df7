import re

import pytest


@pytest.mark.slow
def test_the_demo_leaves_pages_that_its_index_links_and_says_so_in_six_lines(
    cli, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ended = cli("demo", "--subjects", "120")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert len(lines) == 6
    assert "AUROC" in lines[1]
    assert "Planted causes: Lactate ranks" in lines[2]
    assert "chance" in lines[2]
    assert "clinode-demo/index.html" in lines[3]
    assert "clinode-demo/brain/index.html" in lines[4]
    assert "clinode check" in lines[5]
    folder = tmp_path / "clinode-demo"
    pages = {path.name for path in folder.glob("subject-*.html")}
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert pages == set(re.findall(r"subject-\d{4}\.html", index))
    assert cli("verify", folder).code == 0
    assert cli("verify", folder / "run").code == 0
    assert cli("verify", folder / "brain").code == 0
    again = cli("demo", "--subjects", "120", "--json")
    assert again.code == 0, "a demo replaces an earlier demo"
    found = again.json["planted"]
    assert found["auprc"]["low"] > found["chance"]
    assert set(found["rank"]) == {"Lactate", "MAP"}


def test_the_demo_touches_nothing_else_that_stands_in_its_place(cli, tmp_path):
    folder = tmp_path / "clinode-demo"
    folder.mkdir()
    (folder / "thesis.txt").write_text("words", encoding="utf-8")
    ended = cli("demo", folder)
    assert ended.code == 2
    assert "not empty" in ended.err
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
