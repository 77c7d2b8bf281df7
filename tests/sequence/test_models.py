"""What every family promises. A family that is not in the table of models fails here."""

import gc

import numpy as np
import pandas as pd
import pytest
import torch

from clinode.cohort import Classify, Forecast, Preprocessor
from clinode.errors import ArgumentError
from clinode.sequence import MODELS, SequenceModel, model_from_config
from clinode.sequence.inputs import Drive

DOUBLE = torch.float64
TASKS = ("classified", "forecast")


@pytest.fixture(params=sorted(MODELS))
def name(request) -> str:
    return request.param


@pytest.fixture(params=TASKS)
def records(request):
    return request.getfixturevalue(request.param)


def predictions(model, records, order, dtype=DOUBLE) -> dict[int, torch.Tensor]:
    """Predictions by position; of a forecast those at the subject's own queries."""
    batch = records.batch(order, dtype)
    with torch.no_grad():
        value = model(batch).value
    if batch.query_time is not None:
        known = ~batch.query_time.isnan()
        return {p: value[k][known[k]] for k, p in enumerate(batch.subject.tolist())}
    return {p: value[k] for k, p in enumerate(batch.subject.tolist())}


def test_every_family_is_in_the_table_of_models():
    families = {f for f in SequenceModel.__subclasses__() if f.__module__.startswith("clinode.")}
    assert families == set(MODELS.values())  # other tests have stand-ins of their own
    assert all(family.name == name for name, family in MODELS.items())


@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-12), (torch.float32, 1e-6)])
def test_a_prediction_does_not_depend_on_batch_mates_or_their_order(
    records, build, name, dtype, tolerance
):
    model = build(records, name, double=dtype == DOUBLE)
    order = np.random.default_rng(0).permutation(len(records))
    together = predictions(model, records, order, dtype)
    pairs = predictions(model, records, order[:2], dtype)
    for position in order[:6].tolist():
        alone = predictions(model, records, [position], dtype)[position]
        torch.testing.assert_close(alone, together[position], rtol=0, atol=tolerance)
    for position in order[:2].tolist():
        torch.testing.assert_close(pairs[position], together[position], rtol=0, atol=tolerance)


def test_edits_after_the_prediction_time_change_no_bit(tables, records, build, pack, name):
    model = build(records, name)
    until = records.prediction_time.min()
    later = tables["observations"].copy()
    after = later["time"] > until
    later.loc[after & (later["variable"] != "MechVent"), "value"] *= 1.1
    given = tables["inputs"].copy()
    given.loc[given["start"] > until, "value"] *= 2
    edited = pack({**tables, "observations": later, "inputs": given}, records.task, records.schema)
    order = list(range(len(records)))
    before, now = predictions(model, records, order), predictions(model, edited, order)
    assert all(torch.equal(before[p], now[p]) for p in order)


def test_a_subject_without_an_observation_has_a_finite_prediction(records, build, name):
    model = build(records, name)
    empty = int(np.argmin(records.lengths))
    batch = records.batch([empty], DOUBLE, **_queries(records))
    assert not batch.mask.any()
    assert model(batch).value.isfinite().all()


def test_only_measured_values_have_a_slope(records, build, name):
    model = build(records, name)
    batch = records.batch(np.arange(12), DOUBLE, **_queries(records))
    value, static = batch.value.clone().requires_grad_(), batch.static.clone().requires_grad_()
    given = batch.treatments.value.clone().requires_grad_()
    leaves = (value, static, given)
    asked = batch.replace(
        value=value, static=static, treatments=_with_value(batch.treatments, given)
    )
    slopes = torch.autograd.grad(model(asked).value.sum(), leaves)
    assert (slopes[0][~batch.mask] == 0).all()
    assert (slopes[0][batch.mask] != 0).all()
    assert (slopes[1][~batch.static_mask] == 0).all()
    assert (slopes[1][batch.static_mask] != 0).any()
    assert (slopes[2] != 0).all()


def test_slopes_in_the_values_are_those_of_finite_differences(classified, build, name):
    model = build(classified, name)
    batch = classified.batch([7, 9], DOUBLE)
    value = batch.value.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(batch.replace(value=value)).value.sum(), value)
    smooth = batch.mask.clone()
    smooth[:, classified.schema.variables.index("MechVent")] = False  # all ones: min and max tie
    rows, variables = torch.nonzero(smooth, as_tuple=True)
    for k in range(0, len(rows), 5):
        shift = torch.zeros_like(value)
        shift[rows[k], variables[k]] = 1e-5
        with torch.no_grad():
            up = model(batch.replace(value=batch.value + shift)).value.sum()
            down = model(batch.replace(value=batch.value - shift)).value.sum()
        expected = (up - down) / 2e-5
        assert slope[rows[k], variables[k]].item() == pytest.approx(
            expected.item(), rel=1e-4, abs=1e-9
        )


def test_an_empty_row_in_a_gap_changes_nothing(tables, untreated, build, pack, name):
    model = build(untreated, name)
    plain = {**tables, "inputs": None}
    more = tables["observations"]
    extra = pd.DataFrame(
        {"subject_id": 6, "time": [3.001, 17.3, 33.3], "variable": "HR", "value": 80.0}
    )
    asked = pack(
        {**plain, "observations": pd.concat([more, extra])}, untreated.task, untreated.schema
    )
    batch = asked.batch([5], DOUBLE)
    is_extra = torch.isin(batch.time, torch.tensor(extra["time"].to_numpy()))
    assert is_extra.sum() == 3
    thinned = batch.without(is_extra.unsqueeze(1).expand_as(batch.mask))
    with torch.no_grad():
        shown, expected = model(thinned).value, model(untreated.batch([5], DOUBLE)).value
    tolerance = max(1e-12, MODELS[name].flow_error or 0.0)
    torch.testing.assert_close(shown, expected, rtol=0, atol=tolerance)


def test_a_forecast_does_not_depend_on_what_else_is_asked(forecast, build, name):
    model = build(forecast, name)
    with torch.no_grad():
        few = model(forecast.batch([4, 8], DOUBLE, query_after=[2.0, 9.0])).value
        many = model(forecast.batch([4, 8], DOUBLE, query_after=[0.5, 2.0, 9.0, 11.9])).value
    torch.testing.assert_close(few, many[:, [1, 2]], rtol=0, atol=1e-12)


def test_the_latent_state_reads_nothing_after_the_asked_time(classified, build, name):
    model = build(classified, name)
    batch = classified.batch([5, 9, 11], DOUBLE)
    asked = torch.tensor([[10.0, 24.5]], dtype=DOUBLE).expand(3, 2)
    later = (batch.time > 24.5).unsqueeze(1).expand_as(batch.mask)
    with torch.no_grad():
        latent = model.latent(batch, asked)
        blind = model.latent(batch.without(later), asked)
        early = model.latent(batch, asked[:, :1])
    torch.testing.assert_close(latent, blind, rtol=0, atol=1e-12)
    torch.testing.assert_close(latent[:, :1], early, rtol=0, atol=1e-12)
    assert latent.abs().sum() > 0


def test_hours_named_otherwise_give_the_same_prediction(tables, build, pack, name):
    stretched = {
        **tables,
        "observations": tables["observations"].assign(time=tables["observations"]["time"] * 60),
        "inputs": tables["inputs"].assign(
            start=tables["inputs"]["start"] * 60,
            end=tables["inputs"]["end"] * 60,
        ),
    }
    # A window sixty times as long, with everything in it as far apart: its own scale is all that a
    # model knows of time. A rate is told by its level, so it stays the same; doses and the amounts
    # that families without a field read do not.
    shown = []
    for part in (tables, stretched):
        part = {**part, "inputs": part["inputs"][part["inputs"]["end"].notna()]}
        records = pack(part, Classify("died"))
        model = build(records, name)
        with torch.no_grad():
            if not any(isinstance(part, Drive) for part in model.modules()):
                model.inward.weight[:, -2 * len(records.schema.inputs) :] = 0
            for committee in (model.head.statistics, model.head.binned):
                committee.tower.inward.weight.zero_()
                committee.skip.weight.zero_()
        shown.append(predictions(model, records, np.arange(len(records))))
    for position, value in shown[0].items():
        torch.testing.assert_close(value, shown[1][position], rtol=0, atol=1e-6)


def test_the_same_seed_gives_the_same_bytes(records, build, name):
    losses = []
    for _ in range(2):
        model = build(records, name, double=False)
        generator = torch.Generator().manual_seed(5)
        loss = model.loss(records.batch(np.arange(8)), generator)
        loss.backward()
        losses.append([loss, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert all(torch.equal(*pair) for pair in zip(*losses, strict=True))


def test_nothing_is_drawn_from_the_global_generator(records, build, name):
    state = torch.random.get_rng_state()
    model = build(records, name, double=False)
    model.loss(records.batch(np.arange(8)), torch.Generator().manual_seed(5))
    model(records.batch(np.arange(8)))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_every_parameter_is_trained(records, build, name):
    model = build(records, name, double=False)
    model.loss(records.batch(np.arange(len(records))), torch.Generator().manual_seed(5)).backward()
    idle = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_augmentation_is_only_in_a_loss_with_a_generator(classified, build, name):
    model = build(classified, name)
    batch = classified.batch(np.arange(8), DOUBLE)
    plain = model.loss(batch, None)
    assert torch.equal(plain, model.loss(batch, None))
    assert not torch.equal(plain, model.loss(batch, torch.Generator().manual_seed(0)))


def test_a_step_leaves_no_tensor_for_the_garbage_collector(classified, build, name):
    model = build(classified, name)
    gc.collect()
    gc.disable()
    try:
        model.loss(classified.batch(np.arange(8), DOUBLE), None).backward()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [found for found in gc.garbage if isinstance(found, torch.Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []


@pytest.mark.slow
def test_training_lowers_the_loss(records, build, name):
    model = build(records, name, double=False)
    batch = records.batch(np.arange(4, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    start = model.loss(batch, None).item()
    for step in range(8):
        optimizer.zero_grad()
        model.loss(batch, torch.Generator().manual_seed(step)).backward()
        optimizer.step()
    assert model.loss(batch, None).item() < 0.95 * start


def test_a_model_is_rebuilt_from_its_configuration_and_weights(records, build, name):
    model = build(records, name, double=False)
    again = model_from_config(model.config()).build(
        Preprocessor.from_dict(records.schema.to_dict()), records.task, torch.Generator()
    )
    again.load_state_dict(model.state_dict())
    batch = records.batch(np.arange(8))
    assert torch.equal(model(batch).value, again(batch).value)


def test_a_cohort_without_statics_or_treatments_is_modelled_too(tables, build, pack, name):
    bare = {**tables, "statics": None, "inputs": None}
    for task in (Classify("died"), Forecast(12.0)):
        records = pack(bare, task)
        model = build(records, name, double=False)
        loss = model.loss(records.batch(np.arange(8)), torch.Generator().manual_seed(0))
        loss.backward()
        assert loss.isfinite()


def test_an_unbuilt_model_says_what_is_missing(classified, name):
    with pytest.raises(ArgumentError, match="has no sizes yet"):
        model_from_config({"name": name})(classified.batch([0]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"static_code": 0}, "static_code must be at least 1"),
        ({"dropout": 1.0}, "dropout is out of range"),
        ({"auxiliary_weight": -0.1}, "auxiliary_weight is out of range"),
        ({"static_code": True}, "static_code must be a number"),
    ],
)
def test_settings_out_of_range_are_refused(name, change, words):
    with pytest.raises(ArgumentError, match=words):
        model_from_config({"name": name, **change})


def test_an_unknown_family_or_setting_is_named():
    with pytest.raises(ArgumentError, match="unknown model 'lstm'; there are: linear-latent-ode"):
        model_from_config({"name": "lstm"})
    with pytest.raises(ArgumentError, match=r"gru-d: .*'depth'"):
        model_from_config({"name": "gru-d", "depth": 3})


def _queries(records) -> dict:
    return {"query_after": [1.0, 7.0]} if isinstance(records.task, Forecast) else {}


def _with_value(treatments, value):
    return type(treatments)(**{**vars(treatments), "value": value})
