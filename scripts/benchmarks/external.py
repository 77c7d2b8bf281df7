"""External validation: mortality in the unit, trained on the eICU demo and tested on MIMIC demos.

    python scripts/benchmarks/external.py --data DIR [--model NAME] [--folds 5] [--seed 0]

`DIR` holds yaib_demo (both sites in one vocabulary, the first 24 h) and mimic4demo_meds (read from
MEDS, its names and units put into that vocabulary by `in_common_vocabulary`, its first 24 h, death
in the hospital in place of the unit). Internal: each fold of eICU asked of a model that was fitted
on the others. External: one model fitted on all of eICU. Baselines come from the same runs. The
MIMIC demos hold about a hundred stays each: their intervals are wide, and nothing is ranked by
them.
"""

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

import clinode as cn
from clinode.cohort.vocabulary import in_common_vocabulary
from clinode.evaluation import compare_fingerprint, evaluate_classification
from clinode.training.histories import read_histories

OUTCOME = "death"
HOURS = 24.0
SHOWN = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept")
STATICS = ["subject_id", "age", "sex", "height", "weight"]  # what every site has


def yaib(folder: Path) -> cn.Cohort:
    """One site of yaib_demo/mortality24; the outcome is death in the unit after 24 h."""
    outcomes = pd.read_parquet(folder / "outc.parquet")
    outcomes = outcomes.rename(columns={"label": OUTCOME})
    return cn.read_cohort(
        folder / "dyn.parquet",
        format="wide",
        subject="stay_id",
        time="time_hours",
        statics=folder / "sta.parquet",
        outcomes=outcomes,
    )


def mimic4(folder: Path, like: cn.Cohort) -> cn.Cohort:
    """Stays of MIMIC-IV that last 24 h, in the vocabulary of another cohort."""
    read = cn.read_cohort(folder)
    known = tuple(variable.name for variable in like.schema.variables)
    cohort = in_common_vocabulary(read, only=known)
    last = read.observations.groupby("subject_id")["time"].max()
    stays = [s for s in read.subjects.tolist() if last.get(s, 0.0) >= HOURS]
    outcomes = cohort.outcomes.dropna().rename(columns={"in_hospital_death": OUTCOME})
    statics, held = cohort.statics, cohort.observations
    return cn.Cohort.from_tables(
        held[held["subject_id"].isin(stays) & (held["time"] <= HOURS)],
        statics[statics["subject_id"].isin(stays)][[c for c in STATICS if c in statics]],
        outcomes=outcomes[outcomes["subject_id"].isin(stays)],
        schema=cn.CohortSchema(variables=cohort.schema.variables),
    )


Asked = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], np.ndarray]


def asked(run: Any, cohort: cn.Cohort) -> Asked:
    """Outcome, probability of the model, those of the baselines, and the person, of each stay."""
    records = run.records(cohort, with_targets=True)
    told = run.predict(cohort)
    persons = np.array([str(stay).split("-")[0] for stay in told["subject_id"]])  # of MEDS: p-n
    baselines = run.baselines.predict(read_histories(cohort, records))
    return records.target[:, 0], told["probability"].to_numpy(), baselines, persons


def cross_validated(cohort: cn.Cohort, name: str, folds: int, seed: int, folder: Path) -> Asked:
    """Each fold asked of a run on the others."""
    known = cohort.outcomes.set_index("subject_id")[OUTCOME].reindex(cohort.subjects).to_numpy()
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    found = []
    groups = pd.factorize(cohort.groups)[0]
    for fold, (rest, own) in enumerate(parts.split(np.zeros(len(known)), known, groups)):
        run = fitted(cohort[rest], name, seed, folder / f"fold-{fold}")
        found.append(asked(run, cohort[own]))
        print(f"fold {fold + 1} of {folds} done", flush=True)
    outcome, told, persons = (np.concatenate([one[k] for one in found]) for k in (0, 1, 3))
    baselines = {key: np.concatenate([one[2][key] for one in found]) for key in found[0][2]}
    return outcome, told, baselines, persons


def fitted(train: cn.Cohort, name: str, seed: int, out: Path) -> Any:
    """A run on all of a cohort, nothing selected."""
    task = cn.Classify(OUTCOME, at=HOURS)
    model = cn.sequence.MODELS[name]()
    return cn.fit(model, train, task=task, out=out, seed=seed, device="cpu", progress=False)


def show(title: str, found: Asked) -> None:
    """Print every forecaster's metrics with 95 % intervals over persons."""
    *forecasts, persons = found
    held = evaluate_classification(*forecasts, subjects=pd.factorize(persons)[0]).to_dict()
    print(f"\n{title}: {held['n_records']:,} stays, {held['n_positive']} died")
    rows = {"model": held, **held["baselines"]}
    rows |= {f"model - {name}": one for name, one in held["difference"].items()}
    for name, one in rows.items():
        cells = [
            f"{m} {one[m]['value']:.3f} [{one[m]['low']:.3f}, {one[m]['high']:.3f}]"
            for m in SHOWN
            if m in one and one[m]["value"] is not None and one[m]["low"] is not None
        ]
        print(f"  {name:36s}{'  '.join(cells)}")


def show_drift(title: str, training: dict[str, Any], cohort: cn.Cohort) -> None:
    """Print the verdict and the largest shifts against the training part."""
    drift = compare_fingerprint(training, cohort)
    table = drift.to_pandas()
    counts = table["verdict"].str.split(":").str[0].value_counts().to_dict()
    print(f"\nDrift of {title} from the training part: {drift.verdict}")
    print("  " + ", ".join(f"{verdict}: {count}" for verdict, count in counts.items()))
    large = table[table["verdict"] == "large shift"].head(8)
    print(large[["kind", "name", "expected", "found", "measure", "chance"]].to_string(index=False))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="External validation on the open demos.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="linear-latent-ode")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("default")
    sites = given.data / "yaib_demo" / "mortality24"
    train, test = yaib(sites / "eicu_demo"), yaib(sites / "mimic_demo")
    other = mimic4(given.data / "mimic4demo_meds", train)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inside = cross_validated(train, given.model, given.folds, given.seed, folder)
        run = fitted(train, given.model, given.seed, folder / "all")
        show("internal, eICU demo, out of fold", inside)
        show("external, MIMIC-III demo, death in the unit", asked(run, test))
        show("external, MIMIC-IV demo from MEDS, death in the hospital", asked(run, other))
    training = train.fingerprint()
    show_drift("the MIMIC-III demo", training, test)
    show_drift("the MIMIC-IV demo", training, other)


if __name__ == "__main__":
    main()
