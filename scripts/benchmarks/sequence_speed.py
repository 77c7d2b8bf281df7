"""Training steps of the recurrent families beside the published way, on one core.

    OMP_NUM_THREADS=1 python scripts/benchmarks/sequence_speed.py [--rounds 3] [--only NAME ...]
        [--no-memory] [--no-scaling]

The published way (`union_grid.py`) integrates a batch over the union of its records' stamps. The
same model, with the same weights, is run here on each record's own gaps, by
`clinode.sequence.recurrence`, and must give the same loss and the same gradients, up to the error
of the published Euler steps.
A step is zero_grad, forward, backward and optimiser. Rounds are interleaved; figures are medians.
Records are made up after PhysioNet-2012: stamps to the minute over 48 hours, 37 channels.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from gated_moments import MomentsUnit
from torch import Tensor, nn
from torchdiffeq import odeint
from union_grid import (
    SPREAD,
    UnionGrid,
    UnionLatentODE,
    UnionODERNN,
)

import clinode as cn
from clinode.cohort import IrregularBatch, PackedRecords, Preprocessor
from clinode.sequence.field_flow import FieldFlow, euler, midpoint, rk4
from clinode.sequence.heads import expectation_loss
from clinode.sequence.recurrence import recur, recur_plainly
from clinode.sequence.views import whole_records

HOURS, CHANNELS = 48, 37
N_RECORDS, STATES, READ = 512, 20, 40
BATCH = np.arange(450, 500)  # about as many stamps, in the longest and in the union, as in P12
SCHEMES = {"euler": euler, "midpoint": midpoint, "rk4": rk4}


def stamps(generator: np.random.Generator, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Minutes of one record, hourly ones at its own minute and extras; which are hourly."""
    hours = np.flatnonzero(generator.uniform(size=HOURS) < min(1.0, 0.85 * scale))
    charted = hours * 60 + generator.integers(0, 60)
    n_extra = generator.poisson(generator.gamma(3, 11.8 * scale))
    extra = generator.integers(0, HOURS * 60, n_extra)
    minutes = np.unique(np.concatenate([charted, extra, generator.integers(0, HOURS * 60, 1)]))
    return minutes, np.isin(minutes, charted)


def made_up_records(n: int = N_RECORDS, scale: float = 1.0) -> PackedRecords:
    """Records of about 75 stamps (times `scale`) with about six channels each."""
    generator = np.random.default_rng(0)
    parts = []
    for subject in range(n):
        minutes, is_charted = stamps(generator, scale)
        share = np.where(is_charted, 0.18, 0.135)
        seen = generator.uniform(size=(len(minutes), CHANNELS)) < share[:, None]
        seen[~seen.any(axis=1), 0] = True
        row, channel = np.nonzero(seen)
        level = generator.normal(size=CHANNELS)
        parts.append(
            pd.DataFrame(
                {
                    "subject_id": subject,
                    "time": minutes[row] / 60,
                    "variable": np.array([f"channel {k:02d}" for k in range(CHANNELS)])[channel],
                    "value": level[channel] + generator.normal(size=len(row)),
                }
            )
        )
    outcomes = pd.DataFrame({"subject_id": range(n), "died": generator.uniform(size=n) < 0.14})
    outcomes["died"] = outcomes["died"].astype(int)
    cohort = cn.Cohort.from_tables(observations=pd.concat(parts), outcomes=outcomes)
    task = cn.Classify("died", at=float(HOURS))
    return PackedRecords.build(cohort, Preprocessor.fit(cohort, task), task)


def union_of(batch: IrregularBatch) -> UnionGrid:
    """The batch on the union of its stamps."""
    minute = torch.round(batch.time * 60).long()
    union, place = torch.unique(minute, return_inverse=True)
    shape = len(batch), len(union), batch.value.shape[1]
    where = batch.row_subject, place
    value = batch.value.new_zeros(shape).index_put(where, batch.value)
    mask = torch.zeros(shape, dtype=torch.bool).index_put(where, batch.mask)
    time_of = (union.double() / (60 * HOURS)).to(batch.dtype)
    return UnionGrid(time_of, value, mask, batch.target[:, 0])  # type: ignore[index]


class OwnGaps:
    """The model of `UnionODERNN`, with its very weights, on each record's own gaps."""

    def __init__(self, model: UnionODERNN, scheme: str, function: Callable[..., Any] = recur):
        self.model, self.scheme, self.function = model, SCHEMES[scheme], function

    def run(self, batch: IrregularBatch) -> tuple[Tensor, Tensor]:
        """States after and just before the observations of each row."""
        x = torch.cat([batch.value, batch.mask.to(batch.dtype)], dim=1)
        scheme = self.scheme((batch.gap / HOURS).unsqueeze(1), None)
        layers = [(m.weight, m.bias) for m in self.model.field if isinstance(m, nn.Linear)]
        flow, update = FieldFlow(layers, scheme), MomentsUnit.of(self.model.unit, x)
        rounds = [True] * len(batch.sizes)
        return self.function(flow, update, batch.sizes, rounds, self.model.n_states)

    def loss(self, batch: IrregularBatch) -> Tensor:
        """That of `UnionODERNN`."""
        after, before = self.run(batch)
        mask = batch.mask.to(batch.dtype)
        count = mask.new_zeros(len(batch), mask.shape[1]).index_add_(0, batch.row_subject, mask)
        share = (count > 0).sum(dim=1, keepdim=True).clamp(min=1) * count.clamp(min=1)
        weight = mask / (2 * SPREAD**2 * len(batch) * share)[batch.row_subject]
        unlikely = (weight * (batch.value - self.model.decoder(before)) ** 2).sum()
        outcome = nn.functional.binary_cross_entropy_with_logits(
            self.model.classifier(after[batch.last_row]).squeeze(1),
            batch.target[:, 0],  # type: ignore[index]
        )
        return unlikely + outcome


def tightly_solved(model: UnionODERNN, batch: IrregularBatch) -> Tensor:
    """States after each row when every gap is solved by dopri5 to 1e-9."""
    y = batch.value.new_zeros(len(batch), model.n_states)
    spread, states = torch.zeros_like(y), []
    seen = torch.cat([batch.value, batch.mask.to(batch.dtype)], dim=1).split(batch.sizes)
    ends = torch.tensor([0.0, 1.0], dtype=batch.dtype)
    for x, gap in zip(seen, (batch.gap / HOURS).split(batch.sizes), strict=True):
        y, spread, hours = y[: len(x)], spread[: len(x)], gap.unsqueeze(1)

        def pace(_: Tensor, at: Tensor, hours: Tensor = hours) -> Tensor:
            return model.field(at) * hours

        solved = odeint(pace, y, ends, rtol=1e-9, atol=1e-11, method="dopri5")
        y, spread = model.unit(solved[1], spread, x, torch.ones_like(hours))  # type: ignore[index]
        states.append(y)
    return torch.cat(states)


class Clock:
    """Training steps of one model, timed."""

    def __init__(self, name: str, parameters: list[nn.Parameter], loss: Callable[[], Tensor]):
        self.name, self.loss = name, loss
        self.optimizer = torch.optim.Adam(parameters, lr=1e-5, foreach=True)
        self.seconds: list[float] = []

    def step(self, times: int) -> None:
        """Take some and remember how long each took."""
        for _ in range(times):
            start = time.perf_counter()
            self.optimizer.zero_grad()
            self.loss().backward()
            self.optimizer.step()
            self.seconds.append(time.perf_counter() - start)

    @property
    def median(self) -> float:
        """Milliseconds of a step, the first left out."""
        return 1e3 * statistics.median(self.seconds[1:] or self.seconds)


def product_microseconds() -> float:
    """A product of two 50 x 50 matrices, the pace of this machine now."""
    a, b, out = torch.randn(50, 50), torch.randn(50, 50), torch.empty(50, 50)
    start = time.perf_counter()
    for _ in range(3000):
        torch.mm(a, b, out=out)
    return (time.perf_counter() - start) / 3000 * 1e6


def built(name: str, records: PackedRecords, **settings: int) -> cn.sequence.SequenceModel:
    """A family's model, as `fit` builds it."""
    model = cn.sequence.MODELS[name](**settings)
    model = model.build(records.schema, records.task, torch.Generator().manual_seed(0))
    model.prepare(records)
    return model


def layer_loss(
    model: cn.sequence.SequenceModel,
    batch: IrregularBatch,
    last: nn.Linear,
    generator: torch.Generator,
) -> Tensor:
    """Of the sequence alone: next observation, its own loss, outcome from one linear layer."""
    encoding = model.encode(batch)
    outcome = nn.functional.binary_cross_entropy_with_logits(
        last(encoding.at_prediction).squeeze(1),
        batch.target[:, 0],  # type: ignore[index]
    )
    expected = expectation_loss(batch, encoding.next_observation)
    return outcome + expected + model._own_loss(batch, encoding, generator, batch.mask.sum())


def bound_loss(
    model: cn.sequence.LatentODE, batch: IrregularBatch, last: nn.Linear, generator: torch.Generator
) -> Tensor:
    """What the reference Latent ODE is trained on: the bound of drawn paths, and the outcome.

    Without what is expected next, which the reference does not know.
    """
    remembered, views = model.memory.before(batch), whole_records(batch)
    start = model.path.tell(batch, remembered, views)
    states, cost = model.path.sample(batch, views, start, generator)
    expected = model.decoder(torch.cat([states, remembered], dim=1))
    bound = model.noise.log_likelihood(batch, expected) - cost.sum()
    outcome = nn.functional.binary_cross_entropy_with_logits(
        last(start.mean).squeeze(1),
        batch.target[:, 0],  # type: ignore[index]
    )
    return outcome - bound / batch.mask.sum()


def clock(name: str, records: PackedRecords, batch: IrregularBatch) -> Clock:
    """What is timed under a name."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    if name == "reference ODE-RNN":
        model, grid = UnionODERNN(STATES, CHANNELS), union_of(batch)
        return Clock(name, list(model.parameters()), lambda: model.loss(grid))
    if name == "reference Latent ODE":
        union, grid = UnionLatentODE(STATES, READ, CHANNELS), union_of(batch)
        return Clock(name, list(union.parameters()), lambda: union.loss(grid, generator))
    if name.startswith("ODE-RNN"):
        model = UnionODERNN(STATES, CHANNELS)
        own = OwnGaps(model, name.split(", ")[1])
        return Clock(name, list(model.parameters()), lambda: own.loss(batch))
    family, part = name.split(", ")
    sizes = {"latent": STATES, "hidden": READ, "field_hidden": 50} if family == "latent-ode" else {}
    whole = built(family, records, **sizes)
    parameters = list(whole.parameters())
    if part == "whole model":
        return Clock(name, parameters, lambda: whole.loss(batch, generator))
    last = nn.Linear(sizes.get("latent", whole.settings.hidden), 1)
    parameters += last.parameters()
    if part == "bound":
        path = cast(cn.sequence.LatentODE, whole)
        return Clock(name, parameters, lambda: bound_loss(path, batch, last, generator))
    return Clock(name, parameters, lambda: layer_loss(whole, batch, last, generator))


REFERENCES = {"latent-ode": "reference Latent ODE"}  # of the others: the reference ODE-RNN
TIMED = (
    "reference ODE-RNN",
    "reference Latent ODE",
    "ODE-RNN, euler",
    "ODE-RNN, midpoint",
    "ODE-RNN, rk4",
    "linear-latent-ode, layer",
    "linear-latent-ode, whole model",
    "ode-rnn, layer",
    "ode-rnn, whole model",
    "latent-ode, bound",
    "latent-ode, layer",
    "latent-ode, whole model",
)


def timed(
    names: list[str], rounds: int, records: PackedRecords, batch: IrregularBatch
) -> list[Clock]:
    """Steps of each, interleaved."""
    clocks = [clock(name, records, batch) for name in names]
    for one in clocks:  # the first step is longer
        one.step(1)
    for _ in range(rounds):
        for one in clocks:
            one.step(1 if one.name.startswith("reference") else 5)
    return clocks


def agreement(batch: IrregularBatch) -> None:
    """Print how far ways to compute the same thing are apart."""
    torch.manual_seed(0)
    model = UnionODERNN(STATES, CHANNELS)
    single = batch
    double = batch.replace(value=batch.value.double(), gap=batch.gap.double())
    double = double.replace(target=double.target.double())  # type: ignore[union-attr]

    def gradients(of: Tensor) -> Tensor:
        found = torch.autograd.grad(of, list(model.parameters()))
        return torch.cat([part.flatten() for part in found])

    print("\n| agreement, relative, in the norm of all | |\n|---|---|")
    for scheme in ("midpoint", "rk4"):
        ours = gradients(OwnGaps(model, scheme).loss(single))
        oracle = gradients(OwnGaps(model, scheme, recur_plainly).loss(single))
        print(f"| gradient, {scheme}, beside autograd, float32 | {apart(ours, oracle):.1e} |")
    model.double()
    for scheme in ("midpoint", "rk4"):
        ours = gradients(OwnGaps(model, scheme).loss(double))
        oracle = gradients(OwnGaps(model, scheme, recur_plainly).loss(double))
        print(f"| the same, float64 | {apart(ours, oracle):.1e} |")
    with torch.no_grad():
        tight = tightly_solved(model, double)
        for scheme in SCHEMES:
            states, _ = OwnGaps(model, scheme).run(double)
            print(f"| states, {scheme}, beside dopri5 to 1e-9 | {apart(states, tight):.1e} |")
    grid = union_of(double)
    reference, own = model.loss(grid), OwnGaps(model, "midpoint").loss(double)
    print(f"| loss, midpoint, beside the reference | {apart(own, reference):.1e} |")
    print(f"| its gradient | {apart(gradients(own), gradients(reference)):.1e} |")


def apart(a: Tensor, b: Tensor) -> float:
    """Relative distance."""
    return ((a - b).norm() / b.norm()).item()


def own_peak() -> float:
    """Most memory that this process held, MB; not of the one it was started from, as rusage has."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def memory(name: str) -> tuple[float, float]:
    """Peak of a process that takes two steps, and of one that only gets ready; MB."""
    peaks = []
    for steps in (2, 0):
        command = [sys.executable, __file__, "--peak", name, str(steps)]
        told = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
        peaks.append(json.loads(told.stdout.splitlines()[-1])["peak"])
    return peaks[0], peaks[1]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(TIMED), choices=TIMED)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--no-scaling", action="store_true")
    parser.add_argument("--peak", nargs=2, metavar=("NAME", "STEPS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    records = made_up_records()
    batch = records.batch(BATCH)
    if asked.peak:
        name, steps = asked.peak
        clock(name, records, batch).step(int(steps))
        print(json.dumps({"peak": own_peak()}))
        return
    print(
        f"{len(records)} records, mean {records.lengths.mean():.1f} stamps; batch of {len(batch)}: "
        f"{batch.n_rows} stamps of its own, at most {len(batch.sizes)}, "
        f"{len(union_of(batch).time)} in the union; "
        f"{batch.mask.sum().item() / batch.n_rows:.2f} channels each"
    )
    print(f"a 50 x 50 x 50 product: {product_microseconds():.1f} us")
    clocks = timed(asked.only, asked.rounds, records, batch)
    print(f"after the last step: {product_microseconds():.1f} us\n")
    of = {one.name: one.median for one in clocks}
    head = "| step of a batch of 50 | ms | times as fast |"
    print(head if asked.no_memory else head + " peak MB | over start MB |")
    print("|---|---|---|" if asked.no_memory else "|---|---|---|---|---|")
    for name, took in of.items():
        reference = REFERENCES.get(name.split(", ")[0], "reference ODE-RNN")
        ratio = f"{of[reference] / took:.0f}" if reference in of else ""
        cells = f"| {name} | {took:.1f} | {ratio} |"
        if not asked.no_memory:
            peak, start = memory(name)
            cells += f" {peak:.0f} | {peak - start:.0f} |"
        print(cells, flush=True)
    agreement(batch)
    if not asked.no_scaling:
        scaling()


def scaling() -> None:
    """Print the cost of longer records, and of more of them."""
    print("\n| ODE-RNN, midpoint | stamps | rounds | ms | us a stamp |\n|---|---|---|---|---|")
    for share in (0.25, 0.5, 1.0, 2.0):
        records = made_up_records(50, share)
        tell("50 records", records, records.batch(np.arange(50)))
    records = made_up_records(512)
    for n in (8, 16, 50, 128, 512):
        tell(f"{n} records", records, records.batch(np.arange(n)))


def tell(name: str, records: PackedRecords, batch: IrregularBatch) -> None:
    """One row of that table."""
    one = clock("ODE-RNN, midpoint", records, batch)
    one.step(8)
    took = f"{one.median:.1f} | {1e3 * one.median / batch.n_rows:.1f}"
    print(f"| {name} | {batch.n_rows} | {len(batch.sizes)} | {took} |", flush=True)


if __name__ == "__main__":
    main()
