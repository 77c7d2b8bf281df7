"""What a cohort's data look like, and what about them is suspicious.

Findings are reported and change nothing. A suspicion that is right becomes a line of the policy:
`suggest_policy` writes it, a person decides.
"""

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from clinode.cohort.cohort import Cohort, CohortArrays
from clinode.cohort.fingerprint import FEWEST_SUBJECTS
from clinode.cohort.names import names_of, shown_name
from clinode.cohort.policy import Policy
from clinode.cohort.read import Table, read_cohort
from clinode.cohort.schema import Conversion, Variable
from clinode.cohort.units import OtherUnit, other_units

FEWEST_VALUES = 200  # of a variable, to speak of its distribution
SPIKE_SHARE = 0.005  # of the values, to call one value a spike
UNIT_SHARE = 0.001  # of the values, to suspect another unit
RATIO_TOLERANCE = 0.03  # between the medians of two modes and a known factor
VALLEY = 0.15  # of the distance between two modes, at least, is empty between them
FEWEST_LEVELS = 10  # different values of a variable that is not a score
MANY_IMPOSSIBLE = 0.05  # of the values of a variable


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something to look at.

    Args:
        kind: "order", "empty", "ids", "impossible", "sentinel", "unit", "duplicate", "time" or
            "mapping".
        table: Where.
        variable: Which, or empty.
        rows: How many rows, subjects or variables it is about.
        text: In words, without a value of any one subject.
        sentinel: What a policy could take for "missing".
        conversion: What a policy could convert.
    """

    kind: str
    table: str
    variable: str = ""
    rows: int
    text: str
    sentinel: float | None = None
    conversion: Conversion | None = None


def check(data: Cohort | Table, format: str | None = None) -> dict[str, Any]:
    """Look a cohort over.

    Args:
        data: A cohort, or what `read_cohort` reads without being told more.
        format: See `read_cohort`.

    Returns:
        "source", "ledger" (rows by table, action, reason and variable), "balanced", "findings",
        "fingerprint", and "suggested_policy" as YAML text to edit.

    Raises:
        SchemaError: The data cannot be read as a cohort.
    """
    cohort = data if isinstance(data, Cohort) else read_cohort(data, format)
    findings = find_suspicions(cohort)
    shown = {"": ""} | {v.name: v.name for v in cohort.schema.statics} | names_of(cohort)

    def called(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "variable": shown_name(row["variable"], shown)}

    return {
        "source": _told(cohort.source, shown),
        "n_subjects": len(cohort),
        "n_observations": cohort.n_observations,
        "ledger": [called(row) for row in cohort.ledger.by_variable().to_dict("records")],
        "balanced": cohort.ledger.balanced,
        "findings": [called(asdict(finding)) for finding in findings],
        "fingerprint": cohort.fingerprint(),
        "suggested_policy": suggest_policy(cohort, findings),
    }


def _told(source: dict[str, Any], shown: dict[str, str]) -> dict[str, Any]:
    """What is known of the source, without texts of few subjects in place of names."""
    return {
        key: {shown_name(name, shown): of for name, of in facts.items()}
        if key in ("impossible", "unmapped")
        else facts
        for key, facts in source.items()
    }


def find_suspicions(cohort: Cohort) -> list[Finding]:
    """Everything about a cohort that a person should look at."""
    arrays = cohort.arrays()
    findings = [*_order(cohort), *_empty(cohort, arrays), *_ids(cohort), *_times(arrays)]
    findings += [*_duplicates(arrays), *_unmapped(cohort)]
    order = np.argsort(arrays.variable_index, kind="stable")
    ends = np.searchsorted(
        arrays.variable_index[order], np.arange(len(cohort.schema.variables) + 1)
    )
    for position, variable in enumerate(cohort.schema.variables):
        rows = order[ends[position] : ends[position + 1]]
        findings += _impossible(cohort, variable, arrays.value[rows])
        if variable.kind == "continuous" and len(rows) >= FEWEST_VALUES:
            spike = find_spike(variable, arrays.value[rows], arrays.subject_index[rows])
            findings += [spike] if spike else find_other_unit(variable, arrays.value[rows])
    return findings


def find_spike(variable: Variable, value: np.ndarray, subject: np.ndarray) -> Finding | None:
    """One value that is frequent and far from all others: an undeclared sentinel, perhaps.

    Args:
        variable: Whose values.
        value: (observation,).
        subject: (observation,) whose record each is; a value of few subjects is never named.
    """
    candidates, counts = np.unique(value, return_counts=True)
    if len(candidates) <= FEWEST_LEVELS:
        return None
    for candidate, count in zip(candidates, counts, strict=True):
        if count < SPIKE_SHARE * len(value) or count == len(value):
            continue
        is_spike = value == candidate
        if len(np.unique(subject[is_spike])) < FEWEST_SUBJECTS:
            continue
        low, high = np.quantile(value[~is_spike], (0.001, 0.999))
        # beyond the others by a quarter of their span: a scale that ends at 100 has no spike there
        distance = max(low - candidate, candidate - high)
        if distance > 0.25 * (high - low) and distance > 0:
            return Finding(
                kind="sentinel",
                table="observations",
                variable=variable.name,
                rows=int(count),
                text=f"{count:,} of {len(value):,} values are {candidate:g}, far from all others",
                sentinel=float(candidate),
            )
    return None


def find_other_unit(variable: Variable, value: np.ndarray) -> list[Finding]:
    """Two groups of values whose medians differ by a known factor between units.

    The smaller group must lie apart: hardly any value between the two.
    """
    for unit in other_units(variable):
        group = _group_in_unit(value, unit)
        if group is None:
            continue
        low, high, count = group
        return [
            Finding(
                kind="unit",
                table="observations",
                variable=variable.name,
                rows=count,
                text=f"{count:,} of {len(value):,} values look like {unit.unit} "
                f"under {variable.unit}",
                conversion=Conversion(
                    low=low,
                    high=high,
                    scale=unit.scale,
                    offset=unit.offset,
                    reason=f"{unit.unit} under {variable.unit}",
                ),
            )
        ]
    return []


def suggest_policy(cohort: Cohort, findings: list[Finding]) -> str:
    """The cohort's policy with what the findings suggest, as YAML to edit.

    Every suggestion stands in force in the text: delete what is not right before it is used.
    """
    policy = cohort.policy
    sentinels = {name: tuple(values) for name, values in policy.sentinels.items()}
    conversions = {name: tuple(rules) for name, rules in policy.conversions.items()}
    lines = ["# A policy for read_cohort(policy=...). Delete what is not right.", "#"]
    lines += [f"# {f.table} {f.variable}: {f.text}".replace(" : ", ": ") for f in findings]
    for finding in findings:
        if finding.sentinel is not None:
            held = sentinels.get(finding.variable, ())
            sentinels[finding.variable] = tuple(sorted({*held, finding.sentinel}))
        if finding.conversion is not None:
            shipped = cohort.schema.variable(finding.variable).conversions
            held = conversions.get(finding.variable, shipped)
            conversions[finding.variable] = (*held, finding.conversion)
    suggested: Policy = replace(policy, sentinels=sentinels, conversions=conversions)
    return "\n".join(lines) + "\n" + suggested.to_yaml()


def _group_in_unit(value: np.ndarray, unit: OtherUnit) -> tuple[float, float, int] | None:
    """Edges and size of a separate group of values that `unit` brings onto the rest."""
    fewest = max(5, int(np.ceil(UNIT_SHARE * len(value))))
    median = np.median(value)
    expected = (median - unit.offset) / unit.scale
    middle = np.sqrt(abs(expected * median)) if expected * median > 0 else (expected + median) / 2
    is_other = value > middle if expected > median else value < middle
    count = int(is_other.sum())
    if not fewest <= count <= len(value) / 2:
        return None
    other, rest = value[is_other], value[~is_other]
    converted = other * unit.scale + unit.offset
    spread = np.subtract(*np.quantile(rest, (0.75, 0.25)))
    error = 2.8 * spread / np.sqrt(count)  # three standard errors of a normal sample's median
    if abs(np.median(converted) - np.median(rest)) > max(
        RATIO_TOLERANCE * abs(np.median(rest)), error
    ):
        return None
    other_spread = np.subtract(*np.quantile(converted, (0.75, 0.25)))
    if not spread / 4 <= other_spread + 1e-12 <= 4 * spread + 1e-12:
        return None
    low, high = np.quantile(rest, (0.01, 0.99))
    if not low <= np.quantile(converted, 0.1) <= np.quantile(converted, 0.9) <= high:
        return None
    # between the bulks of the two groups lies a valley, or one group was only cut in two
    inner, outer = (
        (np.quantile(rest, 0.995), np.quantile(other, 0.05))
        if expected > median
        else (np.quantile(other, 0.95), np.quantile(rest, 0.005))
    )
    if outer - inner < VALLEY * abs(expected - median):
        return None
    return float(other.min()), float(other.max()), count


def _order(cohort: Cohort) -> list[Finding]:
    return [
        Finding(kind="order", table=table, rows=rows, text=f"rows out of order: {rows:,}")
        for table, rows in cohort.source.get("out_of_order", {}).items()
        if rows
    ]


def _unmapped(cohort: Cohort) -> list[Finding]:
    """Codes with numbers that the mapping of a MEDS reader has not."""
    return [
        Finding(
            kind="mapping",
            table="events",
            variable=code,
            rows=rows,
            text=f"rows of a code that the mapping has not: {rows:,}",
        )
        for code, rows in cohort.source.get("unmapped", {}).items()
    ]


def _empty(cohort: Cohort, arrays: CohortArrays) -> list[Finding]:
    counts = np.diff(arrays.row_start)
    measured = np.bincount(arrays.variable_index, minlength=len(cohort.schema.variables))
    findings = [
        Finding(
            kind="empty",
            table="observations",
            variable=variable.name,
            rows=0,
            text="the variable is never measured",
        )
        for variable, count in zip(cohort.schema.variables, measured, strict=True)
        if count == 0
    ]
    for wanted, what in ((0, "no observation"), (1, "one observation")):
        rows = int((counts == wanted).sum())
        if rows:
            text = f"subjects with {what}: {rows:,}"
            findings.append(Finding(kind="empty", table="observations", rows=rows, text=text))
    if cohort.schema.outcomes:
        known = len(set(cohort.outcomes["subject_id"].tolist()))
        if known < len(cohort):
            rows = len(cohort) - known
            text = f"subjects without a row of outcomes: {rows:,}"
            findings.append(Finding(kind="empty", table="outcomes", rows=rows, text=text))
    return findings


def _ids(cohort: Cohort) -> list[Finding]:
    if cohort.subjects.dtype.kind == "i":
        return []
    texts = [str(subject) for subject in cohort.subjects]
    plain = {text.lstrip("0") for text in texts if text.isdecimal()}
    padded = sum(text.isdecimal() and text[0] == "0" and text != "0" for text in texts)
    findings = []
    if padded and len(plain) < sum(text.isdecimal() for text in texts):
        text = "ids differ only by leading zeros; they are kept apart"
        findings.append(Finding(kind="ids", table="subjects", rows=padded, text=text))
    scientific = sum(_is_scientific(text) for text in texts)
    if scientific:
        text = "ids in scientific notation: a spreadsheet has rounded them"
        findings.append(Finding(kind="ids", table="subjects", rows=scientific, text=text))
    return findings


def _is_scientific(text: str) -> bool:
    mantissa, mark, exponent = text.upper().partition("E+")
    return bool(mark) and exponent.isdecimal() and mantissa.replace(".", "", 1).isdecimal()


def _times(arrays: CohortArrays) -> list[Finding]:
    before = int((arrays.time < 0).sum())
    if not before:
        return []
    text = f"observations before time zero: {before:,}"
    return [Finding(kind="time", table="observations", rows=before, text=text)]


def _duplicates(arrays: CohortArrays) -> list[Finding]:
    """Subjects whose records are equal in every time, variable and value."""
    seen: set[bytes] = set()
    repeated = 0
    columns = (arrays.time, arrays.variable_index, arrays.value)
    for start, end in zip(arrays.row_start[:-1], arrays.row_start[1:], strict=True):
        if end - start < 5:  # short records may be equal by chance
            continue
        digest = hashlib.blake2b(digest_size=16)
        for column in columns:
            digest.update(column[start:end].tobytes())
        repeated += digest.digest() in seen
        seen.add(digest.digest())
    if not repeated:
        return []
    text = f"subjects with the very record of another one: {repeated:,}"
    return [Finding(kind="duplicate", table="observations", rows=repeated, text=text)]


def _impossible(cohort: Cohort, variable: Variable, value: np.ndarray) -> list[Finding]:
    """Many impossible values, and what unit would make them possible."""
    facts = cohort.source.get("impossible", {}).get(variable.name)
    if facts is None or variable.range is None:
        return []
    count, median = facts["rows"], facts["median"]
    if median is not None and len(value) >= FEWEST_SUBJECTS:
        low, high = np.quantile(value, (0.1, 0.9))
        for unit in other_units(variable):
            if low <= median * unit.scale + unit.offset <= high:
                text = f"impossible values that would be possible in {unit.unit}: {count:,}"
                return [
                    Finding(
                        kind="unit",
                        table="observations",
                        variable=variable.name,
                        rows=count,
                        text=text,
                        conversion=_conversion_outside(variable, unit),
                    )
                ]
    if count < MANY_IMPOSSIBLE * (count + len(value)):
        return []
    text = f"{count:,} of {count + len(value):,} values are impossible in {variable.unit}"
    return [
        Finding(
            kind="impossible", table="observations", variable=variable.name, rows=count, text=text
        )
    ]


def _conversion_outside(variable: Variable, unit: OtherUnit) -> Conversion | None:
    """Convert what lies outside the range and would lie inside in another unit."""
    if variable.range is None:
        return None
    edges = sorted((bound - unit.offset) / unit.scale for bound in variable.range)
    low, high = edges
    if low < variable.range[0]:
        high = min(high, np.nextafter(variable.range[0], -np.inf))
    else:
        low = max(low, np.nextafter(variable.range[1], np.inf))
    if low > high:
        return None
    return Conversion(
        low=float(low),
        high=float(high),
        scale=unit.scale,
        offset=unit.offset,
        reason=f"{unit.unit} under {variable.unit}",
    )
