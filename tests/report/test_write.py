import html
import html.parser
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

import clinode as cn
from clinode.cohort import Cohort
from clinode.report.wording import FORBIDDEN, LIMITS, percent
from clinode.training.recalibrate import recalibrate

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-features=NetworkTimeServiceQuerying"
).split()


OF_THE_COHORT = (
    "cohort",
    "data",
    "dynamics",
    "index",
    "methods",
    "performance",
    "subgroups",
)


def pages(index):
    return sorted(index.parent.glob("*.html"))


class Reader(html.parser.HTMLParser):
    """Tags, addresses and visible text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.text, self.images = [], [], [], []
        self.skipped = 0

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action")]
        self.addresses += re.findall(r"url\(([^)]*)\)", found.get("style") or "")
        if tag == "img":
            self.images.append(found)
        self.skipped += tag == "style"

    def handle_endtag(self, tag):
        self.skipped -= tag == "style"

    def handle_data(self, data):
        if not self.skipped:
            self.text.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def test_there_is_an_index_and_a_page_for_every_explained_subject(report, attributions):
    assert len(pages(report)) == len(OF_THE_COHORT) + len(attributions.gates)
    linked = set(read(report).addresses)
    assert {p.name for p in pages(report)} - {"index.html"} <= linked


def test_pages_hold_no_script_and_refer_to_nothing_outside(report):
    for path in pages(report):
        reader = read(path)
        assert "script" not in reader.tags
        for address in reader.addresses:
            assert address.startswith(("data:", "#")) or re.fullmatch(
                rf"(subject-\d+|{'|'.join(OF_THE_COHORT)})\.html", address
            )


def test_every_page_carries_the_policy_first_and_its_language(report):
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    for path in pages(report):
        text = path.read_text(encoding="utf-8")
        assert f'content="{policy}"' in text[:400]
        assert '<html lang="en">' in text


def test_a_patient_page_stays_under_three_hundred_kilobytes(report):
    assert max(p.stat().st_size for p in pages(report) if p.name != "index.html") < 300_000


def test_no_page_claims_more_than_the_model(report):
    for path in pages(report):
        text = " ".join(read(path).text)
        for pattern in FORBIDDEN:
            assert not re.search(pattern, text, flags=re.IGNORECASE), pattern
        for sentence in LIMITS:
            assert sentence in " ".join(text.split())


def test_pictures_have_words_and_a_table(report):
    assert all(len(i.get("alt", "")) > 20 for path in pages(report) for i in read(path).images)
    for path in pages(report):
        text = path.read_text(encoding="utf-8")
        n_pictures = text.count("<svg")
        assert text.count("<title id=") == n_pictures
        # small pictures of one kind stand together: their title says all, their table is shared
        small = text.count('<svg class="chart" viewBox="0 0 300 ')
        assert text.count("<desc ") == n_pictures - small
        if n_pictures:
            assert "</details>" in text or "<table" in text
    assert "<svg" in (report.parent / "cohort.html").read_text(encoding="utf-8")


def test_cells_that_head_a_column_and_ways_to_other_pages_say_so(report):
    for path in pages(report):
        text = path.read_text(encoding="utf-8")
        assert text.count("<th") - text.count("<thead") == text.count('<th scope="'), path.name
        assert text.count("<nav") == text.count("<nav aria-label=") == 1, path.name


def test_no_identifier_of_a_subject_reaches_a_page(run, cohort, portrait, tmp_path):
    secret = {s: f"MRN-{k:05d}-Q" for k, s in enumerate(cohort.subjects)}
    tables = {
        name: getattr(cohort, name).assign(
            subject_id=getattr(cohort, name)["subject_id"].map(secret)
        )
        for name in ("observations", "statics", "inputs", "outcomes")
    }
    renamed = cn.Cohort.from_tables(**tables, schema=cohort.schema)
    explained = cn.explain(run, renamed, subjects=renamed.subjects[:3])
    index = cn.write_report(run, renamed, explained, tmp_path / "report", portrait=portrait)
    for path in pages(index):
        assert "MRN-" not in path.read_text(encoding="utf-8")


def test_the_same_inputs_give_the_same_bytes(run, cohort, attributions, report, tmp_path):
    again = cn.write_report(run, cohort, attributions, tmp_path / "report")
    for first, second in zip(pages(report), pages(again), strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_the_contributions_of_the_picture_add_up_to_the_change_of_the_output(attributions):
    sums = attributions.to_pandas().groupby("subject_id")["attribution"].sum()
    gates = attributions.gates[~attributions.gates["withheld"]].set_index("subject_id")
    change = (gates["output"] - gates["base"]).loc[sums.index]
    gap = np.abs(sums - change) / np.maximum(np.abs(change), 0.1)
    assert (gap <= 0.01).all()


def test_a_withheld_map_is_not_drawn_and_says_why(run, cohort, attributions, portrait, tmp_path):
    gates = attributions.gates.copy()
    first = gates["subject_id"].iloc[0]
    gates.loc[gates.index[0], ["withheld", "why", "gap"]] = [True, "completeness gap 4 %", 0.04]
    events = attributions.events[attributions.events["subject_id"] != first]
    doubtful = type(attributions)(
        events=events,
        gates=gates,
        method=attributions.method,
        baseline=attributions.baseline,
        outcome=attributions.outcome,
        tolerance=attributions.tolerance,
    )
    index = cn.write_report(run, cohort, doubtful, tmp_path / "report", portrait=portrait)
    page = (index.parent / "subject-0001.html").read_text(encoding="utf-8")
    assert "withheld" in page
    assert "completeness gap 4 %" in page
    assert 'id="timeline"' not in page
    assert 'id="timeline"' in (index.parent / "subject-0002.html").read_text(encoding="utf-8")
    assert "1 of 12 attribution maps did not pass" in index.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "payload",
    [
        "<img src=x onerror=alert(1)>",
        "{{7*7}}",
        "</style><script>alert(1)</script>",
        "a\u202eb\x1b[1m",
    ],
)
def test_a_hostile_variable_name_is_printed_not_obeyed(cohort, payload, tmp_path):
    cohort = cohort.take(range(60))
    observations = cohort.observations.astype({"variable": str})
    observations.loc[observations["variable"] == "HR", "variable"] = payload
    hostile = cn.Cohort.from_tables(
        observations=observations, statics=cohort.statics, outcomes=cohort.outcomes
    )
    run = cn.fit(
        cn.sequence.LinearLatentODE(),
        hostile,
        task=cn.Classify(cohort.outcomes.columns[-1]),
        out=tmp_path / "run",
        config=cn.FitConfig(epochs=1),
    )
    explained = cn.explain(run, hostile, subjects=hostile.subjects[:2])
    index = cn.write_report(run, hostile, explained, tmp_path / "report")
    for path in pages(index):
        reader = read(path)
        assert "script" not in reader.tags
        assert not [i for i in reader.images if "onerror" in i]
        assert "49" not in [t.strip() for t in reader.text] or payload != "{{7*7}}"
        assert "\u202e" not in path.read_text(encoding="utf-8")
        assert "\x1b" not in path.read_text(encoding="utf-8")


def test_an_occupied_folder_is_refused_before_anything_is_written(
    run, cohort, attributions, tmp_path
):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(cn.OutputError):
        cn.write_report(run, cohort, attributions, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def browse(path, folder):
    """Render a page; the browser's messages, the size of its picture, and whom it asked."""
    picture, log = folder / "page.png", folder / "net.json"
    done = subprocess.run(
        [
            str(CHROMIUM),
            *FLAGS,
            f"--user-data-dir={folder / 'profile'}",
            f"--log-net-log={log}",
            "--enable-logging=stderr",
            "--window-size=1100,1800",
            f"--screenshot={picture}",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    asked = set(re.findall(r'"url":"https?://([^/"]*)', log.read_text(errors="replace")))
    return done.stderr, picture.stat().st_size, {host for host in asked if not is_vendor(host)}


def is_vendor(host):
    """Hosts that the browser asks by itself, whatever the page, for its time and its updates.

    That no page refers to them is tested above, on its text.
    """
    return host.endswith((".google.com", ".googleapis.com"))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_shows_the_pages_without_a_request_or_a_complaint(report, tmp_path):
    for path in pages(report)[:2]:
        folder = tmp_path / path.stem
        folder.mkdir()
        messages, size, asked = browse(path, folder)
        assert size > 20_000
        assert "CONSOLE" not in messages, messages[-2000:]
        assert not asked


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_browser_would_have_told_of_a_request_and_of_a_complaint(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("no")</script>')
    messages, _, asked = browse(page, tmp_path)
    assert "CONSOLE" in messages
    assert asked == {"127.0.0.1:9"}


def test_a_file_in_place_of_the_folder_is_refused(run, cohort, attributions, tmp_path):
    (tmp_path / "report").write_text("a file")
    with pytest.raises(cn.OutputError):
        cn.write_report(run, cohort, attributions, tmp_path / "report")


def test_the_page_on_dynamics_describes_the_model_and_says_so(report, run):
    text = " ".join(read(report.parent / "dynamics.html").text)
    assert "describes the fitted model, not a patient" in text
    assert "confounded by who received it" in text
    for quantity in run.model.latent_system.inputs:
        assert quantity.name in text
    assert not [phrase for phrase in FORBIDDEN if re.search(phrase, text, re.IGNORECASE)]
    assert 'href="dynamics.html"' in report.read_text(encoding="utf-8")


def test_a_model_without_dynamics_has_no_such_page_and_the_index_says_why(
    run, cohort, tmp_path_factory
):
    from dataclasses import replace

    schema = run.schema
    model = cn.sequence.GRUD().build(schema, run.task, torch.Generator().manual_seed(0))
    other = replace(run, model=model)
    attributions = cn.explain(other, cohort, subjects=cohort.subjects[:2], method="saliency")
    folder = tmp_path_factory.mktemp("plain") / "report"
    index = cn.write_report(other, cohort, attributions, folder)
    assert not (folder / "dynamics.html").exists()
    assert "GRU-D has no latent system" in index.read_text(encoding="utf-8")


def test_a_recalibrated_run_shows_its_risk_and_the_evidence(run, cohort, attributions, tmp_path):
    others = cn.simulate_cohort(380, seed=11)
    aside = others.select(others.subjects[len(cohort) :])
    mended = recalibrate(run, aside, out=tmp_path / "run", method="platt", n_resamples=40)
    index = cn.write_report(mended, cohort, attributions, tmp_path / "report")
    text = (index.parent / "performance.html").read_text(encoding="utf-8")
    assert '<h2 id="recalibration">' in text
    assert "cross-validated log loss" in text
    assert "Calibration slope" in text
    gate = attributions.gates.iloc[0]
    risk = mended.predict(cohort.select([gate["subject_id"]]))["probability"].iloc[0]
    position = list(cohort.subjects).index(gate["subject_id"]) + 1
    page = (index.parent / f"subject-{position:04d}.html").read_text(encoding="utf-8")
    assert f"that reads {percent(risk)}." in html.unescape(page)


def test_the_index_says_how_far_the_cohort_has_moved(report, run, cohort, attributions, tmp_path):
    assert "0 large" in report.read_text(encoding="utf-8")
    table = cohort.observations
    moved = Cohort.from_tables(
        table.assign(value=table["value"] + 30 * (table["variable"] == "HR")),
        statics=cohort.statics,
        inputs=cohort.inputs,
        outcomes=cohort.outcomes,
    )
    index = cn.write_report(run, moved, attributions, tmp_path / "report")
    assert "large shift" in index.read_text(encoding="utf-8")
