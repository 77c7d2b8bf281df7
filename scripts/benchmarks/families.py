"""Every family of models on one simulated cohort: risk, next observation, seconds, flow.

    python scripts/benchmarks/families.py [--subjects 2000] [--seeds 0 1 2] [--models NAME ...]

Each family is fitted with its defaults on `simulate_cohort`, without a tuning part, so nothing is
selected, and scored once on other subjects. The outcome is drawn from a planted logit, whose own
AUROC is the best there is. "Flow" is by how much the state at the prediction time moves when ten
empty rows are put into the record, relative to the root mean square of the states and in float64:
the violation of F(s + t, z) = F(s, F(t, z)) along real records. A family without a flow passes as
well, for it leaves its state alone at an empty row, and is marked. Set OMP_NUM_THREADS=1 to time
one core.
"""

import argparse
import copy
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

import clinode as cn
from clinode.cohort import PackedRecords
from clinode.physiology import planted_logit
from clinode.sequence import MODELS

N_EMPTY = 10  # rows put into each record
OUTCOME = "in_hospital_death"
HOURS = 20.0  # no prediction time of the simulated cohort is earlier


def with_more_rows(cohort: cn.Cohort) -> tuple[cn.Cohort, np.ndarray]:
    """The cohort with a further observation at some hours of each subject, and these hours."""
    hours = np.random.default_rng(0).uniform(0, HOURS, N_EMPTY)
    subjects = np.asarray(cohort.subjects)
    more = pd.DataFrame(
        {
            "subject_id": np.repeat(subjects, N_EMPTY),
            "time": np.tile(hours, len(subjects)),
            "variable": "HR",
            "value": 80.0,
        }
    )
    observations = pd.concat([cohort.observations, more], ignore_index=True)
    tables = (observations, cohort.statics, cohort.inputs, cohort.outcomes)
    return cn.Cohort.from_tables(*tables, schema=cohort.schema), hours


def flow_violation(run: Any, cohort: cn.Cohort) -> float:
    """Relative largest move of the state at the prediction time through empty rows."""
    model = copy.deepcopy(run.model).double()
    more, hours = with_more_rows(cohort)
    states = []
    for part in (cohort, more):
        records = PackedRecords.build(part, model.schema, run.task)
        batch = records.batch(range(len(records)), torch.float64)
        is_extra = torch.isin(batch.time, torch.from_numpy(hours))
        batch = batch.without(is_extra.unsqueeze(1).expand_as(batch.mask))
        with torch.no_grad():
            latent = model.latent(batch, batch.prediction_time.unsqueeze(1)).squeeze(1)
        states.append(latent[torch.argsort(batch.subject)])
    plain, split = states
    return float((split - plain).abs().max() / plain.square().mean().sqrt())


def measure(name: str, seed: int, parts: dict[str, cn.Cohort], folder: Path) -> dict[str, Any]:
    """One run, scored on the subjects that it has not seen."""
    run = cn.fit(
        MODELS[name](),
        parts["train"],
        task=cn.Classify(OUTCOME),
        out=folder / f"{name}-{seed}",
        seed=seed,
        device="cpu",
        progress=False,
    )
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines if line["event"] == "epoch"]
    found = cn.evaluate(run, parts["test"], n_resamples=200).to_dict()
    few = parts["test"].select(list(parts["test"].subjects[:100]))
    result = {
        "name": name,
        "seed": seed,
        "auroc": found["auroc"]["value"],
        "brier": found["brier"]["value"],
        "next": found["next_observation"]["model"]["value"],
        "carried": found["next_observation"]["carried_forward"]["value"],
        "seconds": seconds[-1] / len(seconds),
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "flow": flow_violation(run, few),
        "baselines": {k: v["auroc"]["value"] for k, v in found["baselines"].items()},
    }
    print({key: value for key, value in result.items() if key != "baselines"}, flush=True)
    return result


def table(found: list[dict[str, Any]], best: float) -> str:
    """All results as Markdown: means over seeds, with the standard deviation of the first two."""
    head = "| family | AUROC | Brier | next observation | seconds an epoch | parameters | flow |"
    lines = [head, "|---" * 7 + "|"]
    for name in dict.fromkeys(one["name"] for one in found):
        own = [one for one in found if one["name"] == name]
        auroc, brier, following = (
            np.array([one[key] for one in own]) for key in ("auroc", "brier", "next")
        )
        spread = f" ± {auroc.std(ddof=1):.4f}" if len(own) > 1 else ""
        seconds = np.mean([one["seconds"] for one in own])
        flow = f"{max(one['flow'] for one in own):.0e}"
        flow += " (no flow)" if MODELS[name].flow_error is None else ""
        lines.append(
            f"| {name} | {auroc.mean():.4f}{spread} | {brier.mean():.4f} | {following.mean():.3f} "
            f"| {seconds:.2f} | {own[0]['parameters']:,} | {flow} |"
        )
    lines.append(f"| last value carried forward | | | {found[0]['carried']:.3f} | | | |")
    for name in found[0]["baselines"]:
        value = np.mean([one["baselines"][name] for one in found])
        lines.append(f"| {name} | {value:.4f} | | | | | |")
    lines.append(f"| the planted logit | {best:.4f} | | | | | |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, fit, score, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--subjects", type=int, default=2000, help="to train on")
    parser.add_argument("--test-subjects", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    parts = {
        "train": cn.simulate_cohort(arguments.subjects, seed=11),
        "test": cn.simulate_cohort(arguments.test_subjects, seed=12),
    }
    died = parts["test"].outcomes[OUTCOME].to_numpy()
    with tempfile.TemporaryDirectory() as scratch:
        found = [
            measure(name, seed, parts, Path(scratch))
            for name in arguments.models
            for seed in arguments.seeds
        ]
    print(f"\n{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, ")
    print(f"clinode {cn.__version__}, torch {torch.__version__}\n")
    print(table(found, float(roc_auc_score(died, planted_logit(parts["test"])))))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
