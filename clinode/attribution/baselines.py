"""What a record is compared with: the baseline of each measured value, treatment and static.

Times and masks stay those of the record; only observed values move to the baseline. Every baseline
is a value that a subject could have. Zero in original units is not one: no heart rate of 0.

A treatment is compared with nothing given, which is what its scale counts from, and a static with
the mean of the training part. `carry` compares a record with its own past: what lies before the
window and what does not change keep their value and so receive exactly 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.attribution.rows import RecordRows
from clinode.cohort import Preprocessor
from clinode.errors import ArgumentError, SchemaError

RANGE_COLUMNS = ("variable", "unit", "sex", "low", "high", "source")
_SEXES = {"female": "female", "f": "female", "0": "female"}
_SEXES |= {"male": "male", "m": "male", "1": "male"}


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """What a baseline may need to know.

    Args:
        window: Of "carry": how far back from the prediction time the window reaches, hours.
        ranges: Of "normal": the table that `read_normal_ranges` gave.
        sex: Of "normal": of each record "female", "male" or "".
    """

    window: float
    ranges: pd.DataFrame
    sex: np.ndarray


def baseline_named(
    name: str, *, may_delete: bool = False
) -> Callable[[RecordRows, BaselineConfig], Tensor] | None:
    """The baseline that a word picks; None for "delete".

    Args:
        name: The word.
        may_delete: Whether the method leaves entries out, so that they may never have been there.

    Raises:
        ArgumentError: It is not one of gradient methods, or unknown.
    """
    if name in BASELINES:
        return BASELINES[name]
    if name == "delete" and may_delete:
        return None
    if name == "delete":
        raise ArgumentError(
            "the baseline 'delete' removes events one after another, so there is no path from it "
            "to the record along which a gradient could be taken",
            fix=f'use one of {", ".join(BASELINES)}, or method="shapley"',
        )
    if name in ("zero", "zeros", "0"):
        raise ArgumentError(
            "a baseline of zero in original units is no value that a subject could have",
            fix=f"use one of {', '.join(BASELINES)}",
        )
    raise ArgumentError(f"unknown baseline {name!r}; there are: {', '.join(BASELINES)}, delete")


def cohort_mean(rows: RecordRows, config: BaselineConfig) -> Float[Tensor, "row width"]:
    """The mean of the training part of each variable; nothing given."""
    baseline = torch.zeros_like(rows.x)
    measured = rows.measured
    mean = rows.records.schema.cohort_mean()[measured.variable]
    baseline[measured.row, measured.column] = torch.from_numpy(mean)
    return baseline


def normal(rows: RecordRows, config: BaselineConfig) -> Float[Tensor, "row width"]:
    """The midpoint of the reference interval, of the subject's sex where the table has one."""
    schema, measured = rows.records.schema, rows.measured
    middle = np.full((len(rows), len(schema.variables)), np.nan)
    for sex in ("", "female", "male"):
        same = config.sex == sex
        middle[same] = midpoints(schema, config.ranges, sex)
    value = schema.standardize(measured.variable, middle[measured.row, measured.variable])
    baseline = torch.zeros_like(rows.x)
    baseline[measured.row, measured.column] = torch.from_numpy(value)
    return baseline


def carry(rows: RecordRows, config: BaselineConfig) -> Float[Tensor, "row width"]:
    """The last value of the same variable before the window; what explains is the change since.

    A variable first measured inside the window is compared with that first value. Treatments begun
    inside the window are compared with nothing given; statics do not change.
    """
    baseline = rows.x.clone()
    measured, given = rows.measured, rows.given
    start = rows.records.prediction_time[rows.positions] - config.window
    order = np.lexsort((measured.time, measured.variable, measured.row))
    row, variable = measured.row[order], measured.variable[order]
    number = np.arange(len(order))
    is_first = np.r_[True, (np.diff(row) != 0) | (np.diff(variable) != 0)][: len(order)]
    before = measured.time[order] <= start[row]
    # the latest that lies before the window or is the first of its series: never another series
    reference = np.maximum.accumulate(np.where(before | is_first, number, 0))
    baseline[row, measured.column[order]] = rows.x[row, measured.column[order][reference]]
    begun = given.time > start[given.row]
    baseline[given.row[begun], given.column[begun]] = 0.0
    return baseline


BASELINES: dict[str, Callable[[RecordRows, BaselineConfig], Tensor]] = {
    "cohort_mean": cohort_mean,
    "normal": normal,
    "carry": carry,
}


def read_normal_ranges(own: pd.DataFrame | Path | str | None = None) -> pd.DataFrame:
    """The shipped table of adult reference intervals, with the caller's rows in place of its own.

    Columns: variable, unit, sex ("female", "male" or empty), low, high, source. A variable that the
    caller's table names in a unit loses all shipped rows in that unit.

    Args:
        own: A table, or the path of a CSV file, with these columns; None for the shipped one alone.

    Raises:
        SchemaError: A column is missing, a bound is not a finite number, an interval is empty, or a
            row names no source.
    """
    shipped = resources.files("clinode.attribution") / "normal_ranges.csv"
    with resources.as_file(shipped) as path:
        table = _checked(pd.read_csv(path, dtype={"sex": str}), "normal_ranges.csv")
    if own is None:
        return table
    if isinstance(own, pd.DataFrame):
        added = _checked(own, "normal_ranges")
    else:
        path = Path(own)
        if not path.is_file():
            raise SchemaError("there is no such file", where=path.name)
        added = _checked(pd.read_csv(path, dtype={"sex": str}), path.name)
    keys = ["variable", "unit"]
    own_keys = set(added[keys].itertuples(index=False, name=None))
    kept = [key not in own_keys for key in table[keys].itertuples(index=False, name=None)]
    return pd.concat([added, table.loc[kept]], ignore_index=True)


def check_ranges(schema: Preprocessor, ranges: pd.DataFrame, measured: set[str]) -> None:
    """Refuse where a measured variable has no reference interval in its unit.

    Raises:
        ArgumentError: Names the variables.
    """
    known = set(zip(ranges["variable"], ranges["unit"], strict=True))
    lacking = [
        f"{name} ({unit})"
        for name, unit in zip(schema.variables, schema.units, strict=True)
        if name in measured and (name, unit) not in known
    ]
    if lacking:
        raise ArgumentError(
            "no reference interval for " + ", ".join(lacking),
            fix="pass normal_ranges= with these variables in these units (columns "
            f'{", ".join(RANGE_COLUMNS)}), or use baseline="cohort_mean"',
        )


def sex_of(statics: pd.DataFrame | None, n_subjects: int) -> np.ndarray:
    """Female, male or "" of each subject, from a static named sex or gender (0 female, 1 male)."""
    columns = [] if statics is None else list(statics.columns)
    for name in columns:
        if str(name).lower() in ("sex", "gender") and statics is not None:
            held = [_sex(value) for value in statics[name].tolist()]
            return np.array(held, dtype=object)
    return np.full(n_subjects, "", dtype=object)


def _sex(value: object) -> str:
    word = f"{value:g}" if isinstance(value, float) else str(value)
    return _SEXES.get(word.strip().lower(), "")


def midpoints(schema: Preprocessor, ranges: pd.DataFrame, sex: str) -> np.ndarray:
    """Of each variable of the schema in its unit; without a sex, of both intervals together."""
    middle = np.full(len(schema.variables), np.nan)
    for position, key in enumerate(zip(schema.variables, schema.units, strict=True)):
        is_own = (ranges["variable"] == key[0]) & (ranges["unit"] == key[1])
        if sex:
            is_own &= ranges["sex"].isin((sex, ""))
        own = ranges.loc[is_own]
        if len(own):
            middle[position] = (own["low"].min() + own["high"].max()) / 2
    return middle


def _checked(table: pd.DataFrame, where: str) -> pd.DataFrame:
    table = table.copy()
    if "sex" not in table.columns:
        table["sex"] = ""
    lacking = [name for name in RANGE_COLUMNS if name not in table.columns]
    if lacking:
        raise SchemaError(
            f"no column {lacking[0]!r}; expected {', '.join(RANGE_COLUMNS)}", where=where
        )
    table = table.loc[:, list(RANGE_COLUMNS)]
    table["sex"] = table["sex"].fillna("").astype(str).str.lower()
    bounds = table[["low", "high"]].apply(pd.to_numeric, errors="coerce")
    wrong = {
        "low and high must be finite numbers": ~np.isfinite(bounds).all(axis=1),
        "low must not lie above high": bounds["low"] > bounds["high"],
        "sex must be 'female', 'male' or empty": ~table["sex"].isin(("", "female", "male")),
        "a source must be named": table["source"].isna()
        | (table["source"].astype(str).str.strip() == ""),
    }
    for problem, rows in wrong.items():
        if rows.any():
            first = int(np.flatnonzero(rows.to_numpy())[0]) + 1
            raise SchemaError(f"{problem}, row {first}", where=where)
    table[["low", "high"]] = bounds
    return table
