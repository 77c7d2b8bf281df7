"""Values, ordering and timing: three players whose shares are known where the answer is."""

import numpy as np
import pandas as pd
import pytest

from clinode.attribution import explain, explain_kinds
from clinode.attribution.kinds import PLAYERS, drawn_donors, three_players
from clinode.attribution.patterns import Measurements, Series, rearranged
from clinode.cohort import Cohort
from clinode.errors import ArgumentError, SchemaError
from clinode.physiology import simulate_cohort

VARIABLES = ("A", "B")


def made(counts: np.ndarray, seed: int) -> Cohort:
    """Two variables measured so many times at random hours of two days."""
    generator = np.random.default_rng(seed)
    subject, variable = (np.repeat(x.ravel(), counts.ravel()) for x in np.indices(counts.shape))
    observations = pd.DataFrame(
        {
            "subject_id": subject,
            "time": np.round(generator.uniform(0, 48, len(subject)), 4),
            "variable": np.array(VARIABLES)[variable],
            "value": generator.normal(10, 2, len(subject)),
        }
    )
    outcomes = pd.DataFrame({"subject_id": np.arange(len(counts)), "prediction_time": 48.0})
    return Cohort.from_tables(observations, None, None, outcomes)


@pytest.fixture(scope="module")
def series() -> Series:
    counts = np.random.default_rng(1).integers(0, 7, (60, 2))
    return Series.read(made(counts, 2), np.full(60, 48.0), VARIABLES)


def own_of(own: Series, subject: int, variable: int) -> tuple[np.ndarray, np.ndarray]:
    first, n = own.first[subject, variable], own.count[subject, variable]
    return own.time[first : first + n], own.value[first : first + n]


def rows_of(made: Measurements, subject: int, variable: int) -> tuple[np.ndarray, np.ndarray]:
    here = (made.subject == subject) & (made.variable == variable)
    return made.time[here], made.value[here]


def split(answer, own: Series, n_draws: int = 4) -> pd.DataFrame:
    ids = np.arange(len(own.until))
    draws = drawn_donors(ids, ids, n_draws, seed=0)
    return three_players(answer, own, np.full(own.count.shape, 10.0), own, draws)


def last_of(made: Measurements, variable: int, n: int, name: str) -> np.ndarray:
    """Of each subject the time or value of its last measurement of a variable; 0 without one."""
    found = np.zeros(n)
    here = made.variable == variable
    found[made.subject[here]] = getattr(made, name)[here]  # sorted by time: the last one stays
    return found


def test_a_record_put_together_of_its_own_three_is_itself(series):
    donor = np.roll(np.arange(60), 1)
    rest = np.zeros(series.count.shape)
    whole = rearranged(series, rest, series, donor, values=True, ordering=True, timing=True)
    for subject in range(60):
        for variable in (0, 1):
            for found, expected in zip(
                rows_of(whole, subject, variable), own_of(series, subject, variable), strict=True
            ):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("values", [True, False])
@pytest.mark.parametrize("timing", [True, False])
def test_numbers_are_the_donors_and_ends_are_the_subjects_own(series, values, timing):
    donor = np.roll(np.arange(60), 7)
    rest = np.full(series.count.shape, -5.0)
    found = rearranged(series, rest, series, donor, values=values, ordering=False, timing=timing)
    for subject in range(60):
        for variable in (0, 1):
            time, value = rows_of(found, subject, variable)
            own_time, own_value = own_of(series, subject, variable)
            n = series.count[donor[subject], variable]
            assert len(time) == n
            assert (np.diff(time) >= 0).all()
            assert ((time >= 0) & (time <= 48)).all()
            if not n:
                continue
            if not timing:
                np.testing.assert_allclose(time, 48 * (np.arange(n) + 0.5) / n)
            elif len(own_time):
                assert time[-1] == pytest.approx(own_time[-1])
                if n > 1 and len(own_time) > 1:
                    assert time[0] == pytest.approx(own_time[0])
            if values and len(own_value):
                assert value[-1] == own_value[-1]
                assert set(value) <= set(own_value)
            else:
                assert (value == -5.0).all()


def test_three_shares_add_up_and_a_coalition_more_is_never_lost(series):
    generator = np.random.default_rng(3)
    weights = generator.normal(size=4)

    def answer(some: Measurements) -> np.ndarray:
        """Anything: products of counts, values and hours."""
        size = np.bincount(some.subject, minlength=60)
        total = np.bincount(some.subject, some.value * np.sin(some.time), minlength=60)
        late = np.bincount(some.subject, some.time > 40, minlength=60)
        return weights[0] * np.tanh(total) + weights[1] * size * late + weights[2] * total * size

    found = split(answer, series)
    gap = found["output"] - found["base"] - found[list(PLAYERS)].sum(axis=1)
    assert np.abs(gap).max() < 1e-9
    whole = rearranged(
        series,
        np.zeros(series.count.shape),
        series,
        np.arange(60),
        values=True,
        ordering=True,
        timing=True,
    )
    np.testing.assert_array_equal(found["output"], answer(whole))


def test_what_reads_one_kind_alone_credits_that_kind_alone():
    own = Series.read(made(np.full((40, 2), 4), 5), np.full(40, 48.0), VARIABLES)
    uneven = Series.read(
        made(np.random.default_rng(6).integers(1, 6, (40, 2)), 7), np.full(40, 48.0), VARIABLES
    )
    values = split(lambda some: last_of(some, 0, 40, "value"), uneven)
    np.testing.assert_allclose(values["values"], values["output"] - 10.0, atol=1e-12)
    assert (values[["ordering", "timing"]].to_numpy() == 0).all()

    ordering = split(lambda some: np.bincount(some.subject, minlength=40) ** 1.5, uneven)
    assert (ordering[["values", "timing"]].to_numpy() == 0).all()
    assert ordering["ordering"].abs().max() > 1

    timing = split(lambda some: last_of(some, 1, 40, "time"), own)
    assert (timing[["values", "ordering"]].to_numpy() == 0).all()
    np.testing.assert_allclose(timing["timing"], timing["output"] - 48 * 3.5 / 4)


def test_donors_are_others_and_each_of_them_as_often():
    ids = np.array([7, 3, 9, 1])
    drawn = drawn_donors(ids, ids, 6000, seed=1)
    for subject in range(4):
        times = np.bincount(drawn[:, subject], minlength=4)
        assert times[subject] == 0
        others = np.delete(times, subject)
        assert (np.abs(others - 2000) < 4 * np.sqrt(6000 * 2 / 9)).all()
    strangers = drawn_donors(ids, np.array([100, 200]), 400, seed=1)
    assert set(strangers.ravel()) == {0, 1}


def planted_answer(some: Measurements, until: np.ndarray) -> np.ndarray:
    """The published formula of the simulated cohort, for Lactate (0) and MAP (1)."""
    n = len(until)
    found = np.zeros(n)
    for subject in range(n):
        here = some.subject == subject
        lactate = some.value[here & (some.variable == 0)]
        pressure = some.value[here & (some.variable == 1)]
        hours = some.time[here & (some.variable == 1)]
        if len(lactate):
            found[subject] += 2.6 * np.clip(np.log2(lactate / 2), 0, 2).mean()
        found[subject] += 0.35 * min(len(lactate), 4)
        if len(pressure):
            found[subject] += 5.0 * np.clip((72 - pressure) / 8, 0, 2).mean()
            found[subject] += 2.0 * np.clip((until[subject] - hours.max() - 2) / 4, 0, 1)
    return found


@pytest.mark.slow
def test_planted_weights_of_the_kinds_are_found_within_five_points():
    cohort = simulate_cohort(400, 3)
    assert cohort.planted is not None
    until = cohort.outcomes["prediction_time"].to_numpy(dtype=np.float64)
    own = Series.read(cohort, until, ("Lactate", "MAP"))
    rest = np.tile([1.2, 78.0], (400, 1))  # neither counts in the formula
    ids = np.asarray(cohort.subjects)
    draws = drawn_donors(ids, ids, 8, seed=0)
    found = three_players(lambda some: planted_answer(some, until), own, rest, own, draws)
    planted = cohort.planted.pivot_table(
        index="subject_id", columns="kind", values="weight", aggfunc="sum", observed=False
    )
    planted = planted.reindex(ids).fillna(0.0)
    # against the references: no value that counts, as many lactates as others, no long gap
    planted["ordering"] -= planted["ordering"].mean()
    true = planted[["value", "ordering", "timing"]].abs().sum().to_numpy()
    told = found[list(PLAYERS)].abs().sum().to_numpy()
    np.testing.assert_allclose(told / told.sum(), true / true.sum(), atol=0.05)
    for kind, name in zip(PLAYERS, ("value", "ordering", "timing"), strict=True):
        assert np.corrcoef(found[kind], planted[name])[0, 1] > 0.9


def test_a_run_is_split_for_its_subjects_and_the_whole_is_what_explain_explains(run, cohort):
    told = explain_kinds(run, cohort, n_draws=2, seed=4)
    table = told.to_pandas()
    gap = table["output"] - table["base"] - table[list(PLAYERS)].sum(axis=1)
    assert np.abs(gap).max() < 1e-9
    gates = explain(run, cohort, "saliency").gates
    assert list(table["subject_id"]) == list(gates["subject_id"])
    np.testing.assert_allclose(table["prediction_time"], gates["prediction_time"])
    np.testing.assert_allclose(table["output"], gates["output"], atol=1e-9)
    some = list(table["subject_id"][[5, 2]])
    few = explain_kinds(run, cohort, n_draws=2, seed=4, subjects=some).to_pandas()
    assert list(few["subject_id"]) == sorted(some)
    again = explain_kinds(run, cohort, n_draws=2, seed=4)
    pd.testing.assert_frame_equal(again.to_pandas(), table)
    shares = told.cohort(n_resamples=50)
    assert sum(one["share"].value for one in shares.values()) == pytest.approx(1)
    plain = told.to_dict()
    assert set(plain["cohort"]) == set(PLAYERS)
    once = explain_kinds(run, cohort.take(range(8)), n_draws=1).to_dict()
    assert {row["values_error"] for row in once["subjects"]} == {None}  # one draw has no spread
    assert len(plain["subjects"]) == len(table)


@pytest.mark.parametrize("baseline", ["normal", "carry"])
def test_other_baselines_change_the_reference_and_not_the_output(run, cohort, baseline):
    few = cohort.take(range(12))
    unit = run.schema.units[run.schema.variables.index("MechVent")]
    interval = {"unit": unit, "sex": "", "low": 0.0, "high": 1.0, "source": "made up"}
    ranges = pd.DataFrame([{"variable": "MechVent", **interval}])
    options = {"n_draws": 1, "reference": cohort}
    other = explain_kinds(run, few, baseline, normal_ranges=ranges, **options).to_pandas()
    mean = explain_kinds(run, few, **options).to_pandas()
    np.testing.assert_allclose(other["output"], mean["output"], atol=1e-12)
    assert np.abs(other["values"] - mean["values"]).max() > 1e-4


def test_what_cannot_be_split_is_refused_in_words(run, cohort):
    with pytest.raises(ArgumentError, match=r"cannot be compared with 'delete'.*carry"):
        explain_kinds(run, cohort, "delete")
    with pytest.raises(ArgumentError, match="n_draws must be at least 1"):
        explain_kinds(run, cohort, n_draws=0)
    with pytest.raises(ArgumentError, match=r"nobody else could lend.*reference"):
        explain_kinds(run, cohort.take([3]))
    with pytest.raises(ArgumentError, match="1 of the subjects are not in the cohort"):
        explain_kinds(run, cohort, subjects=["nobody"])
    with pytest.raises(SchemaError):
        explain_kinds(run, made(np.full((4, 2), 2), 1))
