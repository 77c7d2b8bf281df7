"""`clinode demo`: the whole way on simulated patients whose causes are known."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinode.cli.options import Answer
from clinode.errors import Interrupted

if TYPE_CHECKING:
    from clinode.attribution import Attributions
    from clinode.cohort import Cohort

KIND = "demo"


def demo(
    answer: Answer,
    out: Annotated[
        Path, typer.Argument(metavar="[OUT]", help="Folder for the pages and the run.")
    ] = Path("clinode-demo"),
    subjects: Annotated[int, typer.Option(min=60, help="How many patients to simulate.")] = 600,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
) -> None:
    """Simulate patients, fit, evaluate, explain and report: nothing is downloaded.

    An earlier demo in the same folder is written over; anything else is not.
    """
    from clinode.folder import write_folder

    found: dict[str, Any] = {}

    def write(folder: Path) -> None:
        try:
            found.update(_carry_out(folder, answer, subjects, seed))
        except Interrupted:  # what could be resumed goes with the unfinished folder
            raise KeyboardInterrupt from None

    start = time.monotonic()
    write_folder(out, write, kind=KIND, replace=True)
    found["seconds"] = round(time.monotonic() - start, 1)
    answer.tell({**found, "index": out / "index.html"}, _five_lines(found, out))


def _carry_out(folder: Path, answer: Answer, n_subjects: int, seed: int) -> dict[str, Any]:
    import clinode
    from clinode.sequence import LinearLatentODE

    answer.progress(f"simulating {n_subjects:,} patients")
    cohort = clinode.simulate_cohort(n_subjects, seed)
    train, tune, held_out = clinode.split(cohort)
    task = clinode.Classify(cohort.schema.outcomes[-1])
    answer.progress(f"fitting on {len(train):,} of them, choosing by {len(tune):,}")
    run = clinode.fit(
        LinearLatentODE(),
        train,
        tune,
        task=task,
        out=folder / "run",
        seed=seed,
        progress=not answer.json,
    )
    answer.progress(f"evaluating on {len(held_out):,} others")
    evaluation = clinode.evaluate(run, held_out)
    answer.progress("explaining them, and writing the pages")
    attributions = clinode.explain(run, held_out)
    clinode.write_report(run, held_out, attributions, folder / "pages", evaluation=evaluation)
    for page in (folder / "pages").glob("*.html"):
        page.rename(folder / page.name)
    shutil.rmtree(folder / "pages")
    return {
        "subjects": n_subjects,
        "held_out": len(held_out),
        "outcome": task.outcome,
        "evaluation": evaluation.to_dict(),
        "planted": _planted_agreement(attributions, held_out),
        "withheld": int(attributions.gates["withheld"].to_numpy(dtype=bool).sum()),
        "pages": len(attributions.gates),
    }


def _planted_agreement(attributions: "Attributions", cohort: "Cohort") -> dict[str, float]:
    """How well |attribution| finds the measurements that were made to cause the outcome.

    Returns:
        auprc over measured events, beside chance: the share of them that are planted.
    """
    import numpy as np
    from sklearn.metrics import average_precision_score

    events = attributions.to_pandas().query("kind == 'observation'")
    keys = ["subject_id", "time", "variable"]
    planted = cohort.planted
    assert planted is not None  # a simulated cohort says what causes its outcome
    caused = planted.loc[planted["weight"] != 0, keys].drop_duplicates()
    marked = events[keys].merge(caused, on=keys, how="left", indicator=True)
    is_planted = np.asarray(marked["_merge"] == "both")
    score = average_precision_score(is_planted, events["attribution"].abs())
    return {"auprc": float(score), "chance": float(is_planted.mean())}


def _five_lines(found: dict[str, Any], out: Path) -> list[str]:
    from clinode.cli.answers import interval

    evaluation, planted = found["evaluation"], found["planted"]
    baselines = ", ".join(
        f"{name} {held['auroc']['value']:.3f}"
        for name, held in evaluation["baselines"].items()
        if held["auroc"]["value"] is not None
    )
    return [
        f"Simulated {found['subjects']:,} patients, fitted a model, explained "
        f"{found['held_out']:,} others, in {found['seconds']:.0f} s.",
        f"AUROC on those others {interval(evaluation['auroc'])}; {baselines}.",
        f"Planted causes found with AUPRC {planted['auprc']:.2f} over measured events (chance "
        f"{planted['chance']:.2f}); {found['withheld']} maps withheld.",
        f"Open {out / 'index.html'} in a browser; it links {found['pages']} patient pages.",
        "Next, with data of your own: clinode check DATA",
    ]
