"""Size and opening time of report pages: 20 subjects, on PhysioNet-2012 and simulated patients.

    python scripts/benchmarks/pages.py [--data DIR] [--out DIR] [--densest] [--repeats 5]

`DIR` holds physionet2012/set-a.parquet and its companions; without it only simulated patients are
reported on. Fits are short: a page is as long for a poor model as for a good one. Pages hold all
they can: intervals of a second run's forecasts, a second baseline and a second method, the split by
kind, single changes across a threshold. With --densest the subjects are those with the most
measured values instead of the first. With --out the reports stay there. Opening is timed by the
clock of headless Chromium, from asking for a page until it is read and laid out; the start of the
browser is not in it.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

import clinode as cn

N_SUBJECTS, N_TRAIN, N_SHOWN = 20, 600, 400
PATIENT, FOLDER, SECONDS = 300_000, 1_500_000, 1.0  # goals: bytes of a page, of all, s to open
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --dump-dom".split()
POLICY = '<meta http-equiv="Content-Security-Policy"[^>]*>'
CLOCK = """addEventListener("load", () => {
  document.body.getBoundingClientRect();
  document.title = "CLOCK" + performance.now();
});"""


def simulated() -> tuple[cn.Cohort, cn.Cohort, str]:
    """Cohorts to fit and to report on, and their outcome."""
    cohort = cn.simulate_cohort(N_TRAIN + N_SHOWN, seed=0)
    train, shown = cohort.subjects[:N_TRAIN], cohort.subjects[N_TRAIN:]
    return (
        cohort.select(train),
        cohort.select(shown),
        cohort.outcomes.columns[-1],
    )


def physionet2012(folder: Path) -> tuple[cn.Cohort, cn.Cohort, str]:
    """The same of the first records of sets a and b."""
    parts = [
        cn.read_cohort(
            folder / "physionet2012" / f"set-{name}.parquet",
            subject="record_id",
            time="time_hours",
            variable="parameter",
            value="value",
            statics=folder / "physionet2012" / f"statics-{name}.csv",
            outcomes=folder / "physionet2012" / f"outcomes-{name}.csv",
        )
        for name in "ab"
    ]
    train, shown = parts
    return (
        train.select(train.subjects[:N_TRAIN]),
        shown.select(shown.subjects[:N_SHOWN]),
        "in_hospital_death",
    )


def report(
    parts: tuple[cn.Cohort, cn.Cohort, str], out: Path, runs: Path, *, densest: bool
) -> Path:
    """Fit, explain 20 subjects in every way that pages tell of, and write them."""
    train, shown, outcome = parts
    config = cn.FitConfig(epochs=2)
    tasks = (cn.Classify(outcome), cn.Forecast(12.0))
    run, ahead = (
        cn.fit(
            cn.sequence.LinearLatentODE(),
            train,
            task=task,
            out=runs / str(number),
            config=config,
            device="cpu",
            progress=False,
        )
        for number, task in enumerate(tasks)
    )
    subjects = list(shown.subjects)
    if densest:
        counts = shown.observations["subject_id"].value_counts().to_dict()
        subjects.sort(key=lambda subject: -counts[subject])
    subjects = subjects[:N_SUBJECTS]
    others = [
        cn.explain(run, shown, subjects=subjects, baseline="carry"),
        cn.explain(run, shown, "shapley", "delete", subjects=subjects),
    ]
    return cn.write_report(
        run,
        shown,
        cn.explain(run, shown, subjects=subjects),
        out,
        facts=cn.ModelFacts(threshold=0.2),
        kinds=cn.attribution.explain_kinds(run, shown, subjects=subjects),
        forecasts=ahead,
        others=others,
        replace=True,
    )


def opened(page: Path, repeats: int) -> float:
    """Median seconds from asking for a page until it is laid out, by the browser's clock."""
    text = page.read_text(encoding="utf-8").replace("</body>", f"<script>{CLOCK}</script></body>")
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / page.name
        copy.write_text(re.sub(POLICY, "", text), encoding="utf-8")
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder}/profile", copy.as_uri()]
        for _ in range(repeats + 1):
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
            found = re.search("<title>CLOCK([0-9.]+)</title>", done.stdout)
            assert found is not None
            taken.append(float(found.group(1)) / 1e3)
    return statistics.median(taken[1:])  # the first one makes its profile


def told(name: str, folder: Path, repeats: int) -> None:
    """Print what was measured of a report."""
    pages = sorted(folder.glob("*.html"))
    size = {page: page.stat().st_size for page in pages}
    largest = max((p for p in pages if p.name.startswith("subject")), key=lambda p: size[p])
    whole = sum(path.stat().st_size for path in folder.iterdir())
    cohort = sum(size[p] for p in pages if not p.name.startswith("subject"))
    print(f"{name}: largest patient page {size[largest] / 1e3:.0f} kB, goal {PATIENT / 1e3:.0f}")
    print(f"  pages on the cohort {cohort / 1e3:.0f} kB")
    print(f"  whole folder {whole / 1e6:.2f} MB, goal {FOLDER / 1e6:.1f}")
    if CHROMIUM is None:
        print("  no chromium on this machine: opening was not timed")
        return
    for page in (largest, *(p for p in pages if not p.name.startswith("subject"))):
        seconds = opened(page, repeats)
        kilobytes = f"{size[page] / 1e3:4.0f} kB"
        print(f"  {page.name:<18} {kilobytes} opens in {seconds:.2f} s, goal {SECONDS:g}")


def main() -> None:
    """Write both reports, measure them and print."""
    parser = argparse.ArgumentParser(description="Size and opening time of report pages.")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--densest", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    cohorts = {"simulated": simulated}
    if options.data is not None:
        cohorts["physionet2012"] = lambda: physionet2012(options.data)
    with tempfile.TemporaryDirectory() as scratch:
        for name, read in cohorts.items():
            folder = (options.out or Path(scratch)) / name
            folder.parent.mkdir(parents=True, exist_ok=True)
            report(read(), folder, Path(scratch) / f"{name}-runs", densest=options.densest)
            told(name, folder, options.repeats)


if __name__ == "__main__":
    main()
