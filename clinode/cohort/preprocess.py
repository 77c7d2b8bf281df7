"""The training schema: how measured values become the numbers that a model reads.

Fitted on the training part only and blind to what is predicted: each variable is transformed (a
logarithm where the table of variables says so), clipped to its 0.1-99.9 % training range and
standardised. The same object travels with a run as `schema.json`, standardises every later cohort,
and refuses variables that it has never met. Nothing in it depends on a batch.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from clinode.cohort.cohort import Cohort, CohortArrays
from clinode.cohort.follow_up import Intervals
from clinode.cohort.names import shown_name
from clinode.cohort.schema import Variable
from clinode.cohort.task import Task
from clinode.errors import SchemaError

CLIP_SHARE = 0.001  # share of the training observations beyond each clipping bound
LOG_OFFSET = 0.1  # log(x + 0.1): zeros stay finite; p12-style laboratory values
RARE_LEVEL_SCALE = (
    0.1  # a level held by few subjects is not blown up to dozens of standard deviations
)


@dataclass(frozen=True, kw_only=True)
class StaticColumn:
    """One column of `IrregularBatch.static`: a number, or one level of a categorical static."""

    name: str
    level: float | str | None
    low: float
    high: float
    mean: float
    scale: float


@dataclass(frozen=True, kw_only=True)
class OutcomeScale:
    """How an auxiliary outcome becomes a training target; never used at prediction."""

    name: str
    is_binary: bool
    transform: str
    mean: float
    scale: float


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """What the training part looks like to a model; the parallel tuples follow `variables`.

    Args:
        variables: Names in the order of `IrregularBatch.value`; those with a training observation.
        units: Original units.
        kinds: "continuous", "count", "categorical" or "binary".
        transform: "identity" or "log" (log(x + 0.1)).
        low, high: Clipping bounds on the transformed scale.
        mean: Mean of the transformed, clipped training observations.
        center, scale: standardised = (transformed - center) / scale. Binary variables and those
            without spread keep center 0 and scale 1, so that a constant 1 stays a 1.
        n_observed: Training observations at or before the prediction times.
        unused: Variables of the training cohort without an observation; allowed later, and ignored.
        statics: Columns of `IrregularBatch.static`, categoricals one-hot.
        inputs, input_units, input_low, input_high, input_scale: Treatments; standardised =
            clipped / scale, so that "nothing given" is 0.
        input_is_rate: Whether the training part gave the treatment over a time, not as doses alone.
        auxiliary: Scales of auxiliary outcomes.
        window: Length of the training observation window, hours: every time scale inside a model
            is a multiple of it.
        prediction_time: Hours; where neither a cohort nor the task names one.
        n_subjects: Training subjects.
        intervals: Of follow-up, where the task asks when an event comes.
    """

    variables: tuple[str, ...]
    units: tuple[str, ...]
    kinds: tuple[str, ...]
    transform: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    n_observed: tuple[int, ...]
    unused: tuple[str, ...]
    statics: tuple[StaticColumn, ...]
    inputs: tuple[str, ...]
    input_units: tuple[str, ...]
    input_low: tuple[float, ...]
    input_high: tuple[float, ...]
    input_scale: tuple[float, ...]
    input_is_rate: tuple[bool, ...]
    auxiliary: tuple[OutcomeScale, ...]
    window: float
    prediction_time: float
    n_subjects: int
    intervals: Intervals | None = None

    @classmethod
    def fit(cls, cohort: Cohort, task: Task) -> "Preprocessor":
        """Measure the training part.

        Classification reads observations at or before each subject's last prediction time. A
        forecast also reads its horizon, since its targets are observations of the training part,
        and takes no logarithms: its error is stated on the standardised scale of the values.

        Raises:
            SchemaError: There is no observation to learn from, or an outcome column is missing.
        """
        arrays = cohort.arrays()
        if len(arrays.time) == 0:
            raise SchemaError("the training part has no observation", where="observations")
        table = task.instances(cohort, task.default_time(float(arrays.time.max())))
        until = np.full(len(cohort.subjects), -np.inf)
        np.maximum.at(until, table.subject_index, table.prediction_time)
        reach = task.reach
        used = arrays.time <= until[arrays.subject_index] + reach
        if not used.any():
            raise SchemaError(
                "no training observation lies at or before a prediction time", where="observations"
            )
        observed = _fit_variables(
            cohort.schema.variables,
            arrays.variable_index[used],
            arrays.value[used],
            logarithms=not task.asks_values,
        )
        inputs = _fit_inputs(cohort.schema.inputs, arrays, until)
        intervals = [one.intervals(cohort, table) for one in (task, *task.parts)]
        last = float(table.prediction_time.max())
        window = last - min(0.0, float(arrays.time[used].min()))
        return cls(
            **observed,
            **inputs,
            statics=_fit_statics(cohort),
            auxiliary=_fit_auxiliary(
                cohort, next((part for part in task.parts if part.auxiliary), task)
            ),
            window=window if window > 0 else 1.0,
            prediction_time=task.default_time(float(arrays.time.max())),
            n_subjects=len(cohort.subjects),
            intervals=next(filter(None, intervals), None),
        )

    def check(self, cohort: Cohort) -> None:
        """Refuse observations or treatments of variables that the training part did not have.

        Variables that the cohort lacks are simply never measured.

        Raises:
            SchemaError: Names the unknown variables and how many rows they have.
        """
        arrays = cohort.arrays()
        known = {*self.variables, *self.unused}
        counts = np.bincount(arrays.variable_index, minlength=len(cohort.schema.variables))
        _refuse_unknown("observations", cohort.schema.variables, counts, known)
        counts = np.bincount(arrays.input_variable_index, minlength=len(cohort.schema.inputs))
        _refuse_unknown("inputs", cohort.schema.inputs, counts, set(self.inputs))

    def standardize(self, variable_index: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Original units -> standardised values; `variable_index` points into `variables`."""
        transformed = _transform(np.asarray(self.transform)[variable_index] == "log", value)
        low, high = np.asarray(self.low)[variable_index], np.asarray(self.high)[variable_index]
        center, scale = (
            np.asarray(self.center)[variable_index],
            np.asarray(self.scale)[variable_index],
        )
        return (np.clip(transformed, low, high) - center) / scale

    def restore(self, variable_index: np.ndarray, standardised: np.ndarray) -> np.ndarray:
        """Standardised values -> original units; what clipping cut off does not come back."""
        center, scale = (
            np.asarray(self.center)[variable_index],
            np.asarray(self.scale)[variable_index],
        )
        transformed = standardised * scale + center
        is_log = np.asarray(self.transform)[variable_index] == "log"
        return np.where(
            is_log, np.exp(np.where(is_log, transformed, 0.0)) - LOG_OFFSET, transformed
        )

    def cohort_mean(self) -> np.ndarray:
        """Training mean of each variable on the standardised scale: 0 where it was centered."""
        mean, center, scale = (np.asarray(part) for part in (self.mean, self.center, self.scale))
        return (mean - center) / scale

    def encode_statics(self, statics: pd.DataFrame | None, n_subjects: int) -> np.ndarray:
        """Standardised static columns, (subject, static) float64, NaN where missing.

        A level that the training part never met is missing.
        """
        encoded = np.full((n_subjects, len(self.statics)), np.nan)
        names = [] if statics is None else list(statics.columns)
        levels = {column.name: set() for column in self.statics}
        for column in self.statics:
            levels[column.name].add(column.level)
        for position, column in enumerate(self.statics):
            if statics is None or column.name not in names:
                continue
            held = statics[column.name]
            if column.level is None:
                value = held.to_numpy(dtype=np.float64, na_value=np.nan)
                value = np.clip(value, column.low, column.high)
            else:
                is_known = held.isin(list(levels[column.name])).to_numpy()
                value = np.where(
                    is_known, (held == column.level).to_numpy(dtype=np.float64), np.nan
                )
            encoded[:, position] = (value - column.mean) / column.scale
        return encoded

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, one entry a variable."""
        scalars = {"window", "prediction_time", "n_subjects"}
        data: dict[str, Any] = {name: getattr(self, name) for name in sorted(scalars)}
        data["unused"] = list(self.unused)
        data["variables"] = [
            dict(zip(_VARIABLE_FIELDS, row, strict=True))
            for row in zip(*(getattr(self, name) for name in _VARIABLE_FIELDS), strict=True)
        ]
        data["inputs"] = [
            dict(zip(_INPUT_FIELDS, row, strict=True))
            for row in zip(*(getattr(self, name) for name in _INPUT_FIELDS), strict=True)
        ]
        data["statics"] = [asdict(column) for column in self.statics]
        data["auxiliary"] = [asdict(column) for column in self.auxiliary]
        if self.intervals is not None:
            data["intervals"] = self.intervals.to_dict()
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Preprocessor":
        """The schema that `to_dict` wrote.

        Raises:
            SchemaError: A field is missing.
        """
        try:
            parts = {
                name: tuple(entry[name] for entry in data[group])
                for group, names in (("variables", _VARIABLE_FIELDS), ("inputs", _INPUT_FIELDS))
                for name in names
            }
            return cls(
                **parts,
                unused=tuple(data["unused"]),
                statics=tuple(StaticColumn(**entry) for entry in data["statics"]),
                auxiliary=tuple(OutcomeScale(**entry) for entry in data["auxiliary"]),
                window=data["window"],
                prediction_time=data["prediction_time"],
                n_subjects=data["n_subjects"],
                intervals=Intervals.from_dict(data["intervals"]) if "intervals" in data else None,
            )
        except (KeyError, TypeError) as error:
            raise SchemaError(
                f"the stored schema is not one of this version: {error}", where="schema.json"
            ) from None


_VARIABLE_FIELDS = (
    "variables",
    "units",
    "kinds",
    "transform",
    "low",
    "high",
    "mean",
    "center",
    "scale",
    "n_observed",
)
_INPUT_FIELDS = (
    "inputs",
    "input_units",
    "input_low",
    "input_high",
    "input_scale",
    "input_is_rate",
)


def _transform(is_log: np.ndarray, value: np.ndarray) -> np.ndarray:
    positive = np.maximum(value + LOG_OFFSET, LOG_OFFSET)  # a negative value counts as none
    return np.where(is_log, np.log(positive), value)


def _fit_variables(
    variables: tuple[Variable, ...], index: np.ndarray, value: np.ndarray, *, logarithms: bool
) -> dict[str, Any]:
    counts = np.bincount(index, minlength=len(variables))
    order = np.argsort(index, kind="stable")
    groups = np.split(value[order], np.cumsum(counts)[:-1])
    columns: dict[str, list] = {name: [] for name in _VARIABLE_FIELDS}
    for variable, held in zip(variables, groups, strict=True):
        if len(held) == 0:
            continue
        is_log = logarithms and variable.transform == "log"
        transformed = _transform(np.asarray(is_log), held)
        low, high = np.quantile(transformed, (CLIP_SHARE, 1 - CLIP_SHARE))
        clipped = np.clip(transformed, low, high)
        mean, spread = float(clipped.mean()), float(clipped.std())
        is_scaled = variable.kind != "binary" and spread > 0
        row = (
            variable.name,
            variable.unit,
            variable.kind,
            "log" if is_log else "identity",
            float(low),
            float(high),
            mean,
            mean if is_scaled else 0.0,
            spread if is_scaled else 1.0,
            len(held),
        )
        for name, entry in zip(_VARIABLE_FIELDS, row, strict=True):
            columns[name].append(entry)
    unused = tuple(v.name for v, n in zip(variables, counts, strict=True) if n == 0)
    return {**{name: tuple(column) for name, column in columns.items()}, "unused": unused}


def _fit_inputs(
    inputs: tuple[Variable, ...], arrays: CohortArrays, until: np.ndarray
) -> dict[str, Any]:
    used = arrays.input_start <= until[arrays.input_subject_index]
    columns: dict[str, list] = {name: [] for name in _INPUT_FIELDS}
    for position, variable in enumerate(inputs):
        own = used & (arrays.input_variable_index == position)
        held, is_rate = arrays.input_value[own], np.isfinite(arrays.input_end[own]).any()
        low, high = np.quantile(held, (CLIP_SHARE, 1 - CLIP_SHARE)) if len(held) else (0.0, 0.0)
        size = float(np.sqrt(np.mean(np.clip(held, low, high) ** 2))) if len(held) else 0.0
        scale = size if size > 0 else 1.0
        row = (variable.name, variable.unit, float(low), float(high), scale, bool(is_rate))
        for name, entry in zip(_INPUT_FIELDS, row, strict=True):
            columns[name].append(entry)
    return {name: tuple(column) for name, column in columns.items()}


def _fit_statics(cohort: Cohort) -> tuple[StaticColumn, ...]:
    columns = []
    for variable in cohort.schema.statics:
        if cohort.statics is None or variable.name not in cohort.statics.columns:
            continue
        held = cohort.statics[variable.name].dropna()
        if len(held) == 0:
            continue
        if variable.kind == "categorical":
            for level in sorted(held.unique().tolist()):
                share = float((held == level).mean())
                spread = max((share * (1 - share)) ** 0.5, RARE_LEVEL_SCALE)
                columns.append(
                    StaticColumn(
                        name=variable.name, level=level, low=0.0, high=1.0, mean=share, scale=spread
                    )
                )
            continue
        value = held.to_numpy(dtype=np.float64)
        low, high = (float(bound) for bound in np.quantile(value, (CLIP_SHARE, 1 - CLIP_SHARE)))
        value = np.clip(value, low, high)
        mean, spread = float(value.mean()), float(value.std())
        columns.append(
            StaticColumn(
                name=variable.name,
                level=None,
                low=low,
                high=high,
                mean=mean,
                scale=spread if spread > 0 else 1.0,
            )
        )
    return tuple(columns)


def _fit_auxiliary(cohort: Cohort, task: Task) -> tuple[OutcomeScale, ...]:
    rows = np.arange(len(cohort.outcomes) if cohort.outcomes is not None else 0)
    targets = task.targets(cohort, rows) if task.auxiliary else None
    if targets is None:
        return ()
    scales = []
    for position, name in enumerate(task.auxiliary, start=targets.shape[1] - len(task.auxiliary)):
        known = targets[:, position][~np.isnan(targets[:, position])]
        is_binary = bool(np.isin(known, (0.0, 1.0)).all())
        is_log = not is_binary and bool(
            (known >= 0).all()
        )  # durations and scores: long right tails
        shown = np.log1p(known) if is_log else known
        spread = float(shown.std()) if len(known) and not is_binary else 0.0
        scales.append(
            OutcomeScale(
                name=name,
                is_binary=is_binary,
                transform="log1p" if is_log else "identity",
                mean=float(shown.mean()) if len(known) and not is_binary else 0.0,
                scale=spread if spread > 0 else 1.0,
            )
        )
    return tuple(scales)


def _refuse_unknown(
    table: str, variables: tuple[Variable, ...], counts: np.ndarray, known: set[str]
) -> None:
    unknown = [
        (variable.name, int(count))
        for variable, count in zip(variables, counts, strict=True)
        if count and variable.name not in known
    ]
    if unknown:
        named = ", ".join(f"{shown_name(name)!r} ({count} rows)" for name, count in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise SchemaError(
            f"variables unknown to the training part: {named}{more}",
            where=table,
            fix="drop these rows, rename them to the trained variables, or train with them",
        )
