"""Forecast of hours 24-48 from hours 0-24 on PhysioNet-2012: set a -> set b, beside the baselines.

    python scripts/benchmarks/forecast.py --data DIR [--seeds 0 1 2] [--models NAME ...]

The clean protocol: negative values dropped and nothing else, repeated keys averaged, values clipped
to the training 0.1-99.9 %, standardised by the training part (hours 0-48 of set a), no logarithms;
36 variables, since MechVent is only ever 1. 771,803 queries are expected and their number printed.
Nothing is selected: there is no tuning part, and set b is scored once.
"""

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import clinode as cn
from clinode.cohort import VARIABLES

METRICS = ("mse_by_variable", "mse", "mae", "nll", "coverage")
QUERIES = 771_803


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


def measure(name: str, seed: int, parts: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One run on set b, with the seconds that training its network took."""
    run = cn.fit(
        cn.sequence.MODELS[name](),
        parts["a"],
        task=cn.Forecast(24.0, at=24.0),
        out=folder / f"{name}-{seed}",
        seed=seed,
        device="cpu",
        progress=False,
    )
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines if line["event"] == "epoch"][-1]
    found = cn.evaluate(run, parts["b"]).to_dict()
    shown = {m: round(found[m]["value"], 4) for m in METRICS}
    print(
        f"{name} seed {seed}: {found['n_queries']:,} queries {shown}, {seconds:.0f} s", flush=True
    )
    if found["n_queries"] != QUERIES:
        print(f"expected {QUERIES:,} queries: this is not the protocol", flush=True)
    return {"name": name, "seed": seed, "seconds": seconds, "evaluation": found}


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
    for name in dict.fromkeys(one["name"] for one in found):
        own = [one for one in found if one["name"] == name]
        seconds = float(np.mean([one["seconds"] for one in own]))
        evaluations = [one["evaluation"] for one in own]
        lines.append(row(f"{name}, mean of {len(own)}", evaluations, seconds))
    first = found[0]["evaluation"]
    lines += [row(name, [held], None) for name, held in first["baselines"].items()]
    lines += ["", f"| seed {found[0]['seed']} minus baseline | MSE, mean over variables | MSE |"]
    lines += ["|---" * 3 + "|"]
    for name, held in first["difference"].items():
        cells = [
            f"{held[m]['value']:+.4f} [{held[m]['low']:+.4f}, {held[m]['high']:+.4f}]"
            for m in METRICS[:2]
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Read, fit, score, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=["linear-latent-ode"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    parts = {name: read_set(arguments.data / "physionet2012", name) for name in "ab"}
    with tempfile.TemporaryDirectory() as scratch:
        found = [
            measure(name, seed, parts, Path(scratch))
            for name in arguments.models
            for seed in arguments.seeds
        ]
    print(f"\n{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, ")
    print(f"clinode {cn.__version__}, torch {torch.__version__}\n")
    print(tables(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
