"""PhysioNet-2012: the second day forecast from the first, trained on set a, scored on set b.

    python scripts/benchmarks/forecast.py --data DIR [--seeds 0 1 2] [--models NAME] [--runs DIR]

`DIR` holds physionet2012/set-a.parquet and its companions. The protocol is the clean one that
others report: 24 h seen, 24 h asked, all observations but negative ones, no conversion, no
plausible range, no transform, values standardised by set a; 771,803 queries of 36 variables (the
flag of ventilation, only ever 1, is left out). Every seed is fitted on all of set a without a
tuning part, so nothing is selected; set b is scored once. The ensemble of the seeds (moments of
their mixture) has conformal 90 % intervals by variable, calibrated out of fold on set a: ensembles
of the same seeds are fitted on one half of it and asked about the other. With `--runs` the fits are
kept, and the same call goes on where it was stopped. Set OMP_NUM_THREADS=1 to time one core.
"""

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import clinode as cn
from clinode.cohort import VARIABLES
from clinode.evaluation import Predicted, evaluate_forecast
from clinode.evaluation.conformal import SplitConformal, fit_conformal
from clinode.training.forecasting import forecast_queries
from clinode.training.histories import read_histories

METRICS = ("mse_by_variable", "mse", "mae", "nll", "coverage")
QUERIES = 771_803
N_FOLDS = 2
TASK = cn.Forecast(24.0, at=24.0)


def read_set(folder: Path, name: str) -> cn.Cohort:
    """Set "a" or "b" as it was recorded, without negative values."""
    names = list(VARIABLES)
    policy = cn.Policy(
        ranges=dict.fromkeys(names, (0.0, 1e9)), conversions=dict.fromkeys(names, ())
    )
    return cn.read_cohort(
        folder / f"set-{name}.parquet",
        subject="record_id",
        time="time_hours",
        variable="parameter",
        value="value",
        statics=folder / f"statics-{name}.csv",
        policy=policy,
    )


def fitted(name: str, seed: int, train: cn.Cohort, out: Path) -> tuple[Any, float]:
    """A run, and the seconds that training its network took."""
    run = cn.fit(
        cn.sequence.MODELS[name](),
        train,
        task=TASK,
        out=out,
        seed=seed,
        device="cpu",
        progress=False,
    )
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    return run, [line["seconds"] for line in lines if line["event"] == "epoch"][-1]


def mixture(asked: list[pd.DataFrame]) -> pd.DataFrame:
    """The same queries with mean and spread of the mixture of several forecasts."""
    mean = np.stack([table["mean"] for table in asked])
    variance = np.stack([table["spread"] for table in asked]) ** 2
    spread = np.sqrt(variance.mean(axis=0) + mean.var(axis=0))
    return asked[0].assign(mean=mean.mean(axis=0), spread=spread)


def calibrate(name: str, seeds: list[int], train: cn.Cohort, folder: Path) -> SplitConformal:
    """Scores of set a, each half asked of an ensemble that was fitted on the other."""
    fold = np.random.default_rng(0).permutation(len(train)) % N_FOLDS
    parts, n_variables = [], 0
    for held in range(N_FOLDS):
        rest, asked_of = train[np.flatnonzero(fold != held)], train[np.flatnonzero(fold == held)]
        asked = []
        for seed in seeds:
            run, _ = fitted(name, seed, rest, folder / f"{name}-{seed}-without-{held}")
            asked.append(forecast_queries(run, run.records(asked_of, with_targets=True)))
            n_variables = len(run.schema.variables)
        table = mixture(asked)
        error = (table["mean"] - table["target"]).abs()
        pooled, mae = (error**2).mean(), error.mean()
        print(f"{name}: fold {held} of set a, MSE {pooled:.4f}, MAE {mae:.4f}", flush=True)
        parts.append(table)
    table = pd.concat(parts, ignore_index=True)
    columns = [table[c].to_numpy() for c in ("target", "variable", "mean", "spread")]
    return fit_conformal(*columns, n_variables=n_variables)


def measure(
    name: str, seeds: list[int], parts: dict[str, cn.Cohort], folder: Path
) -> dict[str, Any]:
    """Runs on set b by seed, and their calibrated ensemble."""
    evaluations, seconds, asked, run, records = [], [], [], None, None
    for seed in seeds:
        run, taken = fitted(name, seed, parts["a"], folder / f"{name}-{seed}")
        seconds.append(taken)
        evaluations.append(cn.evaluate(run, parts["b"]).to_dict())
        shown = {m: round(evaluations[-1][m]["value"], 4) for m in METRICS}
        n_queries = evaluations[-1]["n_queries"]
        print(f"{name} seed {seed}: {n_queries:,} queries {shown}, {taken:.0f} s", flush=True)
        if n_queries != QUERIES:
            print(f"expected {QUERIES:,} queries: this is not the protocol", flush=True)
        records = run.records(parts["b"], with_targets=True)
        asked.append(forecast_queries(run, records))
    assert run is not None
    assert records is not None
    table = mixture(asked)
    record, variable, mean, spread, target = (
        table[c].to_numpy() for c in ("record", "variable", "mean", "spread", "target")
    )
    low, high = calibrate(name, seeds, parts["a"], folder).interval(variable, mean, spread)
    histories = read_histories(parts["b"], records, standardised=True)
    together = evaluate_forecast(
        target,
        variable,
        Predicted(mean=mean, spread=spread, low=low, high=high),
        run.baselines.predict(histories, record, variable),
        names=run.schema.variables,
        subjects=record,
    ).to_dict()
    raw = Predicted(mean=mean, spread=spread).errors(target)["coverage"].mean()
    return {
        "name": name,
        "seeds": seeds,
        "seconds": seconds,
        "evaluations": evaluations,
        "together": together,
        "coverage_without_calibration": float(raw),
    }


def row(label: str, held: list[dict[str, Any]], seconds: float | None) -> str:
    """One line of the table, means over seeds; a baseline has no likelihood."""
    cells = []
    for metric in METRICS:
        values = [one[metric]["value"] for one in held if metric in one]
        spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.4f}{spread}" if values else "")
    return f"| {label} | {' | '.join(cells)} | {'' if seconds is None else f'{seconds:.0f}'} |"


def tables(found: list[dict[str, Any]]) -> str:
    """All results as Markdown."""
    head = "| forecast | MSE, mean over variables | MSE | MAE | NLL | coverage of 90 % | seconds |"
    lines = [head, "|---" * 7 + "|"]
    for one in found:
        n = len(one["seeds"])
        seconds = float(np.mean(one["seconds"]))
        lines.append(row(f"{one['name']}, mean of {n}", one["evaluations"], seconds))
        lines.append(row(f"{one['name']}, ensemble of {n}, conformal", [one["together"]], None))
    baselines = found[0]["evaluations"][0]["baselines"]
    lines += [row(name, [held], None) for name, held in baselines.items()]
    lines += ["", "| ensemble minus baseline | MSE, mean over variables | MSE |", "|---" * 3 + "|"]
    for one in found:
        for name, held in one["together"]["difference"].items():
            cells = [
                f"{held[m]['value']:+.4f} [{held[m]['low']:+.4f}, {held[m]['high']:+.4f}]"
                for m in METRICS[:2]
            ]
            lines.append(f"| {one['name']} - {name} | {' | '.join(cells)} |")
    lines += ["", "| most measured | queries | coverage of 90 % |", "|---" * 3 + "|"]
    for one in found:
        held = one["together"]["variables"]
        for name in sorted(held, key=lambda v: -held[v]["n_queries"])[:10]:
            covered = held[name]["model"]["coverage"]["value"]
            lines.append(f"| {one['name']}: {name} | {held[name]['n_queries']} | {covered:.4f} |")
        raw = one["coverage_without_calibration"]
        lines.append(f"| {one['name']}: pooled, uncalibrated | {QUERIES} | {raw:.4f} |")
    return "\n".join(lines)


def main() -> None:
    """Read, fit, score, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=["linear-latent-ode"])
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    parts = {name: read_set(arguments.data / "physionet2012", name) for name in "ab"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.runs or Path(scratch)
        found = [measure(n, arguments.seeds, parts, folder) for n in arguments.models]
    print(f"\n{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, ")
    print(f"clinode {cn.__version__}, torch {torch.__version__}\n")
    print(tables(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
