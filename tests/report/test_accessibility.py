"""Whether everybody can read the pages: headings, names, tables, keyboard, contrast; and axe.

What can be worked out from a page is worked out here; axe is asked in a browser where it is given.
"""

import importlib.util
import re
import sys
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from clinode.report.rendering import page_environment

from .test_write import CHROMIUM, pages

ROOT = Path(__file__).resolve().parents[2]
STYLES = ("style.css", "cohort.css", "brain.css")


class Elements(HTMLParser):
    """The elements of a page in order, each with its attributes and the text up to the next."""

    def __init__(self, text):
        super().__init__()
        self.found: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, {k: v or "" for k, v in attrs}, []))

    def handle_data(self, data):
        if self.found:
            self.found[-1][2].append(data)

    def named(self, *tags):
        return [(attrs, "".join(text).strip()) for tag, attrs, text in self.found if tag in tags]


@pytest.fixture(scope="module")
def read(report):
    return {path.name: Elements(path.read_text(encoding="utf-8")) for path in pages(report)}


def test_headings_begin_with_one_of_the_page_and_skip_no_level(read):
    for name, page in read.items():
        levels = [int(tag[1]) for tag, _, _ in page.found if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1, name
        assert levels.count(1) == 1, name
        assert all(after - before <= 1 for before, after in pairwise(levels)), name


def test_a_page_has_its_landmarks_and_whatever_is_referred_to(read):
    for name, page in read.items():
        for tag in ("header", "main", "footer", "nav"):
            assert len(page.named(tag)) == 1, (name, tag)
        assert page.named("html")[0][0]["lang"] == "en"
        assert page.named("title")[0][1]
        ids = [attrs["id"] for _, attrs, _ in page.found if "id" in attrs]
        assert len(ids) == len(set(ids)), name
        asked = [i for _, attrs, _ in page.found for i in attrs.get("aria-labelledby", "").split()]
        asked += [a["href"][1:] for a, _ in page.named("use")]
        assert set(asked) <= set(ids), name
        assert all("aria-labelledby" in attrs for attrs, _ in page.named("section")), name


def test_every_picture_has_a_name_and_its_numbers_stand_in_a_table_below_it(read, report):
    for name, page in read.items():
        for attrs, _ in page.named("svg"):
            assert attrs["role"] == "img", name
            assert attrs["aria-labelledby"], name
        assert all(len(text) > 5 for attrs, text in page.named("title") if "id" in attrs), name
        assert all(len(attrs["alt"]) > 20 for attrs, _ in page.named("img")), name
        text = (report.parent / name).read_text(encoding="utf-8")
        for section in re.findall("<section.*?</section>", text, flags=re.DOTALL):
            below = re.split("<svg|<img", section)[-1]
            if below != section and 'id="timeline"' not in section:
                assert "<table" in below, (name, section[:60])
    (told,) = [text for _, text in read["subject-0001.html"].named("summary") if "value" in text]
    assert told == "Every value, by variable"  # the table of the timeline


def test_tables_have_captions_and_heads_that_say_what_they_head(read, report):
    for name, page in read.items():
        assert len(page.named("table")) == len(page.named("caption")), name
        assert all(text for _, text in page.named("caption", "th")), name
        assert {a.get("scope") for a, _ in page.named("th")} <= {"col", "row"}, name


def test_the_keyboard_follows_the_page_and_reaches_what_can_be_scrolled(read, report):
    for name, page in read.items():
        assert {a["tabindex"] for _, a, _ in page.found if "tabindex" in a} <= {"0"}, name
        assert not [a for _, a, _ in page.found if {"accesskey", "autofocus"} & set(a)], name
        text = (report.parent / name).read_text(encoding="utf-8")
        inside = '<div class="scroll" role="group" aria-label="Table" tabindex="0"><table'
        assert text.count("<table") == text.count(inside), name
        for attrs, _ in page.named("div"):
            if attrs.get("class") == "scroll":
                assert attrs["tabindex"] == "0", name
                assert attrs["role"] == "group", name
                assert attrs["aria-label"], name
    style = "".join(page_environment().get_template(name).render() for name in STYLES)
    assert not re.search(r"[{;\s]order:|-reverse|outline:\s*(0|none)", style)
    assert ":focus-visible" in style


def colors():
    """The colors of each scheme: light, dark, print."""
    style = page_environment().get_template("style.css").render()
    first, *others = [
        dict(re.findall(r"--([\w-]+): (#\w+)", block))
        for block in re.findall(r":root \{([^}]*--page[^}]*)\}", style)
    ]
    return [first, *({**first, **other} for other in others)]


def channels(color):
    digits = color.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    return [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]


def contrast(one, other):
    """WCAG 2.2, of two colors as their channels."""

    def light(color):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_black_and_white_is_that_of_the_standard():
    assert contrast(channels("#000"), channels("#ffffff")) == pytest.approx(21)
    assert contrast(channels("#777777"), channels("#fff")) == pytest.approx(4.48, abs=0.005)


TEXT = ("ink", "quiet", "raise", "lower", "warn")
GROUNDS = ("page", "panel", "warn-panel", "band")


def test_every_text_stands_out_from_everything_it_can_stand_on():
    style = "".join(page_environment().get_template(name).render() for name in STYLES)
    assert set(re.findall(r"[{;\s]color: var\(--([\w-]+)\)", style)) <= set(TEXT)
    schemes = colors()
    assert len(schemes) == 3
    shades = [int(found) / 100 for found in re.findall(r"var\(--zero\) (\d+)%", style)]
    assert shades
    for scheme in schemes:
        named = {name: channels(color) for name, color in scheme.items()}
        for text in TEXT:
            for ground in GROUNDS:
                assert contrast(named[text], named[ground]) >= 4.5, (text, ground)
        for share in shades:  # cells of the table of what is missing
            pairs = zip(named["zero"], named["page"], strict=True)
            mixed = [share * zero + (1 - share) * page for zero, page in pairs]
            assert contrast(named["ink"], mixed) >= 4.5
        for mark in ("ink", "raise", "lower", "zero"):
            for ground in ("page", "band"):
                assert contrast(named[mark], named[ground]) >= 3, (mark, ground)


def test_no_two_schemes_share_their_text_on_a_ground_of_the_other():
    light, dark, paper = colors()
    assert light["page"] != dark["page"]
    assert all(len({s[n] for s in (light, dark)}) == 2 for n in (*TEXT, *GROUNDS))
    assert all(set(one) == set(other) for one, other in combinations((light, dark, paper), 2))


@pytest.fixture(scope="module")
def axe(request):
    given = request.config.getoption("--axe")
    if given is None:
        pytest.skip("pass --axe=FILE, the axe.min.js of the npm package axe-core")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    spec = importlib.util.spec_from_file_location(
        "accessibility", ROOT / "scripts/accessibility.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module, Path(given)


@pytest.mark.slow
def test_axe_finds_nothing_serious_in_light_and_dark_wide_and_narrow(report, axe):
    module, file = axe
    found = module.examined(report.parent, file, ["cohort.html", "subject-0001.html"])
    assert len(found) == 8
    assert module.severe(found) == []


@pytest.mark.slow
def test_axe_would_have_told_of_pale_text_a_nameless_picture_and_a_wide_part(report, axe, tmp_path):
    module, file = axe
    text = (report.parent / "cohort.html").read_text(encoding="utf-8")
    text = text.replace("--quiet:#57606a", "--quiet:#cccccc")
    text = re.sub("<title id=.*?</title>|<desc .*?</desc>", "", text, flags=re.DOTALL)
    text = re.sub(' aria-labelledby="[^"]* [^"]*"', "", text)  # of pictures: two names
    text = text.replace("<main>", '<main><p style="width:500px;max-width:none">wide</p>')
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    told = " ".join(module.severe(module.examined(tmp_path, file)))
    assert "serious color-contrast" in told
    assert "svg-img-alt" in told
    assert "sticks out" in told
