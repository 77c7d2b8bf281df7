"""In-hospital death on PhysioNet-2012: trained on set a, scored on set b, beside the baselines.

    python scripts/benchmarks/physionet2012.py --data DIR [--seeds 0 1 2 3 4] [--models NAME ...]
        [--out-of-fold]

`DIR` holds physionet2012/set-a.parquet and its companions. Every configuration is fitted on all of
set a with each seed, without a tuning part, so nothing is selected; set b is scored once. The rows
of the baselines come from the very same runs; the bar is the bag of their tuned boosted trees, the
mean of the logits, since each run seeds its own. With --out-of-fold, every fifth of set a is also
asked of runs on the other four, one seed each. Set OMP_NUM_THREADS=1 to time one core.
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
from scipy.special import expit, logit
from sklearn.model_selection import StratifiedKFold

import clinode as cn
from clinode.evaluation import evaluate_classification
from clinode.training.histories import read_histories

OUTCOME = "in_hospital_death"
AUXILIARY = ("length_of_stay", "saps_i", "sofa", "died_within_90_days")
TREES, BAG = "gradient_boosting", "gradient_boosting, bagged"
N_FOLDS = 5
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


def fitted(name: str, task: cn.Classify, seed: int, train: cn.Cohort, out: Path) -> Any:
    """A run on all of `train`."""
    return cn.fit(
        cn.sequence.MODELS[name](),
        train,
        task=task,
        out=out,
        seed=seed,
        device="cpu",
        progress=False,
    )


def asked(run: Any, cohort: cn.Cohort) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Outcome, logit of the network and probabilities of the baselines of each record."""
    records = run.records(cohort, with_targets=True)
    told = run.baselines.predict(read_histories(cohort, records))
    return records.target[:, 0], run.logits(records), told


def compared(
    outcome: np.ndarray, shown: np.ndarray, baselines: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Metrics of a logit beside those of the baselines, with paired intervals over records."""
    held = evaluate_classification(
        outcome, expit(shown), baselines, subjects=np.arange(len(outcome))
    )
    return held.to_dict()


def measure(
    name: str, auxiliary: tuple[str, ...], seeds: list[int], parts: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Fit one configuration with every seed; what its runs and their baselines reach on set b."""
    task = cn.Classify(OUTCOME, auxiliary=auxiliary)
    outcome, logits, trees, told, seconds = np.empty(0), [], [], {}, []
    for seed in seeds:
        start = time.process_time()
        run = fitted(name, task, seed, parts["a"], folder / f"{name}-{len(auxiliary)}-{seed}")
        cpu = time.process_time() - start
        network, baselines = network_seconds(run)
        seconds.append({"network": network, "baselines": baselines, "cpu_of_fit": cpu})
        outcome, shown, told = asked(run, parts["b"])
        logits.append(shown)
        trees.append(logit(told[TREES]))
        print(f"{name} seed {seed}: {network:.0f} s", flush=True)
    bag = np.mean(trees, axis=0)
    bars = {**told, BAG: expit(bag)}
    together = np.mean(logits, axis=0)
    return {
        "name": name,
        "auxiliary": auxiliary,
        "seeds": seeds,
        "seconds": seconds,
        "evaluations": [compared(outcome, shown, bars) for shown in logits],
        "together": compared(outcome, together, bars),
        "stack": compared(outcome, (together + bag) / 2, bars),
    }


def out_of_fold(name: str, cohort: cn.Cohort, folder: Path) -> dict[str, Any]:
    """The network on each fifth of set a, fitted on the rest, and its mean logit with the trees."""
    task = cn.Classify(OUTCOME, auxiliary=AUXILIARY)
    label = cohort.outcomes[OUTCOME].to_numpy(dtype=np.int64)
    outcome, shown, bars = [], [], []
    splits = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(label, label)
    for fold, (rest, held) in enumerate(splits):
        run = fitted(name, task, fold, cohort[rest], folder / f"{name}-without-{fold}")
        known, own, told = asked(run, cohort[held])
        outcome.append(known)
        shown.append(own)
        bars.append(told)
    truth, network = np.concatenate(outcome), np.concatenate(shown)
    told = {key: np.concatenate([one[key] for one in bars]) for key in bars[0]}
    return {
        "name": name,
        "network": compared(truth, network, told),
        "stack": compared(truth, (network + logit(told[TREES])) / 2, told),
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
        lines.append(row(f"{label}, mean logit with {BAG}", [one["stack"]], None))
    first = found[0]
    for name in first["evaluations"][0]["baselines"]:
        held = [evaluation["baselines"][name] for evaluation in first["evaluations"]]
        lines.append(row(name, held[:1], None))
    lines += ["", "| model minus baseline | AUROC | AUPRC | Brier |", "|---|---|---|---|"]
    for one in found:
        for name, estimates in one["evaluations"][0]["difference"].items():
            if name != "prevalence":
                lines.append(
                    difference(f"{one['name']}, seed {one['seeds'][0]} - {name}", estimates)
                )
                together = one["together"]["difference"][name]
                lines.append(difference(f"{one['name']}, mean logit - {name}", together))
                stack = one["stack"]["difference"][name]
                lines.append(difference(f"{one['name']} with {BAG} - {name}", stack))
    return "\n".join(lines)


def out_of_fold_table(held: dict[str, Any]) -> str:
    """What is out of fold on set a as Markdown."""
    head = "| set a, out of fold | AUROC | AUPRC | Brier | ECE | slope | intercept | |"
    lines = [head, "|---" * 8 + "|"]
    lines.append(row(held["name"], [held["network"]], None))
    lines.append(row(f"{held['name']}, mean logit with {TREES}", [held["stack"]], None))
    lines.append(row(TREES, [held["network"]["baselines"][TREES]], None))
    lines += ["", "| out of fold, minus the trees | AUROC | AUPRC | Brier |", "|---|---|---|---|"]
    for label in ("network", "stack"):
        lines.append(difference(label, held[label]["difference"][TREES]))
    return "\n".join(lines)


def main() -> None:
    """Read, fit, score, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--models", nargs="+", default=["linear-latent-ode"])
    parser.add_argument("--without-auxiliary", action="store_true")
    parser.add_argument("--out-of-fold", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = arguments.data / "physionet2012"
    parts = {name: read_set(folder, name) for name in "ab"}
    found, folds = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.models:
            found.append(measure(name, AUXILIARY, arguments.seeds, parts, Path(scratch)))
            if arguments.without_auxiliary:
                found.append(measure(name, (), arguments.seeds, parts, Path(scratch)))
            if arguments.out_of_fold:
                folds.append(out_of_fold(name, parts["a"], Path(scratch)))
    print(f"\n{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, ")
    print(f"clinode {cn.__version__}, torch {torch.__version__}, sklearn {sklearn.__version__}\n")
    print(tables(found))
    for held in folds:
        print(f"\n{out_of_fold_table(held)}")
    if arguments.json:
        arguments.json.write_text(json.dumps([*found, *folds], indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
