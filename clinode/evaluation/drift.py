"""How far a cohort has moved from the one that a model was trained on, by its fingerprint.

A fingerprint holds no record: quantiles of each variable, how many subjects have it, how often it
is measured. The new cohort's share of values between those quantiles gives a population stability
index, PSI = sum (q - p) log(q / p); what chance alone would give, with subjects as they differ, is
taken by a centered bootstrap over subjects. A shift of values, of missingness, of units or of
outcome frequency does not say that the model fails there, nor its absence that it works: evaluate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from clinode.cohort import Cohort
from clinode.cohort.fingerprint import arrays_until
from clinode.cohort.names import names_of
from clinode.errors import ArgumentError

SHIFT, LARGE_SHIFT = 0.1, 0.25  # of a PSI, as the field reads it
SHARE_SHIFT = 0.1  # of a share of subjects, or of the log10 of a rate
N_RESAMPLES = 200
LEVEL = 0.99  # of what chance alone gives
TWO_SIDED = 2.576  # standard errors, the same level
_FEWEST = 11  # subjects behind any number that is shown
_LEAST = 1e-4  # share of a bin: an empty one would make the index infinite


@dataclass(frozen=True, eq=False)
class Drift:
    """What differs between a cohort and the training part.

    Attributes:
        table: One row a comparison: kind ("value", "missing", "rate", "unit", "unknown", "absent",
            "outcome"), name, expected (training), found (here), measure (PSI, difference of shares
            or of log10 rates), chance (what chance alone stays below, 99 %), verdict ("large
            shift", "shift", "within chance", "small", "undecided: why").
        n_subjects: Of this cohort.
        verdict: In words.
    """

    table: pd.DataFrame
    n_subjects: int
    verdict: str

    def to_pandas(self) -> pd.DataFrame:
        """The comparisons, the largest shifts first."""
        return self.table

    def to_dict(self) -> dict[str, Any]:
        """For JSON; None where a number is not known."""
        rows = [
            {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()}
            for row in self.table.to_dict("records")
        ]
        return {"verdict": self.verdict, "n_subjects": self.n_subjects, "comparisons": rows}


def compare_fingerprint(
    training: Mapping[str, Any],
    cohort: Cohort,
    until: Float[np.ndarray, " subject"] | None = None,
    *,
    seed: int = 0,
) -> Drift:
    """Compare a cohort with the fingerprint of a training part.

    Args:
        training: What `fingerprint` gave of it.
        cohort: The new one.
        until: Hours up to which each subject's observations count, as for the training part.
        seed: Of the resamples.

    Raises:
        ArgumentError: The cohort is empty, or the other thing is no fingerprint.
    """
    if not len(cohort):
        raise ArgumentError("the cohort has no subject to compare")
    if "variables" not in training or "n_subjects" not in training:
        raise ArgumentError("this is no fingerprint of a cohort", fix="give cohort.fingerprint()")
    rng = np.random.default_rng(seed)
    rows = _variables(training, cohort, until, rng) + _outcomes(training, cohort)
    columns = ["kind", "name", "expected", "found", "measure", "chance", "verdict"]
    rows.sort(key=_by_size)
    return Drift(pd.DataFrame(rows, columns=columns), len(cohort), _summary(rows))


_ORDER = {"large shift": 0, "shift": 1, "small": 2, "within chance": 3}
Row = tuple[str, str, str, str, float, float, str]


def _variables(
    training: Mapping[str, Any],
    cohort: Cohort,
    until: np.ndarray | None,
    rng: np.random.Generator,
) -> list[Row]:
    arrays = arrays_until(cohort, until)
    trained = {entry["name"] for entry in training["variables"]}
    shown = names_of(cohort)
    here = {  # as the fingerprint of the training part calls them
        variable.name if variable.name in trained else shown[variable.name]: k
        for k, variable in enumerate(cohort.schema.variables)
    }
    n_training = _number(training["n_subjects"])
    rows: list[Row] = []
    for entry in training["variables"]:
        name = entry["name"]
        if name not in here:
            words = "never measured here: every subject counts as without it"
            rows.append(("absent", name, _percent(_measured(entry)), "0 %", 1.0, 0.0, words))
            continue
        position = here[name]
        unit = cohort.schema.variables[position].unit
        if unit != entry["unit"]:
            rows.append(
                ("unit", name, str(entry["unit"]), str(unit), np.nan, np.nan, "large shift")
            )
        own = arrays.variable_index == position
        subject, value = arrays.subject_index[own], arrays.value[own]
        rows.append(_missing(entry, name, subject, len(cohort), n_training))
        rows.append(_rate(entry, name, subject))
        rows.append(_values(entry, name, subject, value, n_training, rng))
    rows += [
        ("unknown", name, "not in training", "measured here", np.nan, np.nan, "large shift")
        for name in here
        if name not in trained
    ]
    return rows


def _values(
    entry: Mapping[str, Any],
    name: str,
    subject: np.ndarray,
    value: np.ndarray,
    n_training: float,
    rng: np.random.Generator,
) -> Row:
    quantiles = entry["quantiles"]
    if not quantiles or len(value) == 0:
        why = "nothing measured" if quantiles else "the training part has too few subjects"
        return ("value", name, "", "", np.nan, np.nan, f"undecided: {why}")
    # where several quantiles share one value, all mass up to the last of them lies at or below it
    upto = {edge: float(level) for level, edge in quantiles.items()}
    edges = np.array(list(upto))
    expected = np.diff(np.concatenate([[0.0], list(upto.values()), [1.0]]))
    bins = np.searchsorted(edges, value, side="left")  # (lower edge, upper edge]
    whose, position = np.unique(subject, return_inverse=True)
    counts = np.zeros((len(whose), len(expected)))
    np.add.at(counts, (position, bins), 1.0)
    share = counts.sum(axis=0) / len(value)
    measure = _stability(expected, share)
    draws = rng.multinomial(len(whose), np.full(len(whose), 1 / len(whose)), N_RESAMPLES)
    drawn = draws @ counts
    drawn = drawn / drawn.sum(axis=1, keepdims=True)
    # both samples vary: the training part as this one would at its size
    wider = np.sqrt(1 + len(whose) / max(n_training, 1.0))
    alike = np.clip(expected + (drawn - share) * wider, 0.0, None)
    chance = float(np.quantile([_stability(expected, one) for one in alike], LEVEL))
    return (
        "value",
        name,
        f"median {quantiles['0.5']:.4g}" if "0.5" in quantiles else "",
        f"median {np.median(value):.4g}" if len(whose) >= _FEWEST else "",
        measure,
        chance,
        _verdict(measure, chance, SHIFT, LARGE_SHIFT),
    )


def _stability(expected: np.ndarray, share: np.ndarray) -> float:
    p, q = np.maximum(expected, _LEAST), np.maximum(share, _LEAST)
    return float(((q - p) * np.log(q / p)).sum())


def _missing(
    entry: Mapping[str, Any], name: str, subject: np.ndarray, n: int, n_training: float
) -> Row:
    expected = _measured(entry)
    share = len(np.unique(subject)) / n
    if np.isnan(expected):
        return ("missing", name, "", _percent(share), np.nan, np.nan, "undecided: too few subjects")
    pooled = (share * n + expected * n_training) / (n + n_training)
    error = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / max(n_training, 1.0)))
    chance = TWO_SIDED * error
    measure = share - expected
    verdict = _verdict(abs(measure), chance, SHARE_SHIFT, 3 * SHARE_SHIFT)
    return ("missing", name, _percent(expected), _percent(share), measure, chance, verdict)


def _rate(entry: Mapping[str, Any], name: str, subject: np.ndarray) -> Row:
    """Observations a subject that has any, on a log10 scale."""
    n_with = _number(entry["n_subjects"])
    whose, count = np.unique(subject, return_counts=True)
    if not n_with or not entry["n"] or not len(whose):
        return ("rate", name, "", "", np.nan, np.nan, "undecided: too few subjects")
    expected, found = entry["n"] / n_with, float(count.mean())
    measure = float(np.log10(found / expected))
    spread = count.std(ddof=1) / found if len(whose) > 1 else np.inf
    chance = TWO_SIDED / np.log(10) * spread * np.sqrt(1 / len(whose) + 1 / n_with)
    verdict = _verdict(abs(measure), chance, SHARE_SHIFT, 3 * SHARE_SHIFT)
    return ("rate", name, f"{expected:.3g} a subject", f"{found:.3g} a subject", measure, chance,
            verdict)  # fmt: skip


def _outcomes(training: Mapping[str, Any], cohort: Cohort) -> list[Row]:
    here = {entry["name"]: entry for entry in cohort.fingerprint()["outcomes"]}
    rows: list[Row] = []
    for entry in training.get("outcomes", []):
        found = here.get(entry["name"])
        if found is None or "n_positive" not in entry or "n_positive" not in found:
            continue
        n, positive = _number(entry["n"]), _number(entry["n_positive"])
        m, seen = _number(found["n"]), _number(found["n_positive"])
        name = entry["name"]
        if not n or not m or np.isnan(positive) or np.isnan(seen):
            rows.append(("outcome", name, "", "", np.nan, np.nan, "undecided: too few subjects"))
            continue
        pooled = (positive + seen) / (n + m)
        chance = TWO_SIDED * np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
        measure = seen / m - positive / n
        verdict = _verdict(abs(measure), chance, SHARE_SHIFT / 2, 3 * SHARE_SHIFT / 2)
        rows.append(
            ("outcome", name, _percent(positive / n), _percent(seen / m), measure, chance, verdict)
        )
    return rows


def _measured(entry: Mapping[str, Any]) -> float:
    return float("nan") if entry["missing"] is None else 1 - entry["missing"]


def _number(told: int | str) -> float:
    """A count, NaN where the fingerprint only says that it is small."""
    return float(told) if isinstance(told, int | float) else float("nan")


def _verdict(measure: float, chance: float, shift: float, large: float) -> str:
    if measure <= chance:
        return "within chance"
    if measure >= large:
        return "large shift"
    return "shift" if measure >= shift else "small"


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.0f} %"


def _by_size(row: Row) -> tuple[int, float, str, str]:
    kind, name, _, _, measure, _, verdict = row
    size = 0.0 if np.isnan(measure) else abs(measure)
    return _ORDER.get(verdict, len(_ORDER)), -size, kind, name


def _summary(rows: list[Row]) -> str:
    verdicts, kinds = [row[-1] for row in rows], [row[0] for row in rows]
    large, some = verdicts.count("large shift"), verdicts.count("shift")
    absent, unknown = kinds.count("absent"), kinds.count("unknown")
    told = f"{large} large and {some} smaller shifts in {len(rows)} comparisons"
    if absent:
        told += f"; {absent} variables of the training part are never measured here"
    if unknown:
        told += f"; {unknown} variables here are unknown to the model"
    return told + "; a shift says where to look, not whether the model still works: evaluate"
