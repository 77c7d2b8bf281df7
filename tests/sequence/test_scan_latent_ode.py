import numpy as np
import torch
from scipy.linalg import expm

from clinode.sequence.inputs import step_inputs

NAME = "scan-latent-ode"


def test_the_states_are_those_of_the_recurrence_written_plainly(classified, build):
    model = build(classified, NAME)
    batch = classified.batch(np.arange(8), torch.float64)
    remembered = model.memory.before(batch)
    with torch.no_grad():
        states, flowed = model._run(batch, remembered)
        expected = plain_states(model, batch, remembered)
    for ours, oracle in zip((states, flowed), expected, strict=True):
        torch.testing.assert_close(ours, oracle, rtol=1e-11, atol=1e-12)


def plain_states(model, batch, remembered):
    """One record at a time: matrix exponentials, layer by layer, no scan."""
    system = model.latent_system
    n_layers, modes, n = model.settings.layers, model.settings.latent, batch.value.shape[1]
    own = system.n_states - n
    A = system.A[:own, :own]
    B = model.drive.matrix
    step = step_inputs(batch, remembered)
    P, R = model.decoder.weight.split([own, n], dim=1)
    rates, doses = (
        part(batch.n_rows) for part in (batch.treatments.rates, batch.treatments.impulses)
    )
    states, flowed = (
        torch.zeros(batch.n_rows, own).double(),
        torch.zeros(batch.n_rows, own).double(),
    )
    layer_of = torch.arange(n_layers).repeat_interleave(modes).repeat(2)
    for record in range(len(batch)):
        state = torch.zeros(own).double()
        for row in torch.nonzero(batch.row_subject == record).squeeze(1).tolist():
            whole = torch.zeros(own + 1, own + 1).double()
            whole[:own, :own], whole[:own, own] = A, B @ rates[row]
            moved = torch.from_numpy(expm(whole.numpy() * batch.gap[row].item()))
            before = moved[:own, :own] @ state + moved[:own, own] + B @ doses[row]
            state = before.clone()
            gates = torch.sigmoid(model.gates(step[row])) * batch.is_observed[row]
            told, shown = step[row], remembered[row] @ R.T + model.decoder.bias
            for layer in range(n_layers):
                mine = layer_of == layer
                gate = gates[layer * modes : (layer + 1) * modes].repeat(2)
                aim = torch.tanh(model.aims[layer](told))
                state[mine] = (1 - gate) * before[mine] + gate * aim
                shown = shown + P[:, mine] @ before[mine]
                error = batch.mask[row] * (batch.value[row] - shown)
                told = torch.cat([step[row], state[mine], error])
            flowed[row], states[row] = before, state
    return states, flowed


def test_what_all_layers_leave_unexpected_is_the_error_of_the_decoder(classified, build):
    model = build(classified, NAME)
    batch = classified.batch(np.arange(8), torch.float64)
    with torch.no_grad():
        maps, recall = model._maps
        remembered = model.memory.before(batch)
        _, flowed = model._run(batch, remembered)
        parts = flowed.unflatten(1, (2, model.settings.layers, model.settings.latent)).unbind(2)
        shown = remembered @ recall.T + model.decoder.bias
        for layer, part in enumerate(parts):
            shown = shown + part.flatten(1) @ maps[layer].T
        torch.testing.assert_close(shown, model(batch).next_observation, rtol=1e-12, atol=1e-12)


def test_a_later_state_is_affine_in_an_earlier_one(untreated, build):
    # what makes a scan possible: no gate and no aim of a layer reads the state of the layer
    model = build(untreated, NAME)
    batch = untreated.batch(np.arange(4, 10), torch.float64)
    remembered = model.memory.before(batch).detach()
    modes, n = model.settings.latent, batch.sizes[1]
    lowest = torch.cat([torch.arange(modes), torch.arange(modes) + modes * model.settings.layers])
    last = batch.last_row[:n]
    states = []
    with torch.no_grad():
        for push in (0.0, 1.0, 2.0):
            model.aims[0] = _Pushed(model.aims[0], push, batch.sizes[0])
            states.append(model._run(batch, remembered)[0][last][:, lowest])
            model.aims[0] = model.aims[0].aim
    assert not torch.equal(states[0], states[1])
    torch.testing.assert_close(states[2] - states[1], states[1] - states[0], rtol=1e-9, atol=1e-13)


class _Pushed(torch.nn.Module):
    """An aim whose image by tanh is moved at the first row of each record."""

    def __init__(self, aim: torch.nn.Module, push: float, n_first: int):
        super().__init__()
        self.aim, self.push, self.n_first = aim, push, n_first

    def forward(self, told: torch.Tensor) -> torch.Tensor:
        aimed = torch.tanh(self.aim(told))
        aimed[: self.n_first] = aimed[: self.n_first] * (1 - 0.2 * self.push)
        return torch.atanh(aimed)
