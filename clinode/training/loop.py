"""The loop of a fit: step, evaluate, save, stop.

Between two steps the state is complete, and every decision is a function of it; that is all that
resuming needs. What a step draws is keyed by the seed and the step.
"""

import copy
import hashlib
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from clinode.cohort import PackedRecords
from clinode.errors import Interrupted, SolverError
from clinode.sequence import SequenceModel, in_batches
from clinode.training.checkpoint import FitState, save_checkpoint
from clinode.training.config import FitConfig
from clinode.training.distributed import Crew
from clinode.training.interrupt import StopFlag
from clinode.training.optimise import (
    AdamW,
    epoch_batches,
    isolated_randomness,
    keyed_generator,
    keyed_seed,
    learning_rate,
    n_steps_per_epoch,
    update_average,
)
from clinode.training.progress import FitDisplay, FitLog, left_in_words
from clinode.training.time_left import TimeLeft

LOG_STEPS = 50  # besides a line an epoch


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where a loop leaves its traces, who may stop it, and with which processes it works."""

    checkpoints: Path
    identity: str
    log: FitLog
    display: FitDisplay
    flag: StopFlag
    crew: Crew = field(default_factory=Crew)


class TrainingLoop:
    """Trains a built model on one device until its schedule, or its patience, is over.

    Args:
        model: Built and prepared, on its device; trained in place.
        records: The training part.
        positions: Which of its records are trained on.
        tune: Records on which the epoch is selected, or None.
        config: The schedule.
        seed: Keys every draw.
        surroundings: For the log, the display, the checkpoints and the signals.
        state: Of a checkpoint, or None to begin.
    """

    def __init__(
        self,
        model: SequenceModel,
        records: PackedRecords,
        *,
        positions: np.ndarray,
        tune: PackedRecords | None,
        config: FitConfig,
        seed: int,
        surroundings: Surroundings,
        state: FitState | None = None,
    ):
        self.model = model
        self.averaged = copy.deepcopy(model)
        self.optimizer = AdamW(model, config.weight_decay)
        self.records, self.positions, self.tune = records, positions, tune
        self.config, self.seed = config, seed
        self.device = next(model.parameters()).device
        self.surroundings = surroundings
        self.steps_per_epoch = n_steps_per_epoch(len(positions), config)
        self.n_steps = config.epochs * self.steps_per_epoch
        self._epoch_batches: tuple[int, list[np.ndarray]] = (-1, [])
        self._started = self._saved_at = time.monotonic()
        self.state = FitState(weights={}, average={}, best={}, moments={})
        if state is not None:
            self._restore(state)
        self._left = self._time_left()

    def run(self) -> None:
        """Goes on until the end.

        Raises:
            Interrupted: Somebody asked to stop; the state was saved before.
            SolverError: The loss or its gradient is not a number.
        """
        while not self.is_finished:
            if self.surroundings.crew.anyone(self.surroundings.flag.stop_requested):
                self.save()
                raise Interrupted(
                    f"stopped on request after step {self.state.step} of {self.n_steps}",
                    fix="give the same command again: it goes on from there",
                )
            if self.state.step == self.steps_per_epoch * (self.state.epochs_done + 1):
                self._close_epoch()
            else:
                self._step()
                if time.monotonic() - self._saved_at >= self.config.checkpoint_seconds:
                    self.save()

    @property
    def is_finished(self) -> bool:
        """Whether every epoch is done, or patience has run out."""
        state = self.state
        waited = 0 if state.best_epoch is None else state.epochs_done - state.best_epoch
        return state.epochs_done >= self.config.epochs or waited >= self.config.patience_epochs

    @property
    def fitted(self) -> dict[str, Tensor]:
        """Averaged weights that the fit arrives at: the best ones, without `tune` the last ones."""
        return self.state.best or self.averaged.state_dict()

    def save(self) -> None:
        """Writes a checkpoint of the state as it is; of several processes only the first does."""
        state, surroundings = self.state, self.surroundings
        self._saved_at = time.monotonic()
        if not surroundings.crew.is_first:
            return
        state.weights, state.average = self.model.state_dict(), self.averaged.state_dict()
        state.moments = self.optimizer.moments
        save_checkpoint(surroundings.checkpoints, state, identity=surroundings.identity)

    def _restore(self, state: FitState) -> None:
        self.model.load_state_dict(state.weights)
        self.averaged.load_state_dict(state.average)
        moments = {
            name: value if name.startswith("step/") else value.to(self.device)
            for name, value in state.moments.items()
        }
        self.optimizer = AdamW(self.model, self.config.weight_decay, moments)
        state.best = {name: value.to(self.device) for name, value in state.best.items()}
        self.state = state

    def _step(self) -> None:
        state, config, step = self.state, self.config, self.state.step
        chosen = self._chosen(step)
        rate = learning_rate(step, self.n_steps, config)
        self.model.train()
        self.model.zero_grad(set_to_none=True)
        loss = self._backward(chosen, step)
        norm = float(clip_grad_norm_(self.model.parameters(), config.gradient_norm))
        self._refuse_not_finite(loss, norm, chosen)
        self.optimizer.step(rate)
        update_average(self.averaged.state_dict(), self.model, step, config.average_decay)
        state.step += 1
        state.loss_sum += loss
        state.norm_sum += norm
        self._left.stepped(int(self.records.lengths[chosen].sum()))
        self.surroundings.display.step(state.step, loss, self._left_in_words())
        if state.step % LOG_STEPS == 0:
            self.surroundings.log.write(
                "steps",
                state.step,
                epoch=step // self.steps_per_epoch + 1,
                loss=loss,
                learning_rate=rate,
                gradient_norm=norm,
                seconds=self._seconds(),
            )

    def _backward(self, chosen: np.ndarray, step: int) -> float:
        """The loss of a step, with its gradients in the parameters.

        A step is computed whole, or in parts, here or by other processes as well. Every mean is
        over the values of the whole step, so that the losses of parts add up to it; each part draws
        for itself.
        """
        crew, n_parts = self.surroundings.crew, self.config.accumulate
        with isolated_randomness(keyed_seed(self.seed, "global", step), self.device):
            if crew.size * n_parts == 1:
                batch = self.records.batch(chosen, device=self.device)
                generator = keyed_generator(self.seed, "loss", step, device=self.device)
                loss = self.model.loss(batch, generator)
                loss.backward()
                return float(loss.detach())
            pieces = enumerate(np.array_split(crew.share(chosen), n_parts), crew.place * n_parts)
            parts = [(k, self.records.batch(piece)) for k, piece in pieces if len(piece)]
            own = [self.model.counts(batch).double() for _, batch in parts]
            none = self.model.counts(self.records.batch(chosen[:1])).double() * 0
            counts = crew.sum(torch.stack([none, *own]).sum(dim=0).to(self.device))
            total = torch.zeros((), dtype=torch.float64, device=self.device)
            for k, batch in parts:
                generator = keyed_generator(self.seed, "loss", step, k, device=self.device)
                here = batch.to(self.device)
                loss = self.model.loss(here, generator, counts.to(here.dtype))
                loss.backward()
                total += loss.detach()
        crew.sum_gradients(self.model)
        return float(crew.sum(total))

    def _chosen(self, step: int) -> np.ndarray:
        """Positions of the records of a step."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if self._epoch_batches[0] != epoch:
            lengths = self.records.lengths[self.positions]
            batches = epoch_batches(lengths, self.config, seed=self.seed, epoch=epoch)
            self._epoch_batches = (epoch, batches)
        return self.positions[self._epoch_batches[1][within]]

    def _time_left(self) -> TimeLeft:
        rows, state = self.records.lengths, self.state
        begun = range(state.epochs_done * self.steps_per_epoch, state.step)
        return TimeLeft(
            rows_per_epoch=int(rows[self.positions].sum()),
            epochs=self.config.epochs - state.epochs_done,
            rows_done=sum(int(rows[self._chosen(step)].sum()) for step in begun),
        )

    def _left_in_words(self) -> str:
        config, best = self.config, self.state.best_epoch
        earliest = (self.state.epochs_done + 1 if best is None else best) + config.patience_epochs
        may_stop = self.tune is not None and earliest < config.epochs
        return left_in_words(self._left.seconds, may_stop_early=may_stop)

    def _refuse_not_finite(self, loss: float, norm: float, chosen: np.ndarray) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = "its gradient" if math.isfinite(loss) else "it"
        self.save()  # nothing was stepped yet: the weights before this batch are the last good ones
        # which records, for one who has them: a digest of positions tells nobody else anything
        places = np.sort(chosen).astype("<i8")
        digest = hashlib.sha256(places.tobytes()).hexdigest()[:12]
        epoch = self.state.step // self.steps_per_epoch + 1
        raise SolverError(
            f"training loss: {what} is not a number at step {self.state.step + 1} of "
            f"{self.n_steps} (a batch of {len(chosen)} records)",
            where="fit",
            fix="lower learning_rate, or look for extreme values with `clinode check`",
            lost="nothing: the last checkpoint holds the weights before this batch "
            f"(of epoch {epoch}; SHA-256 of its positions begins with {digest})",
        )

    def _close_epoch(self) -> None:
        state, epoch = self.state, self.state.epochs_done + 1
        crew, tune_loss = self.surroundings.crew, None
        if self.tune is not None:
            tune_loss = crew.told(self._tune_loss() if crew.is_first else None)
        if self.tune is not None and tune_loss is None:
            return  # a signal came meanwhile; the epoch is evaluated after resuming
        train_loss = state.loss_sum / self.steps_per_epoch
        norm = state.norm_sum / self.steps_per_epoch
        if tune_loss is not None and (state.best_loss is None or tune_loss < state.best_loss):
            state.best_loss, state.best_epoch = tune_loss, epoch
            state.best = {k: v.clone() for k, v in self.averaged.state_dict().items()}
        state.curve.append({"epoch": epoch, "train_loss": train_loss, "tune_loss": tune_loss})
        state.epochs_done, state.loss_sum, state.norm_sum = epoch, 0.0, 0.0
        self.surroundings.log.write(
            "epoch",
            state.step,
            epoch=epoch,
            loss=train_loss,
            tune_loss=tune_loss,
            best_epoch=state.best_epoch,
            learning_rate=learning_rate(state.step - 1, self.n_steps, self.config),
            gradient_norm=norm,
            seconds=self._seconds(),
        )
        self.save()
        self._left.closed()
        told = "" if tune_loss is None else f", tune {tune_loss:.4f}"
        left = "" if self.is_finished else self._left_in_words()
        self.surroundings.display.epoch(epoch, f"loss {train_loss:.4f}{told}", left)

    def _tune_loss(self) -> float | None:
        """Mean loss of the averaged weights over the tuning targets, or None if asked to stop.

        Of several tasks it is the weighted sum of their means.
        Of the prediction alone, see `Head.prediction_loss`: the towers and auxiliary outcomes of
        the training loss are not what is selected for.
        """
        totals: dict[int, list[float]] = {}
        if self.tune is None:
            return None
        with torch.no_grad():
            for batch in in_batches(self.tune):
                if self.surroundings.flag.stop_requested:
                    return None
                batch = batch.to(self.device)
                losses = self.averaged.head.prediction_losses(batch, self.averaged(batch))
                for task, (weight, total, count) in enumerate(losses):
                    held = totals.setdefault(task, [weight, 0.0, 0.0])
                    held[1], held[2] = held[1] + total, held[2] + count
        means = [weight * total / count for weight, total, count in totals.values() if count]
        loss = sum(means) if means else math.nan
        if not math.isfinite(loss):
            raise SolverError(
                f"tuning loss: it is not a number after step {self.state.step} of {self.n_steps}",
                where="fit",
                fix="lower learning_rate; then fit anew",
                lost="nothing: the last checkpoint stands",
            )
        return loss

    def _seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)
