"""The simulated cohort: stays observed at irregular times, with an outcome whose causes are known.

Nothing in it comes from a real patient. What is measured when, and what it says, is drawn per
variable; the outcome depends on what was measured, ordered and left unmeasured before the
prediction time, and on nothing else, so what caused it is known row by row.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clinode.cohort import VARIABLES, Cohort, CohortSchema, Variable
from clinode.errors import ArgumentError

from .patients import STAY, Course, Draws, People, draw_people, run_stays

BLOCK = 4096  # subjects simulated at once; what a step costs beside them is then little
OUTCOME = "in_hospital_death"

INTERCEPT = -4.75
LACTATE_HIGH = 2.0  # mmol/L: doublings above it count
LACTATE_WEIGHT = 2.6  # per doubling, averaged over the lactates of the window
LACTATE_MOST = 2.0  # doublings
MAP_LOW = 72.0  # mmHg
MAP_SCALE = 8.0  # mmHg
MAP_WEIGHT = 5.0  # per MAP_SCALE below MAP_LOW, averaged over the pressures of the window
MAP_MOST = 2.0
ORDER_WEIGHT = 0.35  # per lactate ordered
ORDER_MOST = 4
GAP_ALLOWED = 2.0  # h without a pressure before the prediction time
GAP_FULL = 6.0  # h
GAP_WEIGHT = 2.0


@dataclass(frozen=True)
class Sampling:
    """How one variable is measured.

    Args:
        rate: Measurements per hour of a patient nobody worries about.
        worried: Additional measurements per hour at full worry.
        spread: Standard deviation of the error; relative where the error is.
        digits: Decimals charted.
        is_relative: Whether the error multiplies.
    """

    rate: float
    worried: float
    spread: float
    digits: int
    is_relative: bool = False


SAMPLING = {
    "HR": Sampling(0.5, 0.0, 3.0, 0),
    "MAP": Sampling(0.5, 0.0, 3.0, 0),
    "RespRate": Sampling(0.35, 0.0, 1.5, 0),
    "Temp": Sampling(0.15, 0.0, 0.15, 1),
    "Glucose": Sampling(0.15, 0.0, 0.05, 0, is_relative=True),
    "Lactate": Sampling(0.06, 0.25, 0.06, 1, is_relative=True),
    "PaO2": Sampling(0.05, 0.25, 0.2, 0, is_relative=True),
    "Creatinine": Sampling(0.05, 0.0, 0.05, 2, is_relative=True),
    "WBC": Sampling(0.05, 0.0, 0.08, 1, is_relative=True),
    "K": Sampling(0.08, 0.0, 0.25, 1),
    "Na": Sampling(0.06, 0.0, 1.5, 0),
    "Platelets": Sampling(0.05, 0.0, 0.08, 0, is_relative=True),
}
INPUTS = (
    Variable(name="fluids", label="Intravenous fluids", unit="mL/h"),
    Variable(name="norepinephrine", label="Norepinephrine", unit="ug/kg/min"),
    Variable(name="insulin", label="Insulin bolus", unit="U"),
)


def simulate_cohort(n_subjects: int, seed: int, *, first: int = 1) -> Cohort:
    """Intensive care stays of 48 h with a planted outcome, made by `Circulation` and friends.

    Each variable is measured by a Poisson process with a charted error; lactate and PaO2 are
    ordered more often where the clinician worries about pressure or lactate. HR, RespRate, Temp,
    Glucose, Creatinine and WBC tell of the illness but cause nothing; PaO2, K, Na, Platelets and
    the statics do not even do that. Before each subject's prediction time (20 to 28 h):

        logit = -4.75
          + value:    2.6 mean over lactates of min(log2(lactate / 2), 2)  where above 2 mmol/L
                      5.0 mean over MAPs of min((72 - MAP) / 8, 2)         where below 72 mmHg
          + ordering: 0.35 for each of the first four lactates ordered
          + timing:   2.0 min((hours since the last MAP - 2) / 4, 1)       where above 2 h

    Args:
        n_subjects: How many; subject i of a seed is the same in every cohort that has it.
        seed: Not negative.
        first: Id of the first subject; cohorts too large for memory are made part by part.

    Returns:
        A cohort with `planted`: one row a cause: subject_id, kind ("value", "ordering", "timing"),
        time and variable of the measurement, weight on the logit.

    Raises:
        ArgumentError: No subjects, a negative seed, or a first id below 1.
    """
    if n_subjects < 1:
        raise ArgumentError(f"n_subjects must be at least 1, got {n_subjects}")
    if seed < 0:
        raise ArgumentError(f"seed must not be negative, got {seed}")
    if first < 1:
        raise ArgumentError(f"first must be at least 1, got {first}")
    tables = _simulate_tables(range(first - 1, first - 1 + n_subjects), seed)
    return Cohort.from_tables(
        tables["observations"],
        tables["statics"],
        tables["inputs"],
        tables["outcomes"],
        planted=tables["planted"],
        schema=CohortSchema(variables=tuple(VARIABLES[name] for name in SAMPLING), inputs=INPUTS),
    )


def planted_logit(cohort: Cohort) -> np.ndarray:
    """The logit from which each subject's outcome was drawn, (subject,).

    Raises:
        ArgumentError: The cohort has no planted truth.
    """
    planted = cohort.planted
    if planted is None:
        raise ArgumentError("this cohort has no planted truth", fix="simulate_cohort makes one")
    position = pd.Index(cohort.subjects).get_indexer(pd.Index(planted["subject_id"]))
    return INTERCEPT + np.bincount(position, planted["weight"], minlength=len(cohort))


def _simulate_tables(positions: range, seed: int) -> dict[str, pd.DataFrame]:
    blocks = [
        _simulate_block(positions[start : start + BLOCK], seed)
        for start in range(0, len(positions), BLOCK)
    ]
    return {
        name: pd.concat([block[name] for block in blocks], ignore_index=True) for name in blocks[0]
    }


def _simulate_block(positions: range, seed: int) -> dict[str, pd.DataFrame]:
    generators = [np.random.default_rng([seed, position]) for position in positions]
    draws = Draws.of(generators)
    people = draw_people(draws)
    course = run_stays(draws, people)
    subject_ids = np.asarray(positions) + 1
    at = 20 + 0.25 * (33 * draws.uniform[:, 6]).astype(int)
    observed = _observe(generators, draws, course)
    causes = _causes(observed, at)
    logit = INTERCEPT + np.bincount(causes["subject"], causes["weight"], minlength=len(at))
    died = draws.uniform[:, 7] < 1 / (1 + np.exp(-logit))
    for table in (observed, causes):
        table.insert(0, "subject_id", subject_ids[table.pop("subject")])
    return {
        "observations": observed,
        "statics": _statics(subject_ids, draws, people),
        "inputs": _inputs(subject_ids, course),
        "outcomes": pd.DataFrame(
            {"subject_id": subject_ids, "prediction_time": at, OUTCOME: died.astype(int)}
        ),
        "planted": causes,
    }


def _observe(generators: list[np.random.Generator], draws: Draws, course: Course) -> pd.DataFrame:
    """Measurements at the points of Poisson processes, thinned where nobody worries."""
    most = np.array([s.rate + s.worried for s in SAMPLING.values()])
    counts = np.stack([g.poisson(most * STAY) for g in generators])
    totals = counts.sum(axis=1)
    luck = zip(generators, totals, strict=True)
    drawn = [(g.random((2, m)), g.standard_normal(m)) for g, m in luck]
    (time, accept), error = (np.concatenate(part, axis=-1) for part in zip(*drawn, strict=True))
    subject = np.repeat(np.arange(len(counts)), totals)
    variable = np.repeat(np.tile(np.arange(len(most)), len(counts)), counts.ravel())
    time = time * STAY
    truth = {name: _at(rows, subject, time) for name, rows in course.monitor.items()}
    worry = _worry(truth["MAP"], truth["Lactate"])
    truth |= _readings(truth, draws, subject)
    value, rate = np.zeros(len(time)), np.zeros(len(time))
    for i, (name, sampling) in enumerate(SAMPLING.items()):
        own = variable == i
        noise = sampling.spread * error[own]
        true = truth[name][own]
        read = true * np.exp(noise) if sampling.is_relative else true + noise
        value[own] = read.round(sampling.digits)
        rate[own] = (sampling.rate + sampling.worried * worry[own]) / most[i]
    table = pd.DataFrame(
        {
            "subject": subject,
            "time": time,
            "variable": np.array(list(SAMPLING))[variable],
            "value": value,
        }
    )
    kept = accept < rate
    order = np.lexsort((time[kept], subject[kept]))
    return table[kept].iloc[order].reset_index(drop=True)


def _at(rows: np.ndarray, subject: np.ndarray, time: np.ndarray) -> np.ndarray:
    """A course (subject, hour, 3) at times, by lines between its points within the hour."""
    hour = np.minimum(time.astype(int), STAY - 1)
    half = 2 * (time - hour)
    first = np.minimum(half.astype(int), 1)
    left, right = rows[subject, hour, first], rows[subject, hour, first + 1]
    return left + (half - first) * (right - left)


def _worry(pressure: np.ndarray, lactate: np.ndarray) -> np.ndarray:
    """Between 0 and 1, half way at a MAP of 66 mmHg or a lactate of 3 mmol/L."""
    calm = 1 / (1 + np.exp((66 - pressure) / 3)) / (1 + np.exp((lactate - 3) / 0.6))
    return 1 - calm


def _readings(
    truth: dict[str, np.ndarray], draws: Draws, subject: np.ndarray
) -> dict[str, np.ndarray]:
    """True values of what is no state of the circulation; the last four tell nothing."""
    z = draws.normal[subject]
    illness = truth["inflammation"] / (1 + truth["inflammation"])
    return {
        "RespRate": 14 + 2 * z[:, 28] + 8 * illness + 0.8 * (truth["Lactate"] - 1),
        "WBC": 8 * np.exp(0.25 * z[:, 29]) * (1 + 1.5 * illness),
        "PaO2": 105 * np.exp(0.15 * z[:, 30]),
        "K": 4.1 + 0.3 * z[:, 31],
        "Na": 139 + 3 * z[:, 32],
        "Platelets": 210 * np.exp(0.35 * z[:, 33]),
    }


def _causes(observed: pd.DataFrame, at: np.ndarray) -> pd.DataFrame:
    """What moves the logit: rows subject, kind, time, variable, weight, none of them zero."""
    names = ("subject", "time", "variable", "value")
    subject, time, variable, value = (observed[name].to_numpy() for name in names)
    before = time <= at[subject]
    lactate = np.flatnonzero(before & (variable == "Lactate"))
    pressure = np.flatnonzero(before & (variable == "MAP"))
    doublings = np.log2(np.maximum(value[lactate], 1e-3) / LACTATE_HIGH).clip(0, LACTATE_MOST)
    deficit = ((MAP_LOW - value[pressure]) / MAP_SCALE).clip(0, MAP_MOST)
    ordered = lactate[_from_first(subject[lactate]) < ORDER_MOST]
    last = pressure[_from_first(subject[pressure][::-1])[::-1] == 0]
    gap = ((at[subject[last]] - time[last] - GAP_ALLOWED) / (GAP_FULL - GAP_ALLOWED)).clip(0, 1)
    causes = (
        ("value", lactate, LACTATE_WEIGHT * doublings / _n_of_subject(subject[lactate])),
        ("value", pressure, MAP_WEIGHT * deficit / _n_of_subject(subject[pressure])),
        ("ordering", ordered, np.full(len(ordered), ORDER_WEIGHT)),
        ("timing", last, GAP_WEIGHT * gap),
    )
    rows = np.concatenate([rows for _, rows, _ in causes])
    table = pd.DataFrame(
        {
            "subject": subject[rows],
            "kind": np.repeat(
                [kind for kind, _, _ in causes], [len(rows) for _, rows, _ in causes]
            ),
            "time": time[rows],
            "variable": variable[rows],
            "weight": np.concatenate([weight for _, _, weight in causes]),
        }
    )
    order = np.lexsort((table["kind"], table["time"], table["subject"]))
    table = table.iloc[order]
    return table[table["weight"].to_numpy() > 0].reset_index(drop=True)


def _n_of_subject(subject: np.ndarray) -> np.ndarray:
    """How many rows each row's subject has."""
    return np.bincount(subject)[subject] if len(subject) else subject


def _from_first(subject: np.ndarray) -> np.ndarray:
    """How many rows of the same subject stand before each row; subjects stand together."""
    starts = np.flatnonzero(np.append(True, subject[1:] != subject[:-1])[: len(subject)])
    lengths = np.diff(np.append(starts, len(subject)))
    return np.arange(len(subject)) - np.repeat(starts, lengths)


def _inputs(subject_ids: np.ndarray, course: Course) -> pd.DataFrame:
    """Rates as intervals, merged while they do not change; boluses as impulses."""
    rows = []
    for name, rates in (("fluids", course.fluids), ("norepinephrine", course.vasopressor)):
        changes = np.diff(rates, axis=1, prepend=np.nan) != 0
        subject, start = np.nonzero(changes)
        own_next = np.append(subject[1:] == subject[:-1], False)
        end = np.where(own_next, np.append(start[1:], STAY), STAY)
        value = rates[subject, start]
        rows.append(_input_rows(subject_ids[subject], start, end, name, value)[value > 0])
    subject, start = np.nonzero(course.insulin)
    none = np.full(len(start), np.nan)
    units = course.insulin[subject, start]
    rows.append(_input_rows(subject_ids[subject], start, none, "insulin", units))
    return pd.concat(rows).sort_values(["subject_id", "start", "variable"], ignore_index=True)


def _input_rows(
    ids: np.ndarray, start: np.ndarray, end: np.ndarray, name: str, value: np.ndarray
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "subject_id": ids,
            "start": start.astype(float),
            "end": end.astype(float),
            "variable": name,
            "value": value,
        }
    )


def _statics(subject_ids: np.ndarray, draws: Draws, people: People) -> pd.DataFrame:
    """Descriptors; a tenth of the heights and a twentieth of the weights are not known."""
    v = draws.uniform
    return pd.DataFrame(
        {
            "subject_id": subject_ids,
            "age": people.age,
            "gender": people.gender,
            "height": np.where(v[:, 8] < 0.1, np.nan, people.height),
            "weight": np.where(v[:, 9] < 0.05, np.nan, people.weight),
        }
    )
