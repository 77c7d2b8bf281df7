import numpy as np
import pandas as pd
import pytest

from clinode.cohort import Cohort
from clinode.cohort.recording import Recording, recording_of
from clinode.errors import ArgumentError

REGIONS = ("rh_cuneus", "lh_cuneus", "lh_insula")  # not in the order of the alphabet


def recording(seed: int = 0, kept: float = 1.0) -> Recording:
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(2, 40, 3))
    values[draw.random((2, 40)) >= kept] = np.nan
    values[:, [0, 1, -1]] = draw.normal(size=(2, 3, 3))
    levels = np.repeat(draw.normal(size=(2, 8, 2)), 5, axis=1)
    levels[:, 10:15] = 0
    return Recording(0.01, values, levels, REGIONS, ("lh_insula", "rh_cuneus"), unit="Hz")


@pytest.mark.parametrize("kept", [1.0, 0.3])
def test_a_recording_comes_back_from_its_cohort(kept):
    given = recording(kept=kept)
    cohort = given.cohort()
    assert list(cohort.subjects) == [0, 1]
    back = recording_of(cohort)
    assert back.step == pytest.approx(0.01)
    places = [back.regions.index(name) for name in REGIONS]
    inputs = [back.stimulated.index(name) for name in given.stimulated]
    np.testing.assert_allclose(back.values[..., places], given.values, rtol=0, atol=1e-12)
    np.testing.assert_allclose(back.stimulation[..., inputs], given.stimulation, atol=1e-5)
    assert (len(back.regions), len(back.stimulated), back.unit) == (3, 2, "Hz")
    assert back.is_regular == (kept == 1.0)


def table(**columns) -> pd.DataFrame:
    return pd.DataFrame({"subject_id": 0, **columns})


def seen(times: list[float]) -> pd.DataFrame:
    """One region at times in seconds."""
    hours = np.array(times) / 3600
    return table(time=hours, variable="lh_cuneus", value=np.arange(len(times), dtype=float))


def given(start: float, end: float, value: float = 2.0, name: str = "lh_cuneus") -> pd.DataFrame:
    start, end = start / 3600, end / 3600
    return table(start=[start], end=[end], variable=[name], value=[value])


@pytest.mark.parametrize(
    ("start", "end"), [(0.013, 0.047), (0.02, 0.03), (0.021, 0.024), (0.0, 0.051), (0.055, 0.2)]
)
def test_a_stimulus_that_begins_within_a_step_counts_by_its_share(start, end):
    times = [0.01 * k for k in range(8)]
    found = recording_of(Cohort.from_tables(seen(times), inputs=given(start, end)))
    fine = (np.arange(80_000) + 0.5) * 1e-6
    level = np.where((fine >= start) & (fine < end), 2.0, 0.0)
    expected = level.reshape(8, 10_000).mean(1)
    np.testing.assert_allclose(found.stimulation[0, :, 0], expected, atol=2e-4)


def test_overlapping_stimuli_add_up():
    both = pd.concat([given(0.01, 0.04), given(0.02, 0.03, value=1.0)])
    found = recording_of(Cohort.from_tables(seen([0.0, 0.01, 0.02, 0.03, 0.04]), inputs=both))
    np.testing.assert_allclose(found.stimulation[0, :, 0], [0, 2, 3, 2, 0], atol=1e-9)


def test_a_cohort_that_is_no_recording_is_refused_in_words():
    with pytest.raises(ArgumentError, match=r"1 samples lie off a grid of 0\.01 s"):
        recording_of(Cohort.from_tables(seen([0.0, 0.01, 0.025, 0.04])))
    with pytest.raises(ArgumentError, match="begin at 0"):
        recording_of(Cohort.from_tables(seen([-0.01, 0.0, 0.01])))
    with pytest.raises(ArgumentError, match="no session has two samples"):
        recording_of(Cohort.from_tables(seen([0.0])))
    impulse = given(0.01, np.nan)
    with pytest.raises(ArgumentError, match="impulse"):
        recording_of(Cohort.from_tables(seen([0.0, 0.01, 0.02]), inputs=impulse))
    inputs = given(0.0, 0.01, name="elsewhere")
    with pytest.raises(ArgumentError, match="'elsewhere' names none of the regions"):
        recording_of(Cohort.from_tables(seen([0.0, 0.01, 0.02]), inputs=inputs))


def test_arrays_that_do_not_fit_are_refused_in_words():
    values, levels = np.zeros((2, 10, 3)), np.zeros((2, 9, 1))
    with pytest.raises(ArgumentError, match="do not fit"):
        Recording(0.01, values, levels, REGIONS, ("lh_insula",))
    with pytest.raises(ArgumentError, match="3 columns need as many distinct names"):
        Recording(0.01, values, np.zeros((2, 10, 1)), REGIONS[:2], ("lh_insula",))
    with pytest.raises(ArgumentError, match="positive and finite"):
        Recording(0.0, values, np.zeros((2, 10, 1)), REGIONS, ("lh_insula",))
