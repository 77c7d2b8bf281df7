import numpy as np
import torch
from sklearn.linear_model import Ridge

from clinode.sequence.anchor import FADING, PENALTY, Anchor, carried_forward
from clinode.sequence.forecast_head import HALF_TRUSTED

PACE = 48 / 42


def queries(records):
    """Of every query: columns of the ridge by hand, variable, target and what is asked for."""
    batch = records.batch(np.arange(len(records)), torch.float64)
    seen = carried_forward(batch, PACE)
    ever = torch.stack([batch.mask[batch.row_subject == p].any(0) for p in range(len(batch))])
    subject, query, variable = batch.target_mask.nonzero(as_tuple=True)
    own = torch.cat([seen, ever.unsqueeze(1), torch.ones_like(seen[:, :1])], dim=1)
    own = own[subject, :, variable]
    ahead = (batch.query_time - batch.prediction_time.unsqueeze(1))[subject, query]
    parts = [own, *(own * torch.exp(-ahead * PACE / tau).unsqueeze(1) for tau in FADING)]
    return batch, (subject, query, variable), torch.stack(parts, dim=2).flatten(1).numpy()


def test_the_anchor_starts_as_the_ridge_of_scikit_learn(forecast):
    anchor = Anchor(len(forecast.schema.variables), PACE).double()
    anchor.prepare(forecast)
    batch, where, columns = queries(forecast)
    with torch.no_grad():
        found = anchor(batch, carried_forward(batch, PACE))[where].numpy()
    target, variable = batch.target[where].numpy(), where[2].numpy()
    scale = np.ones(columns.shape[1])
    scale[-len(FADING) - 1] = np.sqrt(PENALTY / 1e-3)  # the level is hardly drawn to 0
    for v in np.unique(variable):
        own = variable == v
        ridge = Ridge(PENALTY, fit_intercept=False).fit((columns * scale)[own], target[own])
        np.testing.assert_allclose(found[own], ridge.predict((columns * scale)[own]), atol=1e-8)


def test_a_variable_that_is_never_asked_for_answers_its_mean(forecast):
    anchor = Anchor(1 + len(forecast.schema.variables), PACE)  # one more than is asked for
    anchor.prepare(forecast)
    coefficient = anchor.coefficient.detach().view(anchor.shape)
    assert (coefficient[-1] == 0).all()
    assert (coefficient[:-1, :, 0] != 0).any(dim=1).all()


def test_what_the_network_adds_counts_by_the_queries_behind_it(forecast, build):
    model = build(forecast, "linear-latent-ode")
    model.prepare(forecast)
    batch = forecast.batch(np.arange(len(forecast)), torch.float64)
    _, (_, _, variable), _ = queries(forecast)
    counts = torch.bincount(variable, minlength=batch.value.shape[1]).double()
    head = model.head
    with torch.no_grad():
        anchored = head.anchor(batch, carried_forward(batch, head.anchor.pace))
        shown = model(batch).value - anchored
        torch.testing.assert_close(head.trust, counts / (counts + HALF_TRUSTED))
        head.trust.fill_(1.0)
        whole = model(batch).value - anchored
    trust = counts / (counts + HALF_TRUSTED)
    torch.testing.assert_close(shown, trust * whole, atol=1e-9, rtol=1e-9)
    assert whole.abs().max() > 1e-3


def test_hidden_variables_are_taken_as_never_measured(forecast, build):
    model = build(forecast, "linear-latent-ode")
    model.prepare(forecast)
    batch = forecast.batch(np.arange(len(forecast)), torch.float64)
    unseen = torch.zeros(len(batch), batch.value.shape[1], dtype=torch.bool)
    unseen[:, 0] = True
    anchor = model.head.anchor
    seen = carried_forward(batch, anchor.pace).masked_fill(unseen.unsqueeze(1), 0.0)
    with torch.no_grad():
        hidden = anchor(batch, seen, unseen)
        gone = batch.without(unseen[batch.row_subject])
        never = anchor(gone, carried_forward(gone, anchor.pace))
    torch.testing.assert_close(hidden[..., 0], never[..., 0])
