"""How fast, how complete and how right attributions are.

    python scripts/benchmarks/attribution.py [--subjects 1000] [--data DIR] [--json]

Fits the default model on simulated patients, explains others, and compares the maps with the causes
that were planted. With `--data` (a folder that holds physionet2012/) it also explains real records
of set b by a model fitted on set a. Captum's 50 fixed steps stand beside the default.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import clinode as cn
from clinode.attribution import planted_recovery


def explained(run: Any, cohort: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Attributions, with seconds, evaluations a subject, gaps and what is withheld."""
    print(f"explaining {len(cohort):,} subjects {options or ''}", file=sys.stderr)
    start, cpu_start = time.perf_counter(), time.process_time()
    found = cn.explain(run, cohort, **options)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    gates = found.gates
    shown = gates[~gates["withheld"]]
    return found, {
        "subjects": len(gates),
        "events": len(found.to_pandas()),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "rows_per_subject": {
            "mean": float(gates["rows_used"].mean()),
            "median": float(gates["rows_used"].median()),
            "max": int(gates["rows_used"].max()),
        },
        "gap": {
            "median": float(gates["gap"].median()),
            "99 %": float(gates["gap"].quantile(0.99)),
            "largest shown": float(shown["gap"].max()),
            "largest": float(gates["gap"].max()),
        },
        "withheld": float(gates["withheld"].mean()),
    }


def simulated(n_subjects: int, n_train: int, seed: int, folder: Path) -> dict[str, Any]:
    """Planted causes: subjects of one simulation, the first to fit, the others to explain."""
    cohort = cn.simulate_cohort(n_train + n_subjects, seed)
    train, others = cohort.take(range(n_train)), cohort.take(range(n_train, len(cohort)))
    task = cn.Classify("in_hospital_death")
    run = cn.fit(
        cn.sequence.LinearLatentODE(), train, task=task, out=folder / "simulated", progress=False
    )
    attributions, default = explained(run, others)
    ranking = attributions.by_variable()
    planted = others.planted
    assert planted is not None  # a simulated cohort says what causes its outcome
    return {
        "auroc": cn.evaluate(run, others).to_dict()["auroc"],
        "integrated_gradients": default,
        "captum_integrated_gradients": explained(run, others, method="captum_integrated_gradients")[
            1
        ],
        "planted values": planted_recovery(attributions, planted).to_dict(),
        "planted, any kind": planted_recovery(
            attributions, planted, ("value", "ordering", "timing")
        ).to_dict(),
        "ranking": [
            {key: row[key] for key in ("variable", "kind", "per_subject", "per_measurement")}
            for row in ranking.head(8).to_dict("records")
        ],
    }


def physionet(data: Path, n_subjects: int, folder: Path) -> dict[str, Any]:
    """Records of set b, explained by a model of set a."""
    folder_of_data = data / "physionet2012"
    parts = [
        cn.read_cohort(
            folder_of_data / f"set-{part}.parquet",
            subject="record_id",
            time="time_hours",
            variable="parameter",
            statics=folder_of_data / f"statics-{part}.csv",
            outcomes=folder_of_data / f"outcomes-{part}.csv",
        )
        for part in "ab"
    ]
    task = cn.Classify("in_hospital_death", at=48.0)
    run = cn.fit(
        cn.sequence.LinearLatentODE(), parts[0], task=task, out=folder / "p12", progress=False
    )
    some = parts[1].take(np.linspace(0, len(parts[1]) - 1, n_subjects).astype(int))
    return {
        "integrated_gradients": explained(run, some)[1],
        "captum_integrated_gradients": explained(run, some, method="captum_integrated_gradients")[
            1
        ],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Speed and quality of attributions.")
    parser.add_argument("--subjects", type=int, default=1000, help="simulated patients explained")
    parser.add_argument("--train", type=int, default=2000, help="simulated patients fitted on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder that holds physionet2012/")
    parser.add_argument("--records", type=int, default=200, help="real records explained")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "threads": options.threads,
            "simulated": simulated(options.subjects, options.train, options.seed, Path(folder)),
        }
        if options.data is not None:
            found["physionet2012"] = physionet(options.data, options.records, Path(folder))
    print(json.dumps(found, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
