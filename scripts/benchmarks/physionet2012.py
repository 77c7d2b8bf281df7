"""In-hospital death on PhysioNet-2012: trained on set a, scored on set b, beside the baselines.

    python scripts/benchmarks/physionet2012.py --data DIR [--seeds 0 1 2] [--models NAME ...]

`DIR` holds physionet2012/set-a.parquet and its companions. Every configuration is fitted on all of
set a with each seed, without a tuning part, so nothing is selected; set b is scored once. The rows
of the baselines come from the very same runs. Set OMP_NUM_THREADS=1 to time one core.
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from scipy.special import expit

import clinode as cn
from clinode.evaluation import evaluate_classification
from clinode.training.histories import read_histories

OUTCOME = "in_hospital_death"
AUXILIARY = ("length_of_stay", "saps_i", "sofa", "died_within_90_days")
METRICS = ("auroc", "auprc", "brier", "ece", "calibration_slope", "calibration_intercept")


def read_set(folder: Path, name: str) -> cn.Cohort:
    """Set "a" or "b" with statics and outcomes."""
    return cn.read_cohort(
        folder / f"set-{name}.parquet",
        subject="record_id",
        time="time_hours",
        variable="parameter",
        value="value",
        statics=folder / f"statics-{name}.csv",
        outcomes=folder / f"outcomes-{name}.csv",
    )


def network_seconds(run: Any) -> tuple[float, float]:
    """Seconds that the training of the network took, and those of the baselines, from the log."""
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    epochs = [line["seconds"] for line in lines if line["event"] == "epoch"]
    baselines = [line["seconds"] for line in lines if line["event"] == "baselines"]
    return epochs[-1], baselines[-1]


def measure(
    name: str, auxiliary: tuple[str, ...], seeds: list[int], parts: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Fit one configuration with every seed; what its runs and their baselines reach on set b."""
    task = cn.Classify(OUTCOME, auxiliary=auxiliary)
    logits, evaluations, seconds = [], [], []
    run = None
    for seed in seeds:
        start = time.process_time()
        run = cn.fit(
            cn.sequence.MODELS[name](),
            parts["a"],
            task=task,
            out=folder / f"{name}-{len(auxiliary)}-{seed}",
            seed=seed,
            device="cpu",
            progress=False,
        )
        cpu = time.process_time() - start
        network, baselines = network_seconds(run)
        seconds.append({"network": network, "baselines": baselines, "cpu_of_fit": cpu})
        evaluations.append(cn.evaluate(run, parts["b"]).to_dict())
        records = run.records(parts["b"], with_targets=True)
        logits.append(run.logits(records))
        shown = {m: round(evaluations[-1][m]["value"], 4) for m in METRICS[:4]}
        print(f"{name} seed {seed}: {shown}, {network:.0f} s", flush=True)
    assert run is not None
    records = run.records(parts["b"], with_targets=True)
    together = evaluate_classification(
        records.target[:, 0],
        expit(np.mean(logits, axis=0)),
        run.baselines.predict(read_histories(parts["b"], records)),
        subjects=np.arange(len(records)),
    ).to_dict()
    return {
        "name": name,
        "auxiliary": auxiliary,
        "seeds": seeds,
        "seconds": seconds,
        "evaluations": evaluations,
        "together": together,
    }


def row(label: str, held: list[dict[str, Any]], seconds: float | None) -> str:
    """One line of the table: mean over seeds, and the standard deviation of the first two."""
    values = np.array([[one[m]["value"] or np.nan for m in METRICS] for one in held])
    mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1 if len(held) > 1 else 0)
    cells = [
        f"{m:.4f} ± {s:.4f}" if k < 2 else f"{m:.4f}"
        for k, (m, s) in enumerate(zip(mean, spread, strict=True))
    ]
    return f"| {label} | {' | '.join(cells)} | {'' if seconds is None else f'{seconds:.0f}'} |"


def difference(label: str, estimates: dict[str, Any]) -> str:
    """One line of differences with their intervals."""
    cells = [
        f"{estimates[m]['value']:+.4f} [{estimates[m]['low']:+.4f}, {estimates[m]['high']:+.4f}]"
        for m in METRICS[:3]
    ]
    return f"| {label} | {' | '.join(cells)} |"


def tables(found: list[dict[str, Any]]) -> str:
    """All results as Markdown."""
    head = "| model | AUROC | AUPRC | Brier | ECE | slope | intercept | seconds |\n" + "|---" * 8
    lines = [head + "|"]
    for one in found:
        label = one["name"] + ("" if one["auxiliary"] else ", no auxiliary outcomes")
        seconds = float(np.mean([s["network"] for s in one["seconds"]]))
        lines.append(row(f"{label}, mean of {len(one['seeds'])}", one["evaluations"], seconds))
        lines.append(row(f"{label}, mean logit of {len(one['seeds'])}", [one["together"]], None))
    first = found[0]
    for name in first["evaluations"][0]["baselines"]:
        held = [evaluation["baselines"][name] for evaluation in first["evaluations"]]
        seconds = float(np.mean([s["baselines"] for s in first["seconds"]]))
        lines.append(row(name, held, seconds if name == list(held[0])[-1] else None))
    lines += ["", "| model minus baseline | AUROC | AUPRC | Brier |", "|---|---|---|---|"]
    for one in found:
        for name, estimates in one["evaluations"][0]["difference"].items():
            if name != "prevalence":
                lines.append(
                    difference(f"{one['name']}, seed {one['seeds'][0]} - {name}", estimates)
                )
                together = one["together"]["difference"][name]
                lines.append(difference(f"{one['name']}, mean logit - {name}", together))
    return "\n".join(lines)


def main() -> None:
    """Read, fit, score, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=["linear-latent-ode"])
    parser.add_argument("--without-auxiliary", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = arguments.data / "physionet2012"
    parts = {name: read_set(folder, name) for name in "ab"}
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.models:
            found.append(measure(name, AUXILIARY, arguments.seeds, parts, Path(scratch)))
            if arguments.without_auxiliary:
                found.append(measure(name, (), arguments.seeds, parts, Path(scratch)))
    print(f"\n{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, ")
    print(f"clinode {cn.__version__}, torch {torch.__version__}, sklearn {sklearn.__version__}\n")
    print(tables(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
