"""How near the split into values, ordering and timing comes to what was planted.

    python scripts/benchmarks/kinds.py [--subjects 1000] [--train 6000] [--draws 8] [--seed 0]

The simulated cohort's outcome depends on values (lactate, pressure), on how many lactates were
ordered, and on how long ago the last pressure was taken, by a published formula. A default model is
fitted on other subjects and its log odds are split; beside it stands the same split of the formula
itself, and the planted weights against the same references: values that do not count, as many
lactates as others, no long gap.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import clinode as cn
from clinode.attribution import explain_kinds
from clinode.attribution.kinds import PLAYERS

PLANTED = ("value", "ordering", "timing")


def main() -> None:
    """Fit, split, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--subjects", type=int, default=1000)
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="linear-latent-ode")
    given = parser.parse_args()
    cohort = cn.simulate_cohort(given.train + given.subjects, given.seed)
    train = cohort.take(range(given.train))
    others = cohort.take(range(given.train, len(cohort)))
    task = cn.Classify("in_hospital_death")
    with tempfile.TemporaryDirectory() as scratch:
        model = cn.sequence.MODELS[given.model]()
        run = cn.fit(model, train, task=task, out=Path(scratch) / "run", seed=0, progress=False)
        print("fitted", file=sys.stderr)
        start = time.perf_counter()
        told = explain_kinds(run, others, reference=train, n_draws=given.draws)
        seconds = time.perf_counter() - start
        auroc = cn.evaluate(run, others).to_dict()["auroc"]["value"]
    table, planted = told.to_pandas(), others.planted
    assert planted is not None
    weights = planted.pivot_table(
        index="subject_id", columns="kind", values="weight", aggfunc="sum", observed=False
    )
    weights = weights.reindex(others.subjects).fillna(0.0)[list(PLANTED)].to_numpy(copy=True)
    weights[:, 1] -= weights[:, 1].mean()
    true = np.abs(weights).sum(axis=0)
    found = np.abs(table[list(PLAYERS)].to_numpy()).sum(axis=0)
    result = {
        "model": given.model,
        "auroc": auroc,
        "seconds": seconds,
        "planted_share": dict(zip(PLAYERS, true / true.sum(), strict=True)),
        "share": dict(zip(PLAYERS, found / found.sum(), strict=True)),
        "largest_difference": float(np.abs(found / found.sum() - true / true.sum()).max()),
        "correlation": {
            name: float(np.corrcoef(table[name], weights[:, k])[0, 1])
            for k, name in enumerate(PLAYERS)
        },
        "mean_error_of_draws": {name: float(table[f"{name}_error"].mean()) for name in PLAYERS},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
