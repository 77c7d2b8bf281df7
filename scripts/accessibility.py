"""Ask axe whether every page of a report can be read by everybody.

    python scripts/accessibility.py --report DIR --axe FILE [--json]

`FILE` is axe.min.js of the npm package axe-core, version 4 (unpack what `npm pack` gives, outside
of the checkout); it is a tool of development and no part of clinode. Every page is copied to a
scratch folder, there relieved of its policy against scripts, all its folded parts opened, axe run
over it in headless Chromium, in light and dark, wide and narrow, and what axe found printed; of
narrow pages also what sticks out of them. Ends with 1 where anything serious or critical was found,
where something sticks out, or where no contrast was judged. Contrast stays "open" where axe does
not know what a text stands on, as in pictures: tests work that out from the style sheet. Standard
library only.
"""

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --allow-file-access-from-files "
    "--virtual-time-budget=60000 --dump-dom"
).split()
SCHEMES = {"light": 1, "dark": 0}  # as Chromium numbers them
WIDTHS = (1280, 320)  # CSS pixels; 1280 seen at 400 % are 320. A browser's own least is some 500
SEVERE = ("critical", "serious")
TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
RUNNER = """
for (const part of document.querySelectorAll("details")) part.open = true;
document.documentElement.style.maxWidth = "WIDTHpx";
const wide = [...document.body.querySelectorAll(":not(script)")].filter((part) =>
  !part.parentElement.closest(".scroll, svg") && part.getBoundingClientRect().right > WIDTH + 1);
const brief = (rules) => rules.map((rule) => ({
  id: rule.id, impact: rule.impact, help: rule.help, n: rule.nodes.length,
  nodes: rule.nodes.slice(0, 5).map((node) => ({
    target: node.target.join(" "), summary: node.failureSummary || "",
    why: [...node.any, ...node.all, ...node.none].map((check) => check.message).join("; "),
  })),
}));
axe.run(document, {
  runOnly: {type: "tag", values: TAGS}, rules: {"target-size": {enabled: true}},
  resultTypes: ["violations", "incomplete", "passes"], elementRef: false,
}).then((found) => ({
  violations: brief(found.violations), incomplete: brief(found.incomplete),
  passes: found.passes.map((rule) => ({id: rule.id, n: rule.nodes.length})),
}), (error) => ({error: String(error)})).then((told) => {
  told.dark = matchMedia("(prefers-color-scheme: dark)").matches;
  told.wide = wide.map((part) => part.tagName.toLowerCase() + " " + part.textContent.slice(0, 40));
  document.body.textContent = "AXE" + JSON.stringify(told) + "EXA";
});
""".replace("TAGS", json.dumps(TAGS))
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def instrumented(text: str, axe: Path, width: int) -> str:
    """The page without its policy, with axe and what runs it at its end."""
    relieved, n = POLICY.subn("", text, count=1)
    if n != 1:
        raise SystemExit("a page has no policy against scripts: is this a report of clinode?")
    runner = RUNNER.replace("WIDTH", str(width))
    run = f'<script src="{axe.resolve().as_uri()}"></script><script>{runner}</script>'
    return relieved.replace("</body>", run + "</body>")


def asked(page: Path, axe: Path, scheme: str, width: int, scratch: Path) -> dict[str, Any]:
    """What axe says of one page, seen in one way."""
    copy = scratch / page.name
    copy.write_text(instrumented(page.read_text(encoding="utf-8"), axe, width), encoding="utf-8")
    done = subprocess.run(
        [
            str(CHROMIUM),
            *FLAGS,
            f"--user-data-dir={scratch / 'profile'}",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
            f"--window-size={width},1000",
            copy.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    found = re.search(r"AXE(\{.*\})EXA", done.stdout, flags=re.DOTALL)
    if found is None:
        raise SystemExit(f"{page.name}: axe did not answer\n{done.stderr[-2000:]}")
    told = json.loads(html.unescape(found.group(1)))
    if "error" in told:
        raise SystemExit(f"{page.name}: axe failed: {told['error']}")
    return {"page": page.name, "scheme": scheme, "width": width, **told}


def examined(report: Path, axe: Path, pages: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What axe says of every page of a report, or of those named, in both schemes and widths.

    Args:
        report: Folder of the pages.
        axe: The file axe.min.js.
        pages: File names; all where empty.
    """
    chosen = [path for path in sorted(report.glob("*.html")) if not pages or path.name in pages]
    if not chosen:
        raise SystemExit(f"{report.name} holds no page")
    with tempfile.TemporaryDirectory() as folder:
        return [
            asked(path, axe, scheme, width, Path(folder))
            for path in chosen
            for scheme in SCHEMES
            for width in WIDTHS
        ]


def severe(found: Sequence[dict[str, Any]]) -> list[str]:
    """What must be mended: serious and critical findings, and contrast that was not judged."""
    told = []
    for one in found:
        where = f"{one['page']} ({one['scheme']}, {one['width']} px)"
        told += [
            f"{where}: {rule['impact']} {rule['id']}, {rule['n']} nodes: {node['target']}"
            for rule in one["violations"]
            if rule["impact"] in SEVERE
            for node in rule["nodes"][:1]
        ]
        told += [f"{where}: sticks out: {part}" for part in one["wide"][:3]]
        if not any(rule["id"] == "color-contrast" for rule in one["passes"]):
            told.append(f"{where}: no contrast was judged")
        if one["dark"] != (one["scheme"] == "dark"):
            told.append(f"{where}: the browser did not take the scheme")
    return told


def row(one: dict[str, Any]) -> list[str]:
    """A page, seen in one way, as a row of the table."""
    impacts = Counter(rule["impact"] for rule in one["violations"])
    rules = ", ".join(f"{rule['id']} {rule['n']}" for rule in one["violations"]) or "none"
    passed = {rule["id"]: rule["n"] for rule in one["passes"]}
    open_ = sum(rule["n"] for rule in one["incomplete"] if rule["id"] == "color-contrast")
    return [
        one["page"],
        one["scheme"],
        str(one["width"]),
        *(str(impacts[name]) for name in (*SEVERE, "moderate", "minor")),
        f"{passed.get('color-contrast', 0)} + {open_}",
        rules,
    ]


def main() -> int:
    """Ask, print, and say by the exit code whether something must be mended."""
    parser = argparse.ArgumentParser(description="Accessibility of the pages of a report.")
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--axe", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("no chromium on this machine")
    found = examined(options.report, options.axe)
    if options.json:
        print(json.dumps(found, indent=1))
        return bool(severe(found))
    head = ["page", "scheme", "px", *SEVERE, "moderate", "minor", "contrast judged + open"]
    print(" | ".join([*head, "rules and nodes"]))
    for one in found:
        print(" | ".join(row(one)))
    must = severe(found)
    print(f"{len(found)} views of pages, {len(must)} findings that must be mended", *must, sep="\n")
    return bool(must)


if __name__ == "__main__":
    sys.exit(main())
