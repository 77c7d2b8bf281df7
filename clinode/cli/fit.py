"""`clinode fit`, `evaluate` and `predict`: from a cohort to a run, and from it to its answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from clinode.cli.answers import called
from clinode.cli.check import flow_lines
from clinode.cli.options import Answer, Data
from clinode.errors import ArgumentError, SchemaError

if TYPE_CHECKING:
    from clinode.cohort import Cohort, Task
    from clinode.evaluation import Recalibration
    from clinode.training import Run
    from clinode.training.trackers import MLflow, TensorBoard

DEFAULT_MODEL = "linear-latent-ode"
SECTIONS = ("model", "task", "fit", "seed")
OF_A_RUN = ("format", "clinode", "data", "environment")  # in its config.yaml beside the sections
FIRST = ("auroc", "auprc", "brier", "ece", "calibration_slope", "calibration_intercept")
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `fit` wrote.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Part = Annotated[
    str,
    typer.Option(
        help="Subjects to take: held-out (no part in the fit), train, tune, calibrate or all."
    ),
]


def fit(
    data: Data,
    answer: Answer,
    out: Annotated[Path, typer.Option(help="Folder of the run; must not exist, or be resumed.")],
    outcome: Annotated[
        list[str] | None, typer.Option(help="Outcome column to predict; may be repeated.")
    ] = None,
    horizon: Annotated[
        float | None, typer.Option(help="Forecast every variable so many hours ahead.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Outcome column with the hour at which follow-up ended.")
    ] = None,
    event: Annotated[
        str | None, typer.Option(help="With --end: 1 where an event ended it, 0 where censored.")
    ] = None,
    cause: Annotated[
        str | None, typer.Option(help="With --end: cause of the event, 1, 2, ...")
    ] = None,
    entry: Annotated[
        str | None, typer.Option(help="With --end: hour from which a subject was watched.")
    ] = None,
    landmark: Annotated[
        list[float] | None,
        typer.Option(help="With --end: prediction time in hours; may be repeated."),
    ] = None,
    at: Annotated[
        float | None, typer.Option(help="Prediction time in hours, where outcomes name none.")
    ] = None,
    auxiliary: Annotated[
        list[str] | None, typer.Option(help="Outcome trained beside it, never read to predict.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model of `clinode list`.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML with model, task, fit, seed; as in a run.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, such as fit.epochs=5.")
    ] = None,
    fractions: Annotated[
        str, typer.Option(help="Shares that train, tune and are held out.")
    ] = "0.7,0.15,0.15",
    salt: Annotated[str, typer.Option(help="Another one splits the subjects otherwise.")] = "2026",
    published: Annotated[
        bool, typer.Option("--published", help="Keep the splits that the data came with.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Of every draw.")] = None,
    device: Device = "auto",
    start_from: Annotated[
        Path | None, typer.Option(help="Run whose weights it starts from, but for the head's.")
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(help="tensorboard or mlflow: files beside the run to watch the fit by."),
    ] = None,
) -> None:
    """Train a model on a cohort and store the run, with trivial baselines beside it.

    Stopped by Ctrl-C or a kill, the same command goes on where it was.
    """
    import clinode

    trackers = _trackers(track or [], out)
    settings = _settings(config, changes or [])
    chosen = _model(settings.get("model", {}), model)
    followed = _followed(end, event, cause, entry, landmark)
    said = (settings.get("task"), outcome, horizon, followed, at, auxiliary)
    if data.task_file is not None and any(value not in (None, []) for value in said):
        raise ArgumentError(
            "--task-file says what is predicted, and so does another option or the config",
            fix="give one of them",
        )
    defined = data.defined()
    if defined is None:
        task = _task(settings.get("task"), outcome, horizon, followed, at, auxiliary or [])
    else:
        task = defined.task
    schedule = _schedule(settings.get("fit"), task)
    cohort = data.read() if defined is None else defined.cohort
    for line in [] if defined is None else flow_lines(defined):
        answer.progress(line)
    train, tune = _parts(cohort, None if published else _fractions(fractions), salt)
    n_tune = 0 if tune is None else len(tune)
    answer.progress(
        f"{len(cohort):,} subjects: {len(train):,} train, {n_tune:,} tune, "
        f"{len(cohort) - len(train) - n_tune:,} are held out"
    )
    for tracker in trackers:
        answer.progress(f"watch it with: {tracker.shown_by}")
    run = clinode.fit(
        chosen,
        train,
        tune,
        task=task,
        out=out,
        seed=int(settings.get("seed", 0)) if seed is None else seed,
        device=device,
        config=schedule,
        start_from=start_from,
        progress=not answer.json,
        trackers=trackers,
    )
    result = {"run": out, "task": run.task.to_dict(), "seed": run.seed, "metrics": run.metrics}
    if defined is not None:
        result["flow"] = defined.flow.to_dict()
    part = "the tuning part" if tune is not None else "the training part itself"
    lines = [f"Wrote the run to {called(out)}. On {part}:"]
    lines += _table_of(dict(run.metrics["evaluation"]))
    lines += ["", f"Next: clinode evaluate {called(out)} {called(data.data)}"]
    answer.tell(result, lines)


def evaluate(
    run: RunFolder,
    data: Data,
    answer: Answer,
    part: Part = "held-out",
    out: Annotated[Path | None, typer.Option(help="JSON file for everything found.")] = None,
    recalibrate: Annotated[
        Path | None,
        typer.Option(help="Folder for a copy of the run whose risk is recalibrated on these data."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="With --recalibrate: auto, temperature, platt or isotonic.")
    ] = "auto",
    device: Device = "auto",
) -> None:
    """Say how good a run is on a cohort, beside the baselines, with 95 % intervals.

    Also how far the cohort has moved from the training part, and whether intervals or risk were
    calibrated. `--recalibrate` writes a run of its own, with the evidence for it.
    """
    import clinode
    from clinode.cli.verdicts import calibration_lines, drift_lines, evidence_lines
    from clinode.folder import check_place, check_writable, write_json
    from clinode.training.recalibrate import recalibrate as write_recalibrated

    if out is not None:
        check_place(out)
    if recalibrate is not None:
        check_writable(recalibrate)
    elif method != "auto":
        raise ArgumentError("--method says how to recalibrate", fix="give --recalibrate FOLDER")
    fitted = clinode.load_run(run, device=device)
    cohort = take_part(fitted, data.read(), part)
    answer.progress(f"evaluating {len(cohort):,} subjects ({part})")
    evaluation = clinode.evaluate(fitted, cohort)
    found = {**evaluation.to_dict(), "part": part, "n_read": len(cohort)}
    lines = [f"{len(cohort):,} subjects ({part})", *_table_of(found), ""]
    lines += [*calibration_lines(fitted), *drift_lines(evaluation.drift)]
    if recalibrate is not None:
        answer.progress("recalibrating")
        copy = write_recalibrated(fitted, cohort, out=recalibrate, method=method)
        evidence = cast("Recalibration", copy.calibration)
        found["recalibration"] = evidence.to_dict()
        lines += ["", *evidence_lines(evidence), f"Wrote {called(recalibrate)}"]
    if out is not None:
        write_json(out, found)
    answer.tell(found, lines)


def predict(
    run: RunFolder,
    data: Data,
    answer: Answer,
    out: Annotated[Path, typer.Option(help="A .csv or .parquet file.")],
    schema: Annotated[
        str, typer.Option("--as", help="table, or meds: the prediction schema of MEDS (.parquet).")
    ] = "table",
    label: Annotated[
        str | None, typer.Option(help="With --as meds: which of several outcomes.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="With --as meds: the probability from which the outcome is predicted."),
    ] = None,
    level: Annotated[
        float | None,
        typer.Option(help="Of a forecast: share that low and high are to hold; 0.9 by default."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Write a prediction for every subject of a cohort, also for those without observations."""
    import clinode
    from clinode.cli.tables import check_ending, write_table
    from clinode.cli.verdicts import calibration_lines, drift_lines
    from clinode.folder import check_place
    from clinode.training.drift import find_drift

    check_ending(out)
    _check_schema(schema, out, label, threshold)
    if schema == "meds" and level is not None:
        raise ArgumentError("--level belongs to forecasts, and predictions of MEDS are risks")
    check_place(out)
    fitted = clinode.load_run(run, device=device)
    cohort = data.read()
    if not len(cohort):
        raise SchemaError(
            "no subject is left to predict",
            where=data.data.name,
            fix="look at what was dropped: clinode check",
        )
    words: list[str] = []
    if schema == "meds":
        from clinode.cli.tables import write_arrow
        from clinode.training.meds_predictions import meds_predictions

        told, said = meds_predictions(fitted, cohort, label=label, threshold=threshold)
        write_arrow(told, out)
        n_rows, n_subjects = len(told), len(told["subject_id"].unique())
        words = [f"Their {said}."]
        if "boolean_value" not in told.column_names:
            words.append("Without boolean_value: the outcome of some or all of them is not known.")
    else:
        table = fitted.predict(cohort, level=level)
        write_table(table, out)
        n_rows, n_subjects = len(table), len(table["subject_id"].unique())
    drift = find_drift(fitted, cohort)
    words += calibration_lines(fitted)
    result = {"out": out, "as": schema, "rows": n_rows, "subjects": n_subjects, "words": words}
    wrote = f"Wrote {n_rows:,} predictions of {n_subjects:,} subjects to {called(out)}"
    answer.tell({**result, "drift": drift.to_dict()}, [wrote, *words, *drift_lines(drift)])


def _check_schema(schema: str, out: Path, label: str | None, threshold: float | None) -> None:
    if schema not in ("table", "meds"):
        raise ArgumentError(f"--as must be table or meds, got {schema!r}")
    if schema == "meds" and out.suffix.lower() != ".parquet":
        raise ArgumentError(
            f"predictions of MEDS are Parquet, got {out.name!r}", fix="name a .parquet file"
        )
    if schema == "table" and not (label is None and threshold is None):
        raise ArgumentError("--label and --threshold belong to --as meds")


def take_part(run: "Run", cohort: "Cohort", part: str) -> "Cohort":
    """Those subjects of a cohort that took a given part in the fit of a run.

    Raises:
        ArgumentError: There is no such part, or it has no subject here.
    """
    words = ("held-out", "train", "tune", "calibrate", "all")
    if part not in words:
        raise ArgumentError(f"--part must be one of {', '.join(words)}, got {part!r}")
    if part == "all":
        return cohort
    took = run.parts.set_index("subject_id")["split"].reindex(cohort.subjects)
    chosen = cohort.subjects[took.isna() if part == "held-out" else took == part]
    if not len(chosen):
        raise ArgumentError(
            f"none of the {len(cohort):,} subjects is of the part {part!r}",
            fix="give other data, or take --part all",
        )
    return cohort if len(chosen) == len(cohort) else cohort.select(chosen)


def _trackers(words: list[str], out: Path) -> "list[TensorBoard | MLflow]":
    """The trackers of these words; what they write stands beside the run."""
    from clinode.cli.settings import check_names
    from clinode.training.trackers import TRACKERS

    check_names(words, TRACKERS, where="--track")
    return [TRACKERS[word](out.resolve().parent / f"{word}-logs") for word in dict.fromkeys(words)]


def _settings(path: Path | None, changes: list[str]) -> dict[str, Any]:
    from clinode.cli.settings import check_names, with_changes
    from clinode.cohort.strict_yaml import read_yaml

    stored = {} if path is None else read_yaml(path)
    settings = {name: value for name, value in stored.items() if name not in OF_A_RUN}
    where = "--set" if path is None else path.name
    settings = with_changes(settings, changes)
    check_names(settings, SECTIONS, where=where)
    for name in ("model", "task", "fit"):
        if not isinstance(settings.get(name, {}), dict):
            raise ArgumentError(f"{name!r} must be a section of settings", where=where)
    if not isinstance(settings.get("seed", 0), int):
        raise ArgumentError("'seed' must be a whole number", where=where)
    return settings


def _model(stored: dict[str, Any], name: str | None) -> Any:
    import inspect

    from clinode.cli.settings import check_names
    from clinode.sequence import MODELS

    name = name or stored.get("name", DEFAULT_MODEL)
    if name not in MODELS:
        raise ArgumentError(f"there is no model {name!r}", fix=f"choose among {', '.join(MODELS)}")
    values = {key: value for key, value in stored.items() if key != "name"}
    check_names(values, inspect.signature(MODELS[name]).parameters, where=f"model {name}")
    return MODELS[name](**values)


def _task(
    stored: dict[str, Any] | None,
    outcome: list[str] | None,
    horizon: float | None,
    followed: dict[str, Any] | None,
    at: float | None,
    auxiliary: list[str],
) -> "Task":
    from clinode.cohort import Classify, Forecast, Survive, task_from_dict

    makers = {  # which option asks for which task: the table of the command line
        "--outcome": (
            outcome or None,
            lambda names: Classify(tuple(names), at=at, auxiliary=tuple(auxiliary)),
        ),
        "--horizon": (horizon, lambda hours: Forecast(hours, at=at)),
        "--end": (followed, lambda columns: Survive(**columns)),
    }
    if followed is not None and (at is not None or auxiliary):
        raise ArgumentError(
            "--at and --auxiliary belong to other tasks than --end",
            fix="say --landmark HOURS for the prediction time",
        )
    asked = {option: (value, make) for option, (value, make) in makers.items() if value is not None}
    if len(asked) > 1:
        raise ArgumentError(
            f"{' and '.join(asked)} ask for different tasks",
            fix="give one of them, and make a run for each",
        )
    for value, make in asked.values():
        return make(value)
    if stored is None:
        raise ArgumentError(
            "what is to be predicted was not said",
            fix="give --outcome COLUMN for a risk, --horizon HOURS for a forecast, or --end "
            "COLUMN --event COLUMN for the time to an event",
        )
    return task_from_dict(stored if at is None else {**stored, "at": at})


def _followed(
    end: str | None,
    event: str | None,
    cause: str | None,
    entry: str | None,
    landmark: list[float] | None,
) -> dict[str, Any] | None:
    """What was said of a survival task, as its arguments; None where nothing was."""
    if end is None or event is None:
        if (end, event, cause, entry) == (None,) * 4 and not landmark:
            return None
        raise ArgumentError(
            "the time to an event needs --end COLUMN and --event COLUMN", fix="give both"
        )
    landmarks = tuple(landmark) if landmark else None
    return {"time": end, "event": event, "cause": cause, "entry": entry, "landmark": landmarks}


def _schedule(stored: dict[str, Any] | None, task: "Task") -> Any:
    """The schedule: what is recommended for the task, with what was said put in its place."""
    from clinode.cli.settings import fill
    from clinode.training import FitConfig

    recommended = FitConfig.recommended(task)
    if not stored:
        return recommended
    return fill(FitConfig, {**recommended.to_dict(), **stored}, where="fit")


def _parts(
    cohort: "Cohort", fractions: tuple[float, float, float] | None, salt: str
) -> "tuple[Cohort, Cohort | None]":
    """Who trains and who tunes; without fractions, as published with the data."""
    from clinode.cohort import split

    if fractions is not None:
        train, tune, _ = split(cohort, fractions, salt)
        return train, tune if len(tune) else None
    parts = split(cohort, published=True)
    named = {word: part for part in parts for word in _words(part)}
    if "train" not in named:
        raise ArgumentError(
            f"no published split is called 'train'; there are {', '.join(named)}",
            fix="leave --published out to split by hash",
        )
    return named["train"], named.get("tuning")


def _words(part: "Cohort") -> set[str]:
    """What a published split is called."""
    return set() if part.splits is None else set(part.splits["split"])


def _fractions(text: str) -> tuple[float, float, float]:
    try:
        train, tune, held_out = (float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentError(
            "--fractions must be three numbers with commas", fix="such as 0.7,0.15,0.15"
        ) from None
    return train, tune, held_out


def _table_of(found: dict[str, Any]) -> list[str]:
    """A row a forecaster, a column a metric, and the paired differences below."""
    from clinode.cli.answers import broken_table, interval, terminal_width

    if "tasks" in found:
        parts = [[f"Task {kind}", *_table_of(held)] for kind, held in found["tasks"].items()]
        return [line for part in parts for line in part]
    there = [name for name, value in found.items() if isinstance(value, dict) and "low" in value]
    metrics = [name for name in FIRST if name in there]
    metrics += [name for name in there if name not in FIRST]
    rows = [["model", *(interval(found[name]) for name in metrics)]]
    for name, held in found["baselines"].items():
        rows.append([name, *(interval(held[m]) if m in held else "" for m in metrics)])
    for name, held in found["difference"].items():
        cells = [interval(held[m]) if m in held else "" for m in metrics]
        rows.append([f"model - {name}", *cells])
    for name, held in found.get("labels", {}).items():  # what stands above is their mean
        rows.append([name, *(interval(held[m]) for m in metrics)])
    lines = broken_table(["", *metrics], rows, terminal_width())
    for number, held in found.get("causes", {}).items():
        lines += ["", f"Cause {number}:", *_table_of(held)]
    return lines
