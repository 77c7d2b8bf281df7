"""Time to death or transplantation on pbc2, from what was seen by a landmark.

    python scripts/benchmarks/survival.py --data DIR [--seeds 3] [--model NAME] [--epochs 30]

`DIR` holds pbc2 (312 patients, 1,945 visits; 140 died, 29 were transplanted). Landmarks are at 0, 1
and 3 years. The patients are split by hash, half to train and half to test; nothing is selected.
One run a seed, beside everybody's incidence and a pooled logistic hazard on last values, which come
from the same runs, and their mean as an ensemble. All of the test half, 95 % intervals over
patients.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import clinode as cn
from clinode.cohort import Survive
from clinode.sequence import MODELS
from clinode.training.survival import SurvivalWork

HOURS = 8766.0  # a year
LANDMARKS = (0.0, HOURS, 3 * HOURS)
VALUES = ["serBilir", "serChol", "albumin", "alkaline", "SGOT", "platelets", "prothrombin"]
SIGNS = {
    "ascites": {"No": 0, "Yes": 1},
    "hepatomegaly": {"No": 0, "Yes": 1},
    "spiders": {"No": 0, "Yes": 1},
    "edema": {"No edema": 0, "edema no diuretics": 1, "edema despite diuretics": 2},
    "histologic": {stage: stage for stage in (1, 2, 3, 4)},
}
SHOWN = ("auc", "integrated_brier", "concordance", "concordance_ipcw", "observed_minus_expected")


def read_pbc2(folder: Path) -> cn.Cohort:
    """The visits as observations in hours, death as cause 1 and transplantation as cause 2."""
    visits = pd.read_csv(folder / "pbc2.csv")
    for name, words in SIGNS.items():
        visits[name] = visits[name].map(words)
    long = visits.melt(["id", "year"], [*VALUES, *SIGNS], "variable", "value").dropna()
    observations = pd.DataFrame(
        {
            "subject_id": long["id"],
            "time": long["year"] * HOURS,
            "variable": long["variable"],
            "value": long["value"].astype(float),
        }
    )
    patients = visits.groupby("id", as_index=False).first()
    statics = pd.DataFrame(
        {
            "subject_id": patients["id"],
            "entry_age": patients["age"],
            "female": (patients["sex"] == "female").astype(float),
            "treated": (patients["drug"] == "D-penicil").astype(float),
        }
    )
    outcomes = pd.DataFrame(
        {
            "subject_id": patients["id"],
            "end": patients["years"] * HOURS,
            "status": patients["status"].map({"alive": 0, "dead": 1, "transplanted": 2}),
        }
    )
    return cn.Cohort.from_tables(observations, statics, outcomes=outcomes)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="linear-latent-ode", choices=sorted(MODELS))
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    cohort = read_pbc2(arguments.data / "pbc2")
    train, test = cn.split(cohort, fractions=(0.5, 0.5, 0.0))[:2]
    task = Survive("end", "status", "status", landmark=LANDMARKS)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            runs.append(
                cn.fit(
                    MODELS[arguments.model](),
                    train,
                    None,
                    task=task,
                    out=Path(folder) / str(seed),
                    seed=seed,
                    config=cn.FitConfig(epochs=arguments.epochs),
                    progress=False,
                )
            )
        found = [cn.evaluate(run, test).to_dict() for run in runs]
        records = runs[0].records(test, with_targets=True)
        units = np.asarray(test.groups)[records.subject_index]
        options = {"n_resamples": 1000, "seed": 0}
        together, _ = SurvivalWork().evaluate(runs, test, records, units, options)
    print(
        f"pbc2: {len(train)} patients train, {len(test)} test; {found[0]['n_records']} records at "
        f"{len(LANDMARKS)} landmarks, {found[0]['n_events']} deaths and "
        f"{found[0]['causes']['2']['n_events']} transplantations among them; "
        f"horizon {found[0]['horizon'] / HOURS:.1f} years"
    )
    for cause, word in enumerate(("death", "transplantation"), start=1):
        held = [one if cause == 1 else one["causes"][str(cause)] for one in found]
        print(f"\n{word:24s}" + "".join(f"{name:>26s}" for name in SHOWN))
        for seed, one in enumerate(held):
            print(f"{f'seed {seed}':24s}" + "".join(_cell(one[name]) for name in SHOWN))
        own = together.causes[cause - 1].to_dict()
        print(f"{'ensemble':24s}" + "".join(_cell(own[name]) for name in SHOWN))
        for name, one in own["baselines"].items():
            print(f"{name:24s}" + "".join(_cell(one[metric]) for metric in SHOWN))
        for name, one in own["difference"].items():
            print(f"{f'ensemble - {name}'[:24]:24s}" + "".join(_cell(one[m]) for m in SHOWN))


def _cell(estimate: dict) -> str:
    value, low, high = (estimate[part] for part in ("value", "low", "high"))
    if value is None or low is None:
        return f"{estimate['verdict'][:24]:>26s}"
    return f"{value:9.4f} ({low:.3f}, {high:.3f})".rjust(26)


if __name__ == "__main__":
    main()
