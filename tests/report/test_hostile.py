# ruff: noqa: E501  a table of payloads reads better in few lines
"""Names, units, levels, identifiers and facts that carry markup: printed, and nothing else.

Every payload stands in every one of nine places of a cohort and its facts, all of them on the pages
of one report. A twin with harmless words in their place tells what the pages are made of: the hostile
report must have no other elements or attributes, ask nobody and make no browser complain.
"""

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import clinode as cn
from clinode.brain import WilsonCowanNetwork, simulate_connectome
from clinode.cohort import CohortSchema, Variable
from clinode.control import StimulusLimits, steer
from clinode.report import ModelFacts

from .test_write import CHROMIUM, FLAGS, browse

pytestmark = pytest.mark.slow

CALL = "alert(1)"
TAGS = [
    f"<script>{CALL}</script>", f"<ScRiPt>{CALL}</sCrIpT>", "<script src=//127.0.0.1:9/x></script>",
    f"</title><script>{CALL}</script>", f"</style><script>{CALL}</script>", f"--><script>{CALL}</script>",
    f"</textarea><script>{CALL}</script>", f"</noscript><script>{CALL}</script>",
    f"]]><script>{CALL}</script>", f"</table><script>{CALL}</script>", f"</svg><script>{CALL}</script>",
    f"<img src=x onerror={CALL}>", f'"><img src=x onerror={CALL}>', f"'><img src=x onerror={CALL}>",
    f"<img src=http://127.0.0.1:9/a.png onload={CALL}>", f"<svg onload={CALL}>", f"<svg/onload={CALL}>",
    f"<svg><script>{CALL}</script></svg>", f"<svg><animate onbegin={CALL} attributeName=x dur=1s>",
    "<svg><use href='data:image/svg+xml,<svg id=x onload=alert(1)/>#x'/></svg>",
    "<svg><foreignObject><iframe src=javascript:alert(1)></iframe></foreignObject></svg>",
    "<svg><image href=http://127.0.0.1:9/b.png /></svg>", "<svg><a xlink:href=javascript:alert(1)>x</a></svg>",
    "<math><mtext></mtext><mglyph><style><img src=x onerror=alert(1)></style></mglyph></math>",
    "<math href=javascript:alert(1)>x</math>", "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<form><math><mtext></form><form><mglyph><style></math><img src=x onerror=alert(1)>",
    "<table><td><style></table><img src=x onerror=alert(1)>", "<p id='</p><img src=x onerror=alert(1)>'>",
    "<iframe src=javascript:alert(1)>", "<iframe srcdoc='<script>alert(1)</script>'>",
    "<object data=javascript:alert(1)>", "<embed src=javascript:alert(1)>",
    "<link rel=stylesheet href=http://127.0.0.1:9/c.css>", "<link rel=prefetch href=http://127.0.0.1:9/d>",
    "<base href=http://127.0.0.1:9/>", "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<meta http-equiv=Content-Security-Policy content=''>", f"<body onload={CALL}>", f"<input autofocus onfocus={CALL}>",
    f"<details open ontoggle={CALL}>", f"<video><source onerror={CALL}>", f"<audio src=x onerror={CALL}>",
    f"<marquee onstart={CALL}>", f"<select autofocus onfocus={CALL}>", f"<button formaction=javascript:{CALL}>",
    f"<form action=javascript:{CALL}><input type=submit>", f"<a href=javascript:{CALL}>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>", "<style>@import 'http://127.0.0.1:9/e.css';</style>",
    "<style>*{background:url(http://127.0.0.1:9/f)}</style>", "<template><script>alert(1)</script></template>",
    "<x onclick=alert(1)>", "<!--", "<![CDATA[", "<!DOCTYPE html [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>&x;",
]  # fmt: skip
WORDS = [
    f'" onmouseover={CALL} x="', f"' onmouseover={CALL} x='", f"` onmouseover={CALL} x=`",
    '" style="background:url(http://127.0.0.1:9/g)', f"javascript:{CALL}", "data:text/html,<b>x</b>",
    "url(http://127.0.0.1:9/h)", "}*{background:url(http://127.0.0.1:9/i)}", "{{7*7}}", "{% for x in y %}", "{# x #}",
    "${7*7}", "#{7*7}", "<%= 7*7 %>", "{{config}}", "{{ self.__init__.__globals__ }}", "%s%s%n", "{0}", "&lt;script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;", "&amp;lt;img&gt;", "\\u003cscript\\u003e", "\\x3cscript\\x3e",
    "%3Cscript%3Ealert(1)%3C/script%3E", "＜script＞alert(1)＜/script＞",
    "=HYPERLINK(\"http://127.0.0.1:9/\")", "+1+1", "-1+1", "@SUM(1)",
    "a\u202eb", "a\u2066b\u2069", "\u200ba\u200b", "\ufeffa", "a\x1b[31mb", "a\x1b]0;t\x07b", "a\x08b", "a\x7fb",
    "../../etc/passwd", "C:\\Windows\\x", "file:///etc/passwd", "$(touch x)", "`touch x`", "; DROP TABLE x",
]  # fmt: skip
PAYLOADS = TAGS + WORDS
BENIGN = [f"word {k:03d}" for k in range(len(PAYLOADS))]


def report_of(words: list[str], folder: Path) -> Path:
    """A report whose cohort says these words wherever a name, a text or an identifier can stand."""
    n, generator = len(words), np.random.default_rng(0)
    unique = [f"{word} v{k}" for k, word in enumerate(words)]
    subjects = [f"s{k:03d} {word}" for k, word in enumerate(words)]  # in one order, as the twin's
    schema = CohortSchema(
        variables=tuple(
            Variable(name=name, label=f"{word} l{k}", unit=f"{word} u{k}")
            for k, (name, word) in enumerate(zip(unique, words, strict=True))
        ),
        inputs=tuple(
            Variable(name=f"{word} i{k}", label=f"{word} j{k}", unit="1")
            for k, word in enumerate(words)
        ),
    )
    rows = [(s, v) for s in range(n) for v in generator.choice(n, 6, replace=False)]
    rows += [(v, v) for v in range(n)] + [(0, v) for v in range(n)]
    rows = sorted(set(rows))
    observations = pd.DataFrame(
        {
            "subject_id": [subjects[s] for s, _ in rows],
            "time": np.round(generator.uniform(0, 24, len(rows)), 3),
            "variable": [unique[v] for _, v in rows],
            "value": generator.normal(10, 2, len(rows)),
        }
    )
    statics = pd.DataFrame({"subject_id": subjects, "level": [f"{word} c" for word in words]})
    named = {f"t{k} {word}": generator.normal(size=n) for k, word in enumerate(words)}
    statics = pd.concat([statics, pd.DataFrame(named)], axis=1)
    inputs = pd.DataFrame(
        {
            "subject_id": subjects,
            "start": 1.0,
            "end": 5.0,
            "variable": [f"{word} i{k}" for k, word in enumerate(words)],
            "value": 1.0,
        }
    )
    outcome = f"{words[0]} {words[11]} {words[-20]}"
    outcomes = pd.DataFrame(
        {"subject_id": subjects, "prediction_time": 24.0, outcome: generator.integers(0, 2, n)}
    )
    cohort = cn.Cohort.from_tables(observations, statics, inputs, outcomes, schema=schema)
    run = cn.fit(
        cn.sequence.LinearLatentODE(latent=2, hidden=4, statistics_hidden=4, head_hidden=4),
        cohort,
        task=cn.Classify(outcome),
        out=folder / "run",
        config=cn.FitConfig(epochs=1),
        progress=False,
    )
    explained = cn.explain(run, cohort, "saliency", subjects=subjects[:2])
    said = " ".join(words)
    facts = ModelFacts(name=said, contact=said, summary=said, when_not_to_use=said, risks=said)
    return cn.write_report(run, cohort, explained, folder / "report", facts=facts)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("hostile")
    return report_of(PAYLOADS, folder / "a"), report_of(BENIGN, folder / "b")


def test_there_are_enough_payloads():
    assert len(set(PAYLOADS)) == len(PAYLOADS) >= 80


def test_every_page_is_made_of_what_its_harmless_twin_is_made_of(both):
    hostile, benign = (sorted(index.parent.glob("*.html")) for index in both)
    assert [path.name for path in hostile] == [path.name for path in benign]
    for path, twin in zip(hostile, benign, strict=True):
        text = path.read_text(encoding="utf-8")
        assert_made_alike(text, twin.read_text(encoding="utf-8"), path.name)
        assert not re.search("[\u202e\u2066\u200b\ufeff\x1b\x08\x7f]", text)
        assert len(text) < 1_500_000


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_builds_the_same_page_asks_nobody_and_does_not_complain(both, tmp_path):
    hostile, benign = both
    for path in sorted(hostile.parent.glob("*.html")):
        folder = tmp_path / path.stem
        folder.mkdir()
        messages, _, asked = browse(path, folder)
        assert "CONSOLE" not in messages, messages[-2000:]
        assert not asked
        twin = (benign.parent / path.name).read_text(encoding="utf-8")
        assert_made_alike(built(path, folder), twin, path.name)


def steering_of(words: list[str], folder: Path) -> Path:
    """The page of a network whose regions are called by these words, two a region."""
    pairs = [f"{' '.join(words[k : k + 2])} r{k}" for k in range(0, len(words), 2)]
    pairs += ["other"] * (len(pairs) % 2)  # two hemispheres
    connectome = replace(simulate_connectome(len(pairs), seed=1), labels=tuple(pairs))
    brain = WilsonCowanNetwork(connectome, K=1.0)
    rest = cn.find_equilibria(brain, n_starts=8)[0]
    target = {f"E:{pairs[0]}": float(rest.state[0]) + 0.03}
    found = steer(
        brain,
        target,
        rest,
        limits=StimulusLimits(amplitude=2.0),
        horizon=10.0,
        n_stimulated=2,
        n_nulls=0,
    )
    return cn.write_brain_report(found, folder)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_regions_by_any_name_are_printed_and_nothing_else(tmp_path):
    hostile, benign = steering_of(PAYLOADS, tmp_path / "a"), steering_of(BENIGN, tmp_path / "b")
    text, twin = hostile.read_text(encoding="utf-8"), benign.read_text(encoding="utf-8")
    assert_made_alike(text, twin, "brain")
    assert not re.search("[\u202e\u2066\u200b\ufeff\x1b\x08\x7f]", text)
    messages, _, asked = browse(hostile, tmp_path)
    assert "CONSOLE" not in messages, messages[-2000:]
    assert not asked
    assert_made_alike(built(hostile, tmp_path), twin, "brain")
    for table in hostile.parent.glob("*.csv"):
        cells = pd.read_csv(table, dtype=str).to_numpy().ravel().tolist()
        assert not [cell for cell in cells if isinstance(cell, str) and cell[0] in "=+@\t\r"]


class Parts(HTMLParser):
    """Elements of a page, and the attributes that each kind has."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: Counter = Counter()
        self.attributes: set[tuple[str, str]] = set()
        self.used: list[str] = []  # what drawings take from elsewhere
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements[tag] += 1
        self.attributes |= {(tag, name) for name, _ in attrs}
        if tag == "use":
            self.used += [value or "" for name, value in attrs if name.endswith("href")]


DRAWN = set("circle desc details div g line li p path polygon polyline rect span summary".split())
DRAWN |= set("table caption tbody td text th thead title tr tspan ul".split())
DRAWN |= set("figure figcaption svg section h2 h3 use".split())
"""How many there are depends on numbers, which the order of names changes a little."""


def assert_made_alike(text: str, twin: str, name: str) -> None:
    found, expected = Parts(text), Parts(twin)
    assert set(found.elements) - {"tbody"} <= set(expected.elements) | DRAWN, name
    assert found.attributes <= expected.attributes | {("path", "class"), ("tr", "class")}, name
    assert not [pair for pair in found.attributes if pair[1].startswith("on")]
    assert all(place.startswith("#") for place in found.used), name
    fixed = (set(found.elements) | set(expected.elements)) - DRAWN
    assert {tag: found.elements[tag] for tag in fixed} == {
        tag: expected.elements[tag] for tag in fixed
    }, name


def built(path: Path, folder: Path) -> str:
    """A page as a browser has built it."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'dom'}", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    shutil.rmtree(folder / "dom", ignore_errors=True)
    return done.stdout
