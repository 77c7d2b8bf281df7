"""The checks against models whose faults are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clinode.attribution import Attributions, explain
from clinode.attribution.checks import (
    Asked,
    check_attributions,
    insertion_deletion,
    label_permutation,
    measurement_sensitivity,
    method_agreement,
    seed_stability,
    weight_randomization,
)
from clinode.attribution.checks.insertion import _Course, _scores
from clinode.attribution.checks.randomization import _cascade, _randomized
from clinode.attribution.coalitions import Game
from clinode.cohort import Cohort, Forecast
from clinode.errors import ArgumentError
from clinode.training import Ensemble, FitConfig

SLOPE = Asked(method="input_x_gradient")  # one gradient a subject: the checks are on trial here


@pytest.fixture(scope="module")
def some(cohort) -> Cohort:
    return cohort.take(range(1, 7))


@pytest.fixture(scope="module")
def twins(run, tmp_path_factory) -> Ensemble:
    """Two members, the second with random weights."""
    other = replace(run, model=_randomized(run.model, 3))
    return Ensemble(folder=tmp_path_factory.mktemp("twins"), runs=(run, other))


def test_a_map_of_the_records_alone_fails_the_randomization_of_weights(run, some):
    own = explain(run, some)

    class Edges(Asked):
        """Asks for no model: the attribution is the value itself."""

        def of(self, run, cohort) -> Attributions:
            return replace(own, events=own.events.assign(attribution=own.events["value"]))

    found = weight_randomization(run, some, Edges(), n_random=2)
    assert found.trained_and_random.value == pytest.approx(1.0)
    assert found.verdict.startswith("failed: under any weights the maps are nearly the same")


def test_a_map_of_the_model_is_compared_with_the_null_of_random_models(run, some):
    found = weight_randomization(run, some, SLOPE, n_random=3, cascade=True)
    assert found.verdict.startswith(("passed: it resembles", "doubtful: it resembles"))
    assert 0.3 < found.random_and_random.value < 0.9  # high, though no weight is shared
    assert found.same_sign.value == pytest.approx(0.5, abs=0.3)
    assert next(iter(found.stages)) == "head"
    one = found.excess
    assert one.value == pytest.approx(
        found.trained_and_random.value - found.random_and_random.value
    )
    assert one.low <= one.value <= one.high


def test_random_weights_leave_none_of_the_trained_and_all_of_what_was_fixed_before(run):
    random = _randomized(run.model, 1)
    held = dict(run.model.named_parameters())
    for name, weight in random.named_parameters():
        if weight.numel() > 4:
            assert not torch.equal(weight, held[name])
    for name, constant in random.named_buffers():
        assert torch.equal(constant, run.model.get_buffer(name))
    stages = _cascade(run.model, random)
    last = stages[-1][1]
    drawn = dict(random.named_parameters())
    unread = ("decoder.",)
    for name, weight in last.named_parameters():
        if not name.startswith(unread):
            assert torch.equal(weight, drawn[name])
    first = dict(stages[0][1].named_parameters())
    kept = [name for name in held if not name.startswith("head.")]
    assert kept
    assert all(torch.equal(first[name], held[name]) for name in kept)


def test_an_ensemble_of_one_model_twice_is_perfectly_stable_and_of_two_models_is_not(
    run, twins, some
):
    twice = Ensemble(folder=twins.folder, runs=(run, run))
    same = seed_stability(twice, some, SLOPE)
    assert [found.value for found in same.estimates().values()] == pytest.approx([1.0] * 4)
    assert same.verdict.startswith("passed")
    assert same.pairs == {(0, 1): pytest.approx(1.0)}
    other = seed_stability(twins, some, SLOPE)
    assert other.verdict.startswith("failed: from seed to seed")
    assert other.same_sign.value < 0.8
    with pytest.raises(ArgumentError, match="one member has no other"):
        seed_stability(Ensemble(folder=twins.folder, runs=(run,)), some)


def test_of_an_additive_model_the_map_moves_as_the_values_do(additive_run, some):
    # gradient times change is weight times deviation: a linear map of what was measured
    found = measurement_sensitivity(additive_run, some, SLOPE, errors=0.001, n_draws=1)
    twice = measurement_sensitivity(additive_run, some, SLOPE, errors=0.002, n_draws=1)
    assert twice.change.value == pytest.approx(2 * found.change.value, rel=0.02)
    assert found.verdict.startswith("passed")
    assert found.errors == dict.fromkeys(("HCT", "HR", "Lactate", "MAP"), 0.001)
    still = measurement_sensitivity(additive_run, some, SLOPE, errors=0.0, n_draws=1)
    assert [still.change.value, still.output_change.value] == pytest.approx([0.0, 0.0], abs=1e-12)


def test_errors_of_measurement_are_those_that_were_named(additive_run, some):
    found = measurement_sensitivity(
        additive_run, some, SLOPE, errors={"HR": 0.0, "Lactate": 0.5}, n_draws=1
    )
    assert (found.errors["HR"], found.errors["Lactate"]) == (0.0, 0.5)
    table = some.observations.astype({"variable": str}).set_index("variable")["value"]
    tenth = 0.1 * table.groupby(level=0).std(ddof=0) / table.groupby(level=0).mean()
    unnamed = measurement_sensitivity(additive_run, some, SLOPE, n_draws=1)
    assert unnamed.errors["MAP"] == found.errors["MAP"]
    for name in ("MAP", "HCT"):  # who knows the assay no better: never a large part of the spread
        assert found.errors[name] == pytest.approx(min(0.02, tenth[name]))
    for errors, words in (
        ({"Weight": 0.1}, "no continuous variable 'Weight'"),
        (-0.1, "must lie between 0 and 1"),
        ({"HR": float("nan")}, "variation of HR must lie between 0 and 1"),
        (5.0, "a measurement error of 5 % is 0.05"),
    ):
        with pytest.raises(ArgumentError, match=words):
            measurement_sensitivity(additive_run, some, SLOPE, errors=errors)


def test_methods_agree_on_an_additive_model_and_each_pair_has_its_row(additive_run, some):
    methods = ("integrated_gradients", "input_x_gradient", "event_deletion")
    found = method_agreement(additive_run, some, methods=methods)
    assert len(found.pairs) == 3
    assert found.verdict.startswith("passed: every two methods share at least")
    for numbers in found.pairs.values():
        assert numbers["signed rank"].value == pytest.approx(1.0)
        assert numbers["rank correlation"].value == pytest.approx(1.0)
    assert found.to_dict()["pairs"][0]["methods"] == list(methods[:2])
    with pytest.raises(ArgumentError, match="at least two different methods"):
        method_agreement(additive_run, some, methods=("saliency", "saliency"))
    with pytest.raises(ArgumentError, match="compare single events"):
        method_agreement(additive_run, some, methods=("saliency", "occlusion"))


def test_on_an_additive_model_the_order_of_the_map_is_the_greedy_one(additive_run, some):
    two = some.take([1, 4])
    found = insertion_deletion(additive_run, two, fills=("cohort_mean", "carry"), n_steps=5)
    for way in ("insertion", "deletion"):
        assert found.scores["cohort_mean", way].value == pytest.approx(1.0, abs=1e-9)
        assert found.scores["cohort_mean", way].low == pytest.approx(1.0, abs=1e-9)
    assert found.shares[0] == 0.0
    curves = {order: found.curves["cohort_mean", "insertion", order] for order in ("map", "random")}
    assert curves["map"][0] == pytest.approx(curves["random"][0])
    assert curves["map"][-1] == pytest.approx(curves["random"][-1])
    assert (np.array(curves["map"]) >= np.array(curves["random"]) - 1e-9).all()
    low, high = (np.array(end) for end in found.bands["cohort_mean", "insertion"])
    assert (low <= np.array(curves["map"]) + 1e-9).all()
    assert (np.array(curves["map"]) <= high + 1e-9).all()
    # with nothing and with everything there is no order
    assert low[[0, -1]] == pytest.approx(np.array(curves["random"])[[0, -1]])


def test_the_output_follows_an_order_of_events_as_counted_by_hand():
    worth = torch.tensor([3.0, -1.0, 2.0, 0.5]).double()

    def value(present, _which):
        return present.double() @ worth + 2 * (present[:, 0] & present[:, 1])

    course = _Course(Game(value, np.arange(4)[None]), row=0, n_events=4, n_steps=4, batch_size=3)
    order = [np.array([1, 0, 2, 3])]
    assert course.along(order, "insertion").tolist() == [[0.0, -1.0, 4.0, 6.0, 6.5]]
    assert course.along(order, "deletion").tolist() == [[6.5, 5.5, 2.5, 0.5, 0.0]]
    # 3 first, then 2, then -1 with the 2 that it makes of the first
    assert course.greedy("insertion").tolist() == [0.0, 3.0, 5.0, 6.0, 6.5]
    assert course.greedy("deletion").tolist() == [6.5, 1.5, -0.5, -1.0, 0.0]
    halves = _Course(course.game, row=0, n_events=4, n_steps=2, batch_size=3)
    assert halves.shares.tolist() == [0.0, 0.5, 1.0]
    assert halves.greedy("insertion").tolist() == [0.0, 5.0, 6.5]


def test_scores_are_0_for_a_random_order_1_for_the_greedy_one_and_in_between_in_proportion():
    own, random, greedy = np.array([2.0, 4.0]), np.array([1.0, 1.0]), np.array([3.0, 7.0])
    areas = {
        ("delete", "insertion"): np.stack([own, random, greedy]),
        ("delete", "deletion"): -np.stack([random, random, greedy]),
        ("carry", "insertion"): np.stack([own, own, own]),
    }
    scores = _scores(areas, n_resamples=200, seed=0)
    assert scores["delete", "insertion"].value == pytest.approx(4 / 8)
    assert scores["delete", "deletion"].value == 0.0
    assert scores["carry", "insertion"].verdict.startswith("undefined: no order of events")


@pytest.mark.parametrize("fills", [("delete",), ("delete", "zero"), ("carry", "carry")])
def test_one_fill_alone_is_refused(additive_run, some, fills):
    with pytest.raises(ArgumentError, match="at least two different fills"):
        insertion_deletion(additive_run, some, fills=fills)


def test_labels_of_measurements_cannot_be_permuted(run, some):
    with pytest.raises(ArgumentError, match="no labels to permute"):
        label_permutation(replace(run, task=Forecast(12.0)), some, some)


@pytest.mark.slow
def test_every_check_that_applies_has_its_rows_in_one_table(run, twins, some, tables):
    calls = []
    config = FitConfig(epochs=1, batch_size=16, bucket_batches=2)
    train = Cohort.from_tables(**{**tables, "outcomes": tables["outcomes"]})
    found = check_attributions(
        twins,
        some,
        train=train,
        refit=config,
        n_random=2,
        n_ordered=2,
        n_resamples=100,
        progress=lambda done, of: calls.append((done, of)),
    )
    assert calls[-1] == (6, 6)
    assert found.left_out == {}
    table = found.to_pandas()
    assert list(table.columns) == ["check", "quantity", "value", "low", "high", "verdict"]
    assert set(table["check"]) == set(found.checks)
    words = ("passed:", "failed:", "doubtful:", "undecided:")
    assert table["verdict"].str.startswith(words).all()
    assert set(found.to_dict()["checks"]) == set(found.checks)
    alone = check_attributions(run, some.take([1]), n_random=2, n_ordered=1, n_resamples=20)
    assert set(alone.left_out) == {"label permutation", "seed stability"}
    left = alone.to_pandas().query("check == 'seed stability'")
    assert left["verdict"].tolist()[0].startswith("left out: it compares the members")
