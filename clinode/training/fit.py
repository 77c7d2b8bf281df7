"""Fit a sequence model and store the run.

While it is under way a fit lives in `OUT.unfinished`; `OUT` appears in one rename, whole, at the
end. Calling `fit` again with the same arguments goes on where the last checkpoint stands and
arrives at the same bytes, or returns the finished run; with other arguments it refuses.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.numpy
import torch
import yaml

from clinode import __version__
from clinode.cohort import Cohort, Task
from clinode.errors import (
    Interrupted,
    ResourceError,
)
from clinode.folder import MANIFEST, check_writable, read_json, write_folder, write_json
from clinode.sequence import SequenceModel
from clinode.sequence.step_check import check_steps
from clinode.training.calibration import write_calibration
from clinode.training.call import (
    describe_call,
    environment,
    flat,
    identity,
    refuse_other_call,
)
from clinode.training.checkpoint import (
    FitState,
    list_checkpoints,
    load_latest_checkpoint,
    save_tensors,
)
from clinode.training.config import FitConfig, resolve_device
from clinode.training.distributed import Crew, crew_of
from clinode.training.evaluate import Evaluation, evaluate, headlines
from clinode.training.fit_parts import FitParts, check_parts
from clinode.training.interrupt import StopFlag, stopping_gently
from clinode.training.lock import one_writer
from clinode.training.loop import Surroundings, TrainingLoop
from clinode.training.memory import available_bytes, check_memory, memory_need
from clinode.training.optimise import keyed_generator, n_steps_per_epoch
from clinode.training.progress import FitDisplay, FitLog, display
from clinode.training.run import RUN_FORMAT, Run, load_run, plain, read_call, schema_digest
from clinode.training.start import take_weights
from clinode.training.tasks import work_of
from clinode.training.trackers import Tracker, check_trackers, tracking


def fit(
    model: SequenceModel,
    train: Cohort,
    tune: Cohort | None = None,
    *,
    task: Task,
    out: Path | str,
    seed: int = 0,
    device: str = "auto",
    config: FitConfig | None = None,
    start_from: Run | Path | str | None = None,
    progress: bool = True,
    trackers: Sequence[Tracker] = (),
) -> Run:
    """Train a copy of a model, fit the baselines beside it, and store everything as a run.

    Under `torchrun` every process takes its share of each step, and the first one writes: the
    folder must be one that all of them see.

    Preprocessing is fitted on `train` only, and blind to its labels. Of a training part of millions
    all are trained on, from records that are packed on the disk, but scales, baselines, the ranges
    of the states and, without a tuning part, the reported figures are those of
    `config.statistics_subjects`, drawn by hash. Draws are keyed by the seed,
    the purpose and the step, so on one machine with one number of threads a seed gives the same
    bytes, however often the fit was stopped or killed on its way.

    Args:
        model: A configuration; it is not changed.
        train: The training part. Records whose outcome is unknown are left out.
        tune: Selects the epoch with the least loss and stops early. Without it every epoch of the
            schedule runs and nothing is selected. Half of it does not select where a forecast is
            fitted: it calibrates the intervals, see `clinode.training.intervals`.
        task: What to predict.
        out: Folder of the run; must be free, or hold this very run.
        seed: Of every draw.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        config: The schedule; None takes what is recommended for the task.
        start_from: A run of the same family, sizes and variables, whose weights but for the head's
            are where this fit starts, and whose scales it reads on: pretraining on forecasting.
        progress: Whether to show a bar on a terminal, a line an epoch elsewhere.
        trackers: Are told the numbers of the fit as they come, see `clinode.training.trackers`;
            they change nothing of the result. A run that is there already is not told again.

    Returns:
        The run, as `load_run` reads it back. `metrics.json` and `predictions.parquet` describe the
        tuning part; without one the training part, and say so.

    Raises:
        ArgumentError: The device is absent, the task is unknown to the model, or `start_from` does
            not fit.
        OutputError: `out` cannot be written, is being written, or holds something else.
        SchemaError: A part is empty, shares subjects with the other, lacks the outcome or a class.
        CheckpointError: The stored run is damaged. (A damaged checkpoint is passed over and told.)
        SolverError: The loss is not a number.
        ResourceError: The disk is full, or memory ran out, or would by far (before the first step).
        Interrupted: Ctrl-C or SIGTERM came; the same call goes on.
    """
    check_trackers(trackers)
    target = resolve_device(device)
    config = FitConfig.recommended(task) if config is None else config
    check_parts(train, tune)
    fingerprints = {
        "train": train.fingerprint(),
        "tune": None if tune is None else tune.fingerprint(),
    }
    source = start_from if isinstance(start_from, Run | None) else load_run(start_from)
    started = None if source is None else source.weights_sha256
    call = describe_call(model, fingerprints, task, seed, config, started)
    out = Path(out).resolve()
    with crew_of(target) as crew:
        if crew.told(_holds(out, call) and not _unfinished(out).exists()):
            return load_run(out, device=target.type, model=model)

        def job(flag: StopFlag) -> _Job:
            parts = FitParts.read(train, tune, task, config, source)
            told = (out, seed, target, config, call, fingerprints, flag, trackers, crew, source)
            return _Job(model, parts, *told)

        if crew.is_first:
            if not _holds(out, call):
                check_writable(out)
            with one_writer(out), stopping_gently() as flag, _memory_in_words():
                if crew.told(not _holds(out, call)):  # another call may have finished it meanwhile
                    job(flag).carry_out(progress)
                shutil.rmtree(_unfinished(out), ignore_errors=True)  # also of a kill just here
        else:
            with stopping_gently() as flag, _memory_in_words():
                if crew.told(None):
                    job(flag).help_along()
        crew.wait()
    return load_run(out, device=target.type, model=model)


@dataclass(frozen=True)
class _Job:
    """One call of `fit` that has something to do."""

    model: SequenceModel
    parts: FitParts
    out: Path
    seed: int
    device: torch.device
    config: FitConfig
    call: dict[str, Any]
    fingerprints: dict[str, Any]
    flag: StopFlag
    trackers: Sequence[Tracker]
    crew: Crew
    source: Run | None

    def help_along(self) -> None:
        """Take this process's share of the steps; the first one writes what comes of them."""
        with tempfile.TemporaryDirectory() as nowhere, display(0, shown=False) as shown:
            folder = Path(nowhere)
            surroundings = Surroundings(
                checkpoints=folder,
                identity="",
                log=FitLog(folder / "log.jsonl"),
                display=shown,
                flag=self.flag,
                crew=self.crew,
            )
            self._train(self.crew.told(None), surroundings)

    def carry_out(self, progress: bool) -> None:
        folder = _unfinished(self.out)
        steps = n_steps_per_epoch(len(self.parts.positions), self.config) * self.config.epochs
        with display(steps, shown=progress) as shown:
            call_identity = _open_unfinished(folder, self.call, shown)
            state = self.crew.told(self._latest(folder, call_identity, shown))
            begun = 0 if state is None else state.step
            log = FitLog(folder / "log.jsonl", begun, self.trackers)
            log.write(
                "start" if state is None else "resume",
                begun,
                n_steps=steps,
                n_records=len(self.parts.positions),
                n_left_out=len(self.parts.shown) - len(self.parts.positions),
            )
            surroundings = Surroundings(
                checkpoints=folder / "checkpoints",
                identity=call_identity,
                log=log,
                display=shown,
                flag=self.flag,
                crew=self.crew,
            )
            told = flat({key: self.call[key] for key in _TOLD}) | {"n_steps": steps}
            with tracking(self.trackers, self.out.name, told, identity=call_identity, step=begun):
                loop = self._train(state, surroundings)
                run = self._assemble(loop, shown)
                shown.note(f"evaluating on the {self.parts.reported[0]} part, with intervals")
                self._write(run, loop.state, folder, log)

    def _latest(self, folder: Path, call_identity: str, shown: FitDisplay) -> FitState | None:
        state, refused = load_latest_checkpoint(folder / "checkpoints", identity=call_identity)
        for reason in refused:
            shown.note(f"passed over a damaged checkpoint: {reason}")
        if state is not None:
            shown.note(f"goes on after step {state.step}")
        elif refused:
            shown.note("no checkpoint is whole: starts again from the first step")
        return state

    def _train(self, state: FitState | None, surroundings: Surroundings) -> TrainingLoop:
        parts = self.parts
        built = self.model.build(
            parts.schema, parts.task, keyed_generator(self.seed, "initial weights")
        )
        built.prepare(parts.few_shown)
        if self.source is not None:
            take_weights(built, self.source)
        if self.crew.is_first:
            self._tell_memory(built, state, surroundings)
        loop = TrainingLoop(
            built.to(self.device),
            parts.shown,
            positions=parts.positions,
            tune=parts.tune_records,
            config=self.config,
            seed=self.seed,
            surroundings=surroundings,
            state=state,
        )
        loop.run()
        return loop

    def _tell_memory(
        self, built: SequenceModel, state: FitState | None, surroundings: Surroundings
    ) -> None:
        parts = self.parts
        need = memory_need(
            built,
            parts.shown,
            positions=parts.positions,
            tune=parts.tune_records,
            config=self.config,
            seed=self.seed,
            n_processes=self.crew.size,
        )
        surroundings.display.note(check_memory(need, available_bytes(self.device)))
        step = 0 if state is None else state.step
        surroundings.log.write("memory", step, expected_peak_bytes=need.peak)

    def _assemble(self, loop: TrainingLoop, shown: FitDisplay) -> Run:
        parts, log = self.parts, loop.surroundings.log
        fitted = loop.averaged
        fitted.load_state_dict(loop.fitted)
        fitted = fitted.cpu()
        fitted.finish(parts.few_records)
        fitted.eval()
        steps = check_steps(fitted, parts.few_records)
        if steps is not None:
            log.write("field steps", loop.state.step, **steps.to_dict())
            if steps.warning is not None:
                shown.note(steps.warning)
        self._stop_if_asked()
        shown.note("fitting the baselines")
        started = time.monotonic()
        baselines = work_of(parts.task).fit_baselines(parts.few, parts.few_records, self.seed)
        log.write("baselines", loop.state.step, seconds=round(time.monotonic() - started, 3))
        self._stop_if_asked()
        return Run(
            folder=self.out,
            model=fitted,
            schema=parts.schema,
            task=parts.task,
            config=self.config,
            seed=self.seed,
            version=__version__,
            weights_sha256="",  # known once written; nothing below asks
            metrics={},
            baselines=baselines,
            parts=parts.table,
            fingerprint={**self.fingerprints, "seen": parts.seen},
        )

    def _stop_if_asked(self) -> None:
        if self.flag.stop_requested:  # the loop saved at the end of its last epoch
            raise Interrupted(
                "stopped on request, between training and the final evaluation",
                fix="give the same command again: it goes on from there",
            )

    def _write(self, run: Run, state: FitState, unfinished: Path, log: FitLog) -> None:
        name, cohort = self.parts.reported
        work = work_of(run.task)
        calibration, told = work.calibrate((run,), self.parts.tune, self.parts.aside)
        run = replace(run, calibration=calibration)
        evaluation = evaluate(run, cohort, n_resamples=_N_RESAMPLES[name])
        metrics = _metrics(name, evaluation, state)
        log.write(f"evaluation of {name}", state.step, **headlines(metrics["evaluation"]))
        if told is not None:
            metrics["intervals"] = told
        predictions = work.observed(run, name, cohort)
        self._stop_if_asked()

        def write(folder: Path) -> None:
            text = yaml.safe_dump({**self.call, "environment": environment(self.device)})
            (folder / "config.yaml").write_text(text, encoding="utf-8")
            write_json(folder / "schema.json", run.schema.to_dict())
            write_json(folder / "fingerprint.json", plain(run.fingerprint))
            run.parts.to_parquet(folder / "split.parquet", index=False)
            about = {"format": RUN_FORMAT, "schema": schema_digest(run.schema)}
            save_tensors(folder / "model.safetensors", run.model.state_dict(), about)
            stored = safetensors.numpy.save(run.baselines.to_arrays())
            (folder / "baselines.safetensors").write_bytes(stored)
            write_calibration(folder, run.calibration)
            write_json(folder / "metrics.json", metrics)
            predictions.to_parquet(folder / "predictions.parquet", index=False)
            shutil.copyfile(unfinished / "log.jsonl", folder / "log.jsonl")
            for last in list_checkpoints(unfinished / "checkpoints")[:1]:
                shutil.copytree(last, folder / "checkpoints" / last.name)

        write_folder(self.out, write, kind="run")


_TOLD = ("clinode", "model", "task", "fit", "seed")  # of a call, to those who watch
# what was trained on flatters: enough resamples to see that, not to lean on
_N_RESAMPLES = {"train": 200, "tune": 1000}


def _unfinished(out: Path) -> Path:
    return out.with_name(f"{out.name}.unfinished")


def _holds(out: Path, call: dict[str, Any]) -> bool:
    """Whether `out` is the finished run of this very call.

    Raises:
        OutputError: It is the run of another call.
    """
    if not (out / MANIFEST).is_file() or not (out / "config.yaml").is_file():
        return False
    refuse_other_call(out.name, read_call(out / "config.yaml"), call)
    return True


def _open_unfinished(folder: Path, call: dict[str, Any], shown: FitDisplay) -> str:
    """Makes the folder of a fit, or enters that of the same call; returns the call's identity."""
    if (folder / "call.json").exists():
        stored = read_json(folder / "call.json")
        refuse_other_call(folder.name, stored["call"], call)
        if stored["environment"] != environment(None):
            shown.note("goes on with another torch or number of threads: last digits may differ")
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    for leftover in (folder / "checkpoints").glob(".*"):  # of a writer that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    write_json(folder / "call.json", {"call": call, "environment": environment(None)})
    return identity(call)


def _metrics(name: str, evaluation: Evaluation, state: FitState) -> dict[str, Any]:
    return {
        "part": name,
        "is_apparent": name == "train",  # measured on what the model was trained on: flattering
        "steps": state.step,
        "epochs": state.epochs_done,
        "best_epoch": state.best_epoch,
        "curve": state.curve,
        "evaluation": evaluation.to_dict(),
    }


@contextmanager
def _memory_in_words() -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch has a class for CUDA only; on a CPU its allocator says so in words
        if isinstance(error, RuntimeError) and not (
            isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        ):
            raise
        raise ResourceError(
            "memory ran out during the fit",
            fix="lower batch_size, or choose a smaller model",
            lost="nothing: the last checkpoint stands",
        ) from error
