"""Families on simulated processes with gaps, against the best forecast there is.

    python scripts/benchmarks/gaps.py [--subjects 2000] [--seeds 0 1 2 3 4] [--models NAME ...]
        [--processes ou car2] [--sampling irregular regular]

Two stationary Gaussian processes of variance 1, measured with noise of standard deviation .3:
Ornstein-Uhlenbeck (10 h), and a CAR(2), the first coordinate of a rotation with a period of 12 h
that is forgotten with a time constant of 67 h.
Measurements are exponential gaps of 3 h apart, or, as a control, 3 h exactly. Each subject is
followed for 72 h and asked at two of its measurements. Every seed draws its own subjects to train
on and others to score, and the families are fitted with their defaults and without a tuning part.

What is compared is the log density, in nats, of each value measured within 24 h after the
prediction time: the Gaussian with the mean and the variance that the model forecasts for that time,
given what was measured until the prediction time, on the standardised scale and clipped as the
training part's preprocessing clips. The oracle is the Kalman filter with the true constants, asked
the same; "excess" is the mean of its log density minus the model's, in expectation never negative.
Beside all values stand the next value after the prediction time alone, and, in both, those that
are at least three times the median gap away. `KalmanLatentODE` is scored twice, with the readout of
every family and with the moments of its own filter.

"Flow" is by how much the latent state at the prediction time moves, relative to its root mean
square and in float64, when ten empty rows are put into the record: the violation of
F(s + t, z) = F(s, F(t, z)). Families without a flow pass as well and are marked.
"""

import argparse
import copy
import json
import math
import platform
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import clinode as cn
from clinode.cohort import PackedRecords
from clinode.sequence import MODELS, KalmanLatentODE, in_batches

HOURS = 72.0
GAP = 3.0  # mean hours between measurements
NOISE = 0.3  # standard deviation of a measurement
ASKED = (20.0, 52.0)  # hours within which prediction times lie
N_TIMES = 2  # prediction times of a subject
AHEAD = 24.0  # hours
LONG = 3.0  # times the median gap
N_EMPTY = 10
TASK = cn.Forecast(AHEAD)
DEFAULT_MODELS = (
    "linear-latent-ode",
    "scan-latent-ode",
    "kalman-latent-ode",
    "gru-gap",
    "ode-rnn",
)


@dataclass(frozen=True)
class Process:
    """A stationary Gaussian process, covariance exp(-decay s) cos(frequency s), with noise."""

    decay: float  # per hour
    frequency: float  # rad per hour

    def flow(self, gap: float) -> np.ndarray:
        """Of the state (turned coordinate and its partner) over a gap."""
        angle = self.frequency * gap
        turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        return math.exp(-self.decay * gap) * np.array(turn)

    def draw(self, times: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Measurements at these hours."""
        state, values = generator.normal(size=2), []
        for gap in np.diff(times, prepend=times[:1]):
            spread = math.sqrt(-math.expm1(-2 * self.decay * gap))
            state = self.flow(gap) @ state + spread * generator.normal(size=2)
            values.append(state[0] + NOISE * generator.normal())
        return np.array(values)

    def forecast(
        self, times: np.ndarray, values: np.ndarray, asked: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Exact mean and variance of measurements at later hours, by a Kalman filter."""
        mean, covariance = np.zeros(2), np.eye(2)
        for gap, value in zip(np.diff(times, prepend=times[:1]), values, strict=True):
            flow = self.flow(gap)
            mean = flow @ mean
            covariance = np.eye(2) + flow @ (covariance - np.eye(2)) @ flow.T
            gain = covariance[:, 0] / (covariance[0, 0] + NOISE**2)
            mean = mean + gain * (value - mean[0])
            covariance = covariance - np.outer(gain, covariance[0])
        flows = [self.flow(hours - times[-1])[0] for hours in asked]
        means = [row @ mean for row in flows]
        variances = [1 + row @ (covariance - np.eye(2)) @ row + NOISE**2 for row in flows]
        return np.array(means), np.array(variances)


PROCESSES = {"ou": Process(0.1, 0.0), "car2": Process(0.015, 2 * math.pi / 12)}


def simulate(process: Process, sampling: str, n_subjects: int, seed: int) -> cn.Cohort:
    """Subjects measured at irregular or regular hours, with their prediction times."""
    generator = np.random.default_rng(seed)
    observations, outcomes = [], []
    for subject in range(n_subjects):
        n = int(2 * HOURS / GAP)
        if sampling == "regular":
            times = generator.uniform(0, GAP) + GAP * np.arange(n)
        else:
            times = np.cumsum(generator.exponential(GAP, n))
        times = times[times < HOURS]
        table = {"time": times, "variable": "y", "value": process.draw(times, generator)}
        observations.append(pd.DataFrame(table).assign(subject_id=subject))
        inside = times[(times > ASKED[0]) & (times < ASKED[1])]
        asked = generator.choice(inside, min(N_TIMES, len(inside)), replace=False)
        outcomes.append(pd.DataFrame({"prediction_time": asked}).assign(subject_id=subject))
    tables = (pd.concat(part, ignore_index=True) for part in (observations, outcomes))
    values, asked = (table[["subject_id", *table.columns[:-1]]] for table in tables)
    return cn.Cohort.from_tables(values, None, None, asked)


def log_density(value: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Of Gaussians, in nats."""
    return -0.5 * (np.log(2 * np.pi * variance) + (value - mean) ** 2 / variance)


def asked_values(run: Any, test: cn.Cohort, process: Process) -> pd.DataFrame:
    """One row a value asked for: hours ahead, whether it is the next, log densities."""
    records = PackedRecords.build(test, run.schema, run.task, with_targets=True)
    subjects = records.instances["subject_id"].to_numpy()
    known = dict(iter(test.observations.groupby("subject_id")))
    center, scale = run.schema.center[0], run.schema.scale[0]
    rows = []
    for batch in in_batches(records):
        assert batch.query_time is not None
        assert batch.target is not None
        with torch.no_grad():
            readout = run.model(batch)
            own = None
            if isinstance(run.model, KalmanLatentODE):
                own = run.model.moments(batch, batch.query_time.nan_to_num(nan=HOURS))
        for place, position in enumerate(batch.subject.tolist()):
            table, at = known[subjects[position]], batch.prediction_time[place].item()
            past = table[table["time"] <= at + 1e-9]
            real = ~batch.query_time[place].isnan()
            hours = batch.query_time[place][real].numpy()
            mean, variance = process.forecast(
                past["time"].to_numpy(), past["value"].to_numpy(), hours
            )
            target = batch.target[place, real, 0].double().numpy()
            told = [readout.value, torch.exp(readout.log_variance)]
            densities = {
                "oracle": log_density(target, (mean - center) / scale, variance / scale**2),
                "model": log_density(target, *(part[place, real, 0].numpy() for part in told)),
            }
            if own is not None:
                moments = (part[place, real, 0].numpy() for part in own)
                densities["filter"] = log_density(target, *moments)
            is_next = hours == hours.min(initial=np.inf)
            rows.append(pd.DataFrame({"ahead": hours - at, "next": is_next, **densities}))
    return pd.concat(rows, ignore_index=True)


def flow_violation(run: Any, test: cn.Cohort) -> float:
    """Relative largest move of the state at the prediction time through empty rows."""
    few = test.select(list(test.subjects[:50]))
    hours = np.random.default_rng(0).uniform(0, ASKED[0], N_EMPTY)
    more = pd.DataFrame(
        {
            "subject_id": np.repeat(few.subjects, N_EMPTY),
            "time": np.tile(hours, len(few.subjects)),
            "variable": "y",
            "value": 0.0,
        }
    )
    observations = pd.concat([few.observations, more], ignore_index=True)
    fuller = cn.Cohort.from_tables(observations, None, None, few.outcomes)
    model, states = copy.deepcopy(run.model).double(), []
    for part in (few, fuller):
        records = PackedRecords.build(part, run.schema, run.task)
        batch = records.batch(range(len(records)), torch.float64)
        is_extra = torch.isin(batch.time, torch.from_numpy(hours))
        batch = batch.without(is_extra.unsqueeze(1).expand_as(batch.mask))
        with torch.no_grad():
            latent = model.latent(batch, batch.prediction_time.unsqueeze(1)).squeeze(1)
        states.append(latent[torch.argsort(batch.subject)])
    plain, split = states
    return float((split - plain).abs().max() / plain.square().mean().sqrt())


def measure(
    name: str, process: str, sampling: str, seed: int, arguments: argparse.Namespace, folder: Path
) -> list[dict[str, Any]]:
    """One run on subjects of its own; for a filter also what that says by itself."""
    train = simulate(PROCESSES[process], sampling, arguments.subjects, 100 + seed)
    test = simulate(PROCESSES[process], sampling, arguments.test_subjects, 1000 + seed)
    run = cn.fit(
        MODELS[name](),
        train,
        task=TASK,
        out=folder / f"{name}-{process}-{sampling}-{seed}",
        seed=seed,
        device="cpu",
        config=replace(cn.FitConfig.recommended(TASK), epochs=arguments.epochs),
        progress=False,
    )
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines if line["event"] == "epoch"][-1]
    asked = asked_values(run, test, PROCESSES[process])
    median = GAP * (math.log(2) if sampling == "irregular" else 1.0)
    is_long = asked["ahead"] >= LONG * median
    parts = {
        "all": np.ones(len(asked), dtype=bool),
        "all_long": is_long,
        "next": asked["next"],
        "next_long": asked["next"] & is_long,
    }
    found = []
    for column in asked.columns.intersection(["model", "filter"]):
        excess = asked["oracle"] - asked[column]
        one = {
            "model": name if column == "model" else f"{name}, its filter",
            "process": process,
            "sampling": sampling,
            "seed": seed,
            **{part: float(excess[rows].mean()) for part, rows in parts.items()},
            "oracle": float(-asked["oracle"].mean()),
            "flow": flow_violation(run, test),
            "has_flow": MODELS[name].flow_error is not None,
            "seconds": seconds,
        }
        print(json.dumps(one), flush=True)
        found.append(one)
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Means over seeds, with the standard deviation between them."""
    frame = pd.DataFrame(found)
    lines = [
        "| process | sampling | model | seeds | all | long | next | long next | flow | seconds |",
        "|---" * 10 + "|",
    ]
    for (process, sampling), group in frame.groupby(["process", "sampling"], sort=False):
        oracle = group.drop_duplicates("seed")["oracle"]
        level = f"{oracle.mean():.3f} nats"
        lines.append(
            f"| {process} | {sampling} | oracle, minus log density | | {level} | | | | | |"
        )
        for name, own in group.groupby("model", sort=False):
            cells = []
            for part in ("all", "all_long", "next", "next_long"):
                values = own[part].to_numpy()
                spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
                cells.append("" if np.isnan(values).all() else f"{values.mean():.3f}{spread}")
            flow = f"{own['flow'].max():.0e}" + ("" if own["has_flow"].all() else " (no flow)")
            cells += [flow, f"{own['seconds'].mean():.0f}"]
            lines.append(f"| {process} | {sampling} | {name} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, fit, score, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--subjects", type=int, default=2000, help="to train on")
    parser.add_argument("--test-subjects", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(DEFAULT_MODELS))
    parser.add_argument("--processes", nargs="+", choices=list(PROCESSES), default=list(PROCESSES))
    samplings = ["irregular", "regular"]
    parser.add_argument("--sampling", nargs="+", choices=samplings, default=samplings)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = [
            one
            for process in arguments.processes
            for sampling in arguments.sampling
            for name in arguments.models
            for seed in arguments.seeds
            for one in measure(name, process, sampling, seed, arguments, Path(scratch))
        ]
    print(f"\n{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, ")
    print(f"clinode {cn.__version__}, torch {torch.__version__}\n")
    print(table(found))


if __name__ == "__main__":
    main()
