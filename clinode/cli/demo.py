"""`clinode demo`: the whole way on simulated patients whose causes are known, and a brain."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinode.cli.answers import called
from clinode.cli.options import Answer, Call
from clinode.errors import Interrupted

if TYPE_CHECKING:
    from clinode.attribution import Attributions
    from clinode.cohort import Cohort

KIND = "demo"
N_REGIONS = 20


def demo(
    call: Call,
    answer: Answer,
    out: Annotated[
        Path, typer.Argument(metavar="[OUT]", help="Folder for the pages and the run.")
    ] = Path("clinode-demo"),
    subjects: Annotated[int, typer.Option(min=60, help="How many patients to simulate.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
) -> None:
    """Simulate patients, fit, evaluate, explain, report, and steer a brain: nothing is downloaded.

    An earlier demo in the same folder is written over; anything else is not.
    """
    from clinode.folder import write_folder

    found: dict[str, Any] = {}

    def write(folder: Path) -> None:
        import torch

        torch.set_num_threads(1)  # the model is small, and the answer the same on any machine
        try:
            found.update(_carry_out(folder, answer, subjects, seed, call.text))
        except Interrupted:  # what could be resumed goes with the unfinished folder
            raise KeyboardInterrupt from None

    start = time.monotonic()
    write_folder(out, write, kind=KIND, replace=True)
    found["seconds"] = round(time.monotonic() - start, 1)
    answer.tell({**found, "index": out / "index.html"}, _told(found, out))


def _carry_out(
    folder: Path, answer: Answer, n_subjects: int, seed: int, command: str | None
) -> dict[str, Any]:
    import clinode
    from clinode.folder import MANIFEST
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
    clinode.write_report(
        run,
        held_out,
        attributions,
        folder / "pages",
        evaluation=evaluation,
        whole=cohort,
        command=command,
    )
    for page in (folder / "pages").iterdir():
        if page.name != MANIFEST:  # the demo has its own
            page.rename(folder / page.name)
    shutil.rmtree(folder / "pages")
    return {
        "subjects": n_subjects,
        "held_out": len(held_out),
        "outcome": task.outcome,
        "evaluation": evaluation.to_dict(),
        "planted": _planted_truth(attributions, held_out),
        "withheld": int(attributions.gates["withheld"].to_numpy(dtype=bool).sum()),
        "pages": len(attributions.gates),
        "steering": _steered(folder / "brain", answer, seed, command),
    }


def _steered(folder: Path, answer: Answer, seed: int, command: str | None) -> dict[str, Any]:
    """A generated brain network, one of its regions aimed at, and the page of it."""
    import clinode

    answer.progress("steering a generated brain network")
    connectome = clinode.simulate_connectome(N_REGIONS, seed)
    brain = clinode.brain.WilsonCowanNetwork(connectome, K=2.0)
    rest = clinode.find_equilibria(brain)[0]
    aim = connectome.labels[1]
    place = brain.state_names.index(f"E:{aim}")
    found = clinode.steer(
        brain,
        {f"E:{aim}": float(rest.state[place]) + 0.05},
        rest,
        horizon=40.0,
        limits=clinode.StimulusLimits(amplitude=2.0),
        n_nulls=39,
        seed=seed,
    )
    clinode.write_brain_report(found, folder, command=command)
    return {
        "regions": N_REGIONS,
        "target": found.target,
        "cheapest": list(found.ranking.candidates[0]),
        "is_reached": found.stimulus.is_reached,
        "verdict": found.stimulus.verdict,
    }


def _planted_truth(attributions: "Attributions", cohort: "Cohort") -> dict[str, Any]:
    """How well the causes that were planted are found, as events and as variables.

    Returns:
        Average precision of |attribution| over measured events, chance beside it, and the rank of
        each planted variable among all measured ones.
    """
    from clinode.attribution import planted_recovery

    planted = cohort.planted
    assert planted is not None  # a simulated cohort says what causes its outcome
    table = attributions.by_variable(n_resamples=2)
    ranked = table.loc[table["kind"] == "observation", "variable"].tolist()
    kinds = sorted(set(planted["kind"]))
    return {
        **planted_recovery(attributions, planted, kinds=kinds).to_dict(),
        "rank": {name: ranked.index(name) + 1 for name in sorted(set(planted["variable"]))},
        "n_variables": len(ranked),
    }


def _told(found: dict[str, Any], out: Path) -> list[str]:
    from clinode.cli.answers import interval

    evaluation, planted = found["evaluation"], found["planted"]
    baselines = ", ".join(
        f"{name} {held['auroc']['value']:.3f}"
        for name, held in evaluation["baselines"].items()
        if held["auroc"]["value"] is not None
    )
    ranks = ", ".join(f"{name} ranks {rank}" for name, rank in planted["rank"].items())
    return [
        f"Simulated {found['subjects']:,} patients, fitted a model, and explained "
        f"{found['held_out']:,} that it had not seen, in {found['seconds']:.0f} s.",
        f"AUROC on those {found['held_out']:,}: {interval(evaluation['auroc'])}; {baselines}.",
        f"Planted causes: {ranks} of {planted['n_variables']} variables; AUPRC over measured "
        f"events {interval(planted['auprc'], 2)}, chance {planted['chance']:.2f}.",
        f"Open {called(out)}/index.html in a browser; it links {found['pages']} patient pages.",
        f"A generated brain of {found['steering']['regions']} regions was steered too: "
        f"{called(out)}/brain/index.html.",
        "Next, with data of your own: clinode check DATA",
    ]
