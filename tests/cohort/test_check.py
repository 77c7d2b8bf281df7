import json

import numpy as np
import pandas as pd
import pytest
import yaml

from clinode.cohort import VARIABLES, Cohort, Policy, Variable, check, read_cohort
from clinode.cohort.check import find_other_unit, find_spike
from clinode.cohort.units import other_units


def cohort_of(columns, n=2000, seed=0):
    generator = np.random.default_rng(seed)
    frames = []
    for name, value in columns.items():
        frames.append(
            pd.DataFrame(
                {
                    "subject_id": generator.integers(0, 100, n),
                    "time": np.arange(n, dtype=float),
                    "variable": name,
                    "value": value(generator, n),
                }
            )
        )
    return Cohort.from_tables(pd.concat(frames))


def normal(mean, sd):
    return lambda generator, n: generator.normal(mean, sd, n)


def mixed(first, second, share):
    def draw(generator, n):
        is_second = generator.random(n) < share
        return np.where(is_second, second(generator, n), first(generator, n))

    return draw


def kinds(found):
    return {(finding["kind"], finding["variable"]) for finding in found["findings"]}


# mean, sd of a variable, and the unit that one row in a hundred is in: (x - offset) / scale
UNIT_MIXES = [
    ("creatinine", 1.2, 0.3, 1 / 88.42, 0.0),
    ("glucose", 130.0, 25.0, 18.016, 0.0),
    ("temperature", 37.0, 0.6, 5 / 9, -160 / 9),
    ("sbp", 120.0, 18.0, 7.50062, 0.0),
    ("hgb", 11.0, 1.5, 0.1, 0.0),
]


@pytest.mark.parametrize(("name", "mean", "sd", "scale", "offset"), UNIT_MIXES)
def test_one_row_in_a_hundred_in_another_unit_is_found(name, mean, sd, scale, offset):
    known = {
        **VARIABLES,
        "creatinine": Variable(name="creatinine"),
        "glucose": Variable(name="glucose"),
    }
    variable = known.get(name, Variable(name=name))
    found = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        value = generator.normal(mean, sd, 2000)
        other = generator.random(2000) < 0.01
        value[other] = (value[other] - offset) / scale
        findings = find_other_unit(variable, value)
        found += bool(findings)
        for finding in findings:
            rule = finding.conversion
            assert rule.scale == pytest.approx(scale)
            assert rule.low <= value[other].min() <= value[other].max() <= rule.high
    assert found >= 99


def test_clean_variables_raise_no_suspicion_of_their_unit():
    shapes = {
        "normal": lambda g: g.normal(100, 20, 2000),
        "log-normal": lambda g: np.exp(g.normal(1, 1, 2000)),
        "uniform": lambda g: g.uniform(0, 100, 2000),
        "two groups": lambda g: np.where(
            g.random(2000) < 0.3, g.normal(20, 3, 2000), g.normal(60, 5, 2000)
        ),
        "heavy": lambda g: g.standard_t(2, 2000) * 10 + 50,
    }
    variables = [*VARIABLES.values(), Variable(name="mine")]
    alarms, trials = 0, 0
    for variable in variables:
        if not other_units(variable):
            continue
        for seed, shape in enumerate(shapes.values()):
            trials += 1
            alarms += bool(find_other_unit(variable, shape(np.random.default_rng(seed))))
    assert trials > 100
    assert alarms <= trials / 50


@pytest.mark.parametrize("mark", [999.0, -999.0, 9999.0, 0.0])
@pytest.mark.parametrize("share", [0.006, 0.05, 0.3])
def test_an_undeclared_sentinel_is_found(mark, share):
    generator = np.random.default_rng(0)
    value = np.round(generator.normal(120, 15, 5000), 1)
    value[: int(share * 5000)] = mark
    finding = find_spike(Variable(name="mine"), value, generator.integers(0, 100, 5000))
    assert finding is not None
    assert finding.sentinel == mark
    assert finding.rows == (value == mark).sum()


@pytest.mark.parametrize(
    "value",
    [
        np.minimum(np.round(np.random.default_rng(0).normal(97, 3, 5000)), 100),
        np.random.default_rng(0).choice([3, 6, 9, 12, 15], 5000).astype(float),
        np.ones(5000),
        np.maximum(0, np.round(np.random.default_rng(0).normal(30, 40, 5000))),
    ],
    ids=["a saturated scale", "a score", "a constant", "many zeros beside small values"],
)
def test_frequent_values_that_belong_to_their_scale_are_no_sentinels(value):
    subject = np.random.default_rng(1).integers(0, 100, len(value))
    assert find_spike(Variable(name="mine"), value, subject) is None


def test_a_value_of_few_subjects_is_never_named():
    generator = np.random.default_rng(0)
    value = generator.normal(120, 15, 5000)
    subject = generator.integers(0, 100, 5000)
    value[subject < 10] = 999.0
    assert find_spike(Variable(name="mine"), value, subject) is None


def test_a_check_says_everything_and_changes_nothing():
    cohort = cohort_of(
        {
            "HR": normal(85, 10),
            "glucose": mixed(normal(130, 20), normal(7.2, 1), 0.02),
            "lab": mixed(normal(10, 1), lambda g, n: np.full(n, 999.0), 0.05),
        }
    )
    before = cohort.fingerprint()
    found = check(cohort)
    assert kinds(found) == {("unit", "glucose"), ("sentinel", "lab"), ("order", "")}
    assert found["balanced"]
    assert found["fingerprint"] == before == cohort.fingerprint()
    json.dumps(found, allow_nan=False)


def test_the_suggested_policy_is_one_that_reading_follows(tmp_path):
    cohort = cohort_of(
        {
            "glucose": mixed(normal(130, 20), normal(7.2, 1), 0.02),
            "lab": mixed(normal(10, 1), lambda g, n: np.full(n, 999.0), 0.05),
        }
    )
    path = tmp_path / "policy.yaml"
    path.write_text(check(cohort)["suggested_policy"], encoding="utf-8")
    policy = Policy.read(path)
    assert policy.sentinels["lab"] == (999.0,)
    again = Cohort.from_tables(cohort.observations, policy=policy)
    assert again.ledger.rows("observations", "dropped", "sentinel", "lab") > 50
    assert again.ledger.rows("observations", "converted", variable="glucose") > 20
    assert kinds(check(again)) == set()
    assert yaml.safe_load(path.read_text())["strict"] is False


def test_impossible_values_that_another_unit_makes_possible_are_told():
    cohort = cohort_of({"Glucose": mixed(normal(130, 10), normal(7.2, 0.5), 0.05)})
    finding = next(f for f in check(cohort)["findings"] if f["kind"] == "unit")
    assert "would be possible in mmol/L" in finding["text"]
    policy = Policy.from_dict(yaml.safe_load(check(cohort)["suggested_policy"]))
    rule = policy.conversions["Glucose"][0]
    assert rule.low <= 7.2 <= rule.high < 10.0


def test_empty_variables_and_short_records_are_told():
    table = pd.DataFrame(
        {"subject_id": [1, 2, 2, 3], "time": [0.0, 0.0, 1.0, -2.0], "HR": [80.0, 81.0, 82.0, None]}
    ).assign(K=np.nan)
    texts = [finding["text"] for finding in check(table)["findings"]]
    assert texts == [
        "the variable is never measured",
        "subjects with no observation: 1",
        "subjects with one observation: 1",
    ]


def test_observations_before_time_zero_and_equal_records_are_told():
    record = pd.DataFrame({"time": np.arange(-1.0, 8.0), "HR": np.arange(70.0, 79.0)})
    table = pd.concat([record.assign(subject_id=k) for k in (1, 2)])
    found = {f["kind"]: f for f in check(table)["findings"]}
    assert found["time"]["rows"] == 2
    assert found["duplicate"]["rows"] == 1


def test_rows_out_of_order_are_sorted_counted_and_told(tmp_path):
    rows = [(1, 3.0, 80.0), (1, 1.0, 81.0), (1, 2.0, 82.0), (2, 0.0, 70.0), (2, 5.0, 71.0)]
    table = pd.DataFrame(rows, columns=["subject_id", "time", "value"]).assign(variable="HR")
    table.to_csv(tmp_path / "observations.csv", index=False)
    found = {f["kind"]: f for f in check(tmp_path / "observations.csv")["findings"]}
    assert found["order"]["text"] == "rows out of order: 1"
    cohort = read_cohort(tmp_path / "observations.csv")
    assert cohort.observations["time"].tolist() == [1.0, 2.0, 3.0, 0.0, 5.0]
    assert cohort.n_observations == len(rows)


def test_ids_that_a_spreadsheet_has_spoiled_are_told(tmp_path):
    ids = ["00123", "123", "1.23E+10"]
    table = pd.DataFrame({"subject_id": ids, "time": 0.0, "variable": "HR", "value": 80.0})
    found = [finding for finding in check(table)["findings"] if finding["kind"] == "ids"]
    assert [finding["rows"] for finding in found] == [1, 1]
    assert "leading zeros" in found[0]["text"]
    assert "scientific notation" in found[1]["text"]


def test_a_fingerprint_shows_no_small_cell_and_no_extreme():
    cohort = cohort_of({"HR": normal(85, 10)}, n=3000)
    few = Cohort.from_tables(
        pd.concat(
            [
                cohort.observations,
                pd.DataFrame(
                    {"subject_id": [1] * 10, "time": range(10), "variable": "rare", "value": 7.0}
                ),
            ]
        )
    )
    found = {variable["name"]: variable for variable in few.fingerprint()["variables"]}
    assert found["rare"]["n_subjects"] == "1-10"
    assert found["rare"]["quantiles"] is None
    assert found["rare"]["missing"] is None
    value = few.arrays().value
    shown = found["HR"]["quantiles"]
    assert min(shown.values()) > value[value > 20].min()
    assert max(shown.values()) < value.max()
    assert shown["0.5"] == pytest.approx(85, abs=1)


def test_the_fingerprint_of_a_subset_is_another_one():
    cohort = cohort_of({"HR": normal(85, 10)})
    assert cohort.fingerprint()["sha256"] != cohort.take(range(50)).fingerprint()["sha256"]
    json.dumps(cohort.fingerprint(), allow_nan=False)
    assert (
        read_cohort(cohort.observations).fingerprint()["sha256"] == cohort.fingerprint()["sha256"]
    )
