"""Attribution by leaving out, against every order of the players and against edited records."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from clinode.attribution import attribute, explain
from clinode.attribution.coalitions import (
    Game,
    exact_shapley,
    kernel_shap,
    leave_one_out,
    sampled_shapley,
)
from clinode.cohort import Cohort, Forecast
from clinode.errors import ArgumentError
from clinode.sequence import LinearLatentODE
from clinode.training import FitConfig, fit

from .conftest import make_cohort


def drawn_game(n: int, degree: int, seed: int = 0) -> tuple[Game, dict[tuple[int, ...], float]]:
    """A game with a random worth of every group of up to `degree` players, and these worths."""
    generator = np.random.default_rng(seed)
    groups = [g for k in range(1, degree + 1) for g in itertools.combinations(range(n), k)]
    worths = {group: float(generator.normal()) for group in groups}

    def value(present: Tensor, which: Tensor) -> Tensor:
        columns = [present[:, list(g)].all(dim=1).double() * w for g, w in worths.items()]
        return torch.stack(columns).sum(dim=0) + 0.7

    return Game(value, np.arange(n)[None, :]), worths


def shared_equally(n: int, worths: dict[tuple[int, ...], float]) -> np.ndarray:
    """Shapley values of such a game: every group shares its worth equally (Harsanyi 1963)."""
    share = np.zeros(n)
    for group, worth in worths.items():
        share[list(group)] += worth / len(group)
    return share


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_exact_shares_are_those_of_harsanyi(n):
    game, worths = drawn_game(n, n)
    found = exact_shapley(game, 0, 16)
    np.testing.assert_allclose(found.share, shared_equally(n, worths), atol=1e-12)
    assert found.share.sum() == pytest.approx(found.output - found.base)
    assert found.n_evaluations == 2**n


def test_orders_and_their_reverses_are_exact_where_players_meet_in_pairs_only():
    game, worths = drawn_game(14, 2)
    generator = np.random.default_rng(1)
    found = sampled_shapley(game, 0, 64, n_pairs=2, generator=generator)
    np.testing.assert_allclose(found.share, shared_equally(14, worths), atol=1e-12)
    np.testing.assert_allclose(found.error, 0.0, atol=1e-12)


def test_drawn_shares_lie_within_their_errors():
    game, worths = drawn_game(12, 3, seed=2)
    expected = shared_equally(12, worths)
    generator = np.random.default_rng(3)
    found = sampled_shapley(game, 0, 256, n_pairs=60, generator=generator)
    off = np.abs(found.share - expected) / found.error
    assert (off < 4).all()
    assert (off < 1).mean() > 0.4
    assert found.share.sum() == pytest.approx(found.output - found.base)
    few = sampled_shapley(game, 0, 256, n_pairs=15, generator=generator)
    assert few.error.mean() / found.error.mean() == pytest.approx(2, rel=0.3)


def test_kernel_shap_comes_near_and_stops_at_64_players():
    game, worths = drawn_game(8, 3, seed=4)
    found = kernel_shap(game, 0, 256, seed=0)
    again = kernel_shap(game, 0, 256, seed=0)
    expected = shared_equally(8, worths)
    assert np.linalg.norm(found.share - expected) < 0.1 * np.linalg.norm(expected)
    np.testing.assert_array_equal(found.share, again.share)
    with pytest.raises(ArgumentError, match="65 players here and is refused above 64"):
        kernel_shap(drawn_game(65, 1)[0], 0, 256, seed=0)


def test_a_global_generator_is_left_as_it_was():
    game, _ = drawn_game(4, 2)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    kernel_shap(game, 0, 256, seed=0)
    attribute(lambda x: x.sum(1), torch.ones(1, 3), torch.zeros(3), method="gradient_shap")
    assert torch.equal(before[0], torch.random.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_a_player_alone_is_what_is_lost_without_it():
    game, worths = drawn_game(6, 3, seed=5)
    found = leave_one_out(game, 0, 4)
    expected = [sum(w for g, w in worths.items() if player in g) for player in range(6)]
    np.testing.assert_allclose(found.share, expected, atol=1e-12)


def test_patches_of_an_image_share_what_they_receive():
    x = torch.arange(16.0, dtype=torch.float64).reshape(1, 4, 4)
    groups = torch.arange(4).repeat_interleave(2).reshape(2, 4).repeat_interleave(2, dim=0)
    weight = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(4, 4)
    found = attribute(
        lambda x: (x * weight).sum((1, 2)), x, torch.zeros(4, 4), method="shapley", groups=groups
    )
    for patch in range(4):
        inside = groups == patch
        total = (x[0] * weight)[inside].sum()
        torch.testing.assert_close(found.values[0][inside].sum(), total)
        assert found.values[0][inside].unique().numel() == 1
    with pytest.raises(ArgumentError, match="leaves nothing out and takes no groups"):
        attribute(lambda x: x.sum((1, 2)), x, torch.zeros(4, 4), groups=groups)
    with pytest.raises(ArgumentError, match="groups must be whole numbers of the shape"):
        attribute(lambda x: x.sum((1, 2)), x, x, method="shapley", groups=groups[:2])


def test_gradients_at_random_places_lie_within_their_errors_of_the_path():
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    zero = torch.zeros(4, dtype=torch.float64)

    def function(x: Tensor) -> Tensor:
        return torch.tanh(x.prod(dim=1)) + (x**3).sum(dim=1)

    path = attribute(function, x, zero, tolerance=1e-6)
    found = attribute(function, x, zero, method="gradient_shap", n_samples=4000)
    assert found.error is not None
    assert ((found.values - path.values).abs() < 5 * found.error).all()
    assert not found.withheld.any()
    few = attribute(function, x, zero, method="gradient_shap", n_samples=250)
    assert few.error is not None
    assert (few.error.mean() / found.error.mean()).item() == pytest.approx(4, rel=0.5)


def removed(cohort: Cohort, event: pd.Series) -> Cohort:
    """The cohort without one measured value."""
    own = cohort.observations
    same = (
        (own["subject_id"] == event["subject_id"])
        & (own["time"] == event["time"])
        & (own["variable"] == event["variable"])
    )
    assert same.sum() == 1
    return Cohort.from_tables(
        observations=own[~same],
        statics=cohort.statics,
        inputs=cohort.inputs,
        outcomes=cohort.outcomes,
    )


def test_what_is_deleted_was_never_measured(run, cohort):
    some = cohort.take(range(3, 5))
    found = explain(run, some, "event_deletion", "delete")
    told = found.to_pandas()
    told = told[told["kind"] == "observation"]
    for _, event in told.iloc[:: max(len(told) // 5, 1)].iterrows():
        record = found.gates["subject_id"] == event["subject_id"]
        with_it = found.gates.loc[record, "output"].item()
        without = explain(run, removed(some, event)).gates
        expected = with_it - without.loc[without["subject_id"] == event["subject_id"], "output"]
        assert event["attribution"] == pytest.approx(expected.item(), abs=1e-10)


def test_whole_variables_share_the_difference_from_a_record_that_was_never_measured(run, cohort):
    some = cohort.take(range(2, 6))
    found = explain(run, some, "shapley", "delete")
    told = found.to_pandas()
    assert found.players == "variable"
    assert told.groupby(["subject_id", "kind", "variable"]).size().max() == 1
    assert told["time"].isna().all()
    total = told.groupby("subject_id")["attribution"].sum()
    gates = found.gates.set_index("subject_id")
    change = (gates["output"] - gates["base"]).loc[total.index]
    np.testing.assert_allclose(total, change, atol=1e-9)
    assert (gates["standard_error"] >= 0).all()


def test_stretches_of_time_are_occluded_one_by_one(run, cohort):
    some = cohort.take(range(2, 5))
    told = explain(run, some, "occlusion", occluded_hours=8.0).to_pandas()
    own = told[told["kind"] == "observation"]
    assert own["time"].isin([40.0 - 8 * k for k in range(1, 7)]).all()
    assert not own.duplicated(["subject_id", "variable", "time"]).any()
    events = explain(run, some).to_pandas()
    events = events[events["kind"] == "observation"]
    stretch = 40.0 - (np.floor((40.0 - events["time"]) / 8) + 1) * 8
    expected = set(zip(events["subject_id"], events["variable"], stretch, strict=True))
    assert set(zip(own["subject_id"], own["variable"], own["time"], strict=True)) == expected


@pytest.fixture(scope="module")
def forecasting(tmp_path_factory):
    model = LinearLatentODE(latent=4, hidden=8, statistics_hidden=8, head_hidden=8, static_code=4)
    out = tmp_path_factory.mktemp("runs") / "forecast"
    return fit(
        model,
        make_cohort(50, seed=0),
        task=Forecast(8.0, at=30.0),
        out=out,
        config=FitConfig(epochs=2, batch_size=16, bucket_batches=2),
        progress=False,
    )


def test_a_forecast_of_one_variable_is_explained(forecasting, cohort):
    some = cohort.take(range(2, 7))
    found = explain(forecasting, some, output="HR", hours=5.0)
    assert found.outcome == "HR after 5 h"
    assert found.scale == "standard deviations of HR in training"
    total = found.to_pandas().groupby("subject_id")["attribution"].sum()
    gates = found.gates.set_index("subject_id").loc[total.index]
    change = gates["output"] - gates["base"]
    assert (np.abs(total - change) <= 0.01 * np.maximum(np.abs(change), 0.1)).all()
    shown = explain(forecasting, some, "event_deletion", "delete", output="HR", hours=5.0)
    np.testing.assert_allclose(shown.gates["output"], found.gates["output"], atol=1e-10)
    with pytest.raises(ArgumentError, match="reaches 8 hours, asked 9"):
        explain(forecasting, some, output="HR", hours=9.0)
    with pytest.raises(ArgumentError, match="unknown variable 'pulse'"):
        explain(forecasting, some, output="pulse")


def test_explaining_several_methods_never_changes_the_run(run, cohort):
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    explain(replace(run), cohort.take(range(3)), "gradient_shap", n_samples=20)
    assert all(torch.equal(p, before[name]) for name, p in run.model.named_parameters())
