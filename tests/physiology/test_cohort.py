import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from clinode.cohort import VARIABLES, Cohort
from clinode.errors import ArgumentError
from clinode.physiology import planted_logit, simulate_cohort
from clinode.physiology.cohort import SAMPLING

N = 600
HOURS = 48
NOISE = ["K", "Na", "Platelets"]


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulate_cohort(N, seed=3)


@pytest.fixture(scope="module")
def seen(cohort) -> pd.DataFrame:
    """Observations at or before the prediction time."""
    table = cohort.observations.merge(cohort.outcomes, on="subject_id")
    return table[table["time"] <= table["prediction_time"]]


def rank_correlation(a, b) -> float:
    return float(np.corrcoef(scipy.stats.rankdata(a), scipy.stats.rankdata(b))[0, 1])


def test_it_is_a_cohort_of_the_shipped_variables_with_the_outcome_last(cohort):
    assert len(cohort) == N
    assert {v.name for v in cohort.schema.variables} == set(SAMPLING)
    for variable in cohort.schema.variables:
        assert variable == VARIABLES[variable.name]
    units = {v.name: v.unit for v in cohort.schema.inputs}
    assert units == {"fluids": "mL/h", "norepinephrine": "ug/kg/min", "insulin": "U"}
    assert list(cohort.outcomes.columns) == ["subject_id", "prediction_time", "in_hospital_death"]
    assert list(cohort.statics.columns) == ["subject_id", "age", "gender", "height", "weight"]
    ledger = cohort.ledger.to_pandas()
    lost = ledger[ledger["action"].isin(["dropped", "merged", "converted"])]
    assert set(lost["table"]) <= {"statics"}  # heights and weights that are not known


def test_a_subject_is_the_same_whenever_and_among_however_many_it_is_simulated(cohort):
    small = simulate_cohort(7, seed=3)
    first = cohort.select(small.subjects)
    for table in ("observations", "statics", "inputs", "outcomes", "planted"):
        pd.testing.assert_frame_equal(
            getattr(small, table), getattr(first, table), check_categorical=False
        )


def test_another_seed_is_another_cohort(cohort):
    other = simulate_cohort(2, seed=4).observations
    same = cohort.select([1, 2]).observations
    assert set(other["value"]) != set(same["value"])
    assert not set(other["time"]) & set(same["time"])


def test_the_planted_table_is_what_the_formula_finds_in_the_observations(cohort, seen):
    expected = []
    for subject_id, rows in seen.groupby("subject_id"):
        at = rows["prediction_time"].iloc[0]
        lactate, pressure = (rows[rows["variable"] == name] for name in ("Lactate", "MAP"))
        for time, value in zip(lactate["time"], lactate["value"], strict=True):
            doublings = min(max(math.log2(value / 2.0), 0.0), 2.0)
            expected.append((subject_id, "value", time, "Lactate", 2.6 * doublings / len(lactate)))
        for time, value in zip(pressure["time"], pressure["value"], strict=True):
            deficit = min(max((72.0 - value) / 8.0, 0.0), 2.0)
            expected.append((subject_id, "value", time, "MAP", 5.0 * deficit / len(pressure)))
        for time in lactate["time"].iloc[:4]:
            expected.append((subject_id, "ordering", time, "Lactate", 0.35))
        if len(pressure):
            time = pressure["time"].iloc[-1]
            gap = min(max((at - time - 2.0) / 4.0, 0.0), 1.0)
            expected.append((subject_id, "timing", time, "MAP", 2.0 * gap))
    columns = ["subject_id", "kind", "time", "variable", "weight"]
    order = ["subject_id", "time", "kind", "variable"]
    table = pd.DataFrame([row for row in expected if row[-1] > 0], columns=columns)
    table = table.sort_values(order, ignore_index=True)
    planted = cohort.planted
    assert planted is not None
    planted = planted.astype({"variable": object, "kind": object})
    found = planted[columns].sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(
        found, table.astype({"variable": object, "kind": object}), rtol=1e-12
    )


def test_every_kind_of_cause_moves_the_outcome(cohort):
    planted = cohort.planted
    assert planted is not None
    sums = planted.pivot_table(index="subject_id", columns="kind", values="weight", aggfunc="sum")
    sums = sums.reindex(cohort.subjects).fillna(0.0)
    assert set(sums.columns) == {"value", "ordering", "timing"}
    assert (sums.std() > 0.4).all()
    assert sums["value"].std() > 1.5
    assert set(planted["variable"]) == {"Lactate", "MAP"}


def test_outcomes_are_drawn_with_the_probability_of_the_planted_logit(cohort):
    died = cohort.outcomes["in_hospital_death"].to_numpy()
    logit = planted_logit(cohort)
    assert logit.min() >= -4.75
    p = 1 / (1 + np.exp(-logit))
    assert abs((died - p).sum()) < 3.5 * np.sqrt((p * (1 - p)).sum())
    order = np.argsort(p)
    groups = [g for g in np.array_split(order, 8) if (p * (1 - p))[g].sum() > 3]
    statistic = sum((died - p)[g].sum() ** 2 / (p * (1 - p))[g].sum() for g in groups)
    assert scipy.stats.chi2.sf(statistic, len(groups)) > 1e-3
    assert 0.15 < died.mean() < 0.3
    ranks = scipy.stats.rankdata(logit)
    n_died = died.sum()
    auroc = (ranks[died == 1].sum() - n_died * (n_died + 1) / 2) / n_died / (N - n_died)
    assert auroc > 0.88


def test_observations_go_on_after_the_prediction_time(cohort, seen):
    at = cohort.outcomes["prediction_time"]
    assert at.between(20, 28).all()
    assert at.nunique() > 20
    observations = cohort.observations
    assert observations["time"].between(0, HOURS).all()
    later = len(observations) - len(seen)
    assert later > 0.3 * len(observations)
    assert observations.groupby("subject_id")["time"].max().min() > 30
    planted = cohort.planted.merge(cohort.outcomes, on="subject_id")
    assert (planted["time"] <= planted["prediction_time"]).all()


@pytest.mark.parametrize("variable", [n for n, s in SAMPLING.items() if s.worried == 0])
def test_a_variable_that_worry_does_not_touch_is_sampled_by_a_poisson_process(cohort, variable):
    rows = cohort.observations
    rows = rows[rows["variable"] == variable]
    counts = rows.groupby("subject_id").size().reindex(cohort.subjects, fill_value=0)
    mean = SAMPLING[variable].rate * HOURS
    statistic = ((counts - mean) ** 2 / mean).sum()
    assert 1e-4 < scipy.stats.chi2.sf(statistic, N) < 1 - 1e-4
    assert scipy.stats.kstest(rows["time"], scipy.stats.uniform(0, HOURS).cdf).pvalue > 1e-4


@pytest.mark.parametrize("variable", ["Lactate", "PaO2"])
def test_what_worry_orders_is_ordered_more_often_for_the_sick(cohort, variable):
    rows = cohort.observations
    counts = rows[rows["variable"] == variable].groupby("subject_id").size()
    counts = counts.reindex(cohort.subjects, fill_value=0).to_numpy()
    pressure = rows[rows["variable"] == "MAP"].groupby("subject_id")["value"].mean()
    sick = (pressure.reindex(cohort.subjects) < 75).to_numpy()
    well = (pressure.reindex(cohort.subjects) > 88).to_numpy()
    assert counts[sick].mean() > 1.7 * counts[well].mean()
    # Nobody is measured less than at the resting rate, nor more than at full worry.
    least, most = SAMPLING[variable].rate, SAMPLING[variable].rate + SAMPLING[variable].worried
    assert least * HOURS < counts[well].mean() < counts[sick].mean() < most * HOURS


@pytest.mark.parametrize("variable", NOISE)
def test_noise_variables_tell_nothing_about_the_outcome(cohort, seen, variable):
    means = seen[seen["variable"] == variable].groupby("subject_id")["value"].mean()
    logit = pd.Series(planted_logit(cohort), cohort.subjects)[means.index]
    assert abs(rank_correlation(means, logit)) < 3.3 / np.sqrt(len(means))


@pytest.mark.parametrize("variable", ["HR", "RespRate", "Temp", "WBC", "Glucose"])
def test_signs_of_illness_go_with_the_outcome_though_they_do_not_cause_it(cohort, seen, variable):
    means = seen[seen["variable"] == variable].groupby("subject_id")["value"].mean()
    logit = pd.Series(planted_logit(cohort), cohort.subjects)[means.index]
    assert rank_correlation(means, logit) > 0.1


def test_values_lie_where_they_do_in_an_intensive_care_unit(cohort):
    medians = cohort.observations.groupby("variable", observed=True)["value"].median()
    for name, low, high in (
        ("HR", 75, 105),
        ("MAP", 75, 90),
        ("Lactate", 1.2, 3),
        ("Glucose", 120, 180),
        ("Temp", 37, 38.7),
        ("Creatinine", 0.7, 1.3),
        ("RespRate", 14, 22),
    ):
        assert low < medians[name] < high, name
    per_subject = cohort.observations.groupby("subject_id").size()
    assert 80 < per_subject.mean() < 125


def test_treatments_react_to_the_state(cohort):
    inputs = cohort.inputs
    bolus = inputs["end"].isna()
    assert set(inputs.loc[bolus, "variable"]) == {"insulin"}
    assert (inputs.loc[~bolus, "end"] > inputs.loc[~bolus, "start"]).all()
    assert (inputs["value"] > 0).all()
    observations = cohort.observations
    means = observations.pivot_table(
        index="subject_id", columns="variable", values="value", aggfunc="mean", observed=True
    )
    pressed = inputs.loc[inputs["variable"] == "norepinephrine", "subject_id"].unique()
    sugared = inputs.loc[inputs["variable"] == "insulin", "subject_id"].unique()
    assert 0.05 * N < len(pressed) < 0.5 * N
    assert means.loc[pressed, "MAP"].mean() < means["MAP"].mean() - 4
    others = np.setdiff1d(cohort.subjects, sugared)
    assert means.loc[sugared, "Glucose"].mean() > means.loc[others, "Glucose"].mean() + 15


def test_intervals_of_one_treatment_do_not_overlap(cohort):
    rates = cohort.inputs.dropna(subset="end").sort_values(["subject_id", "variable", "start"])
    same = (rates["subject_id"] == rates["subject_id"].shift(-1)) & (
        rates["variable"].astype(str) == rates["variable"].astype(str).shift(-1)
    )
    assert (rates["end"] <= rates["start"].shift(-1))[same].all()
    assert (rates["end"] <= HOURS).all()


def test_a_cohort_needs_a_subject_and_a_seed_that_is_not_negative(cohort):
    with pytest.raises(ArgumentError, match="n_subjects must be at least 1"):
        simulate_cohort(0, 0)
    with pytest.raises(ArgumentError, match="seed must not be negative"):
        simulate_cohort(3, -1)


def test_a_cohort_without_a_planted_truth_is_refused(cohort):
    plain = Cohort.from_tables(cohort.observations, outcomes=cohort.outcomes)
    with pytest.raises(ArgumentError, match="no planted truth"):
        planted_logit(plain)


def test_a_part_of_a_cohort_is_that_part(cohort):
    ids = cohort.subjects.tolist()
    part = simulate_cohort(5, 3, first=ids[3])
    expected = cohort.select(ids[3:8])
    for name in ("observations", "statics", "inputs", "outcomes", "planted"):
        pd.testing.assert_frame_equal(getattr(part, name), getattr(expected, name))
    with pytest.raises(ArgumentError, match="at least 1"):
        simulate_cohort(5, 3, first=0)
