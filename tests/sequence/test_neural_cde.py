import numpy as np
import torch
from scipy.integrate import solve_ivp

DOUBLE = torch.float64
SUBJECT = 12


def as_numpy(model) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in model.state_dict().items()}


def follow(model, batch, jump_tolerance=1e-12) -> np.ndarray:
    """The controlled equation along its path, by an adaptive solver from segment to segment."""
    p = as_numpy(model)
    B = model.field.drive.matrix.detach().numpy()
    hidden, inner = model.settings.hidden, model.settings.field_hidden
    n_variables = batch.value.shape[1]
    decay = np.exp(p["field.log_decay"])
    along = p["along"].T.reshape(2 * n_variables, hidden, inner)
    value, mask, time = (part.numpy() for part in (batch.value, batch.mask, batch.time))
    rates = batch.treatments.rates(batch.n_rows).numpy()
    doses = batch.treatments.impulses(batch.n_rows).numpy()

    def matrix_of(z):
        bend = np.tanh(p["jump_bend"] @ z + p["jump_offset"])
        return (np.einsum("chu,u->ch", along, bend) + p["straight"].T).T

    def in_time(t, z, drive):
        bounded = p["field.push"] @ np.tanh(p["field.bend"] @ z + p["field.bend_offset"])
        return -decay * z + bounded + drive

    z, path = np.zeros(hidden), np.zeros(2 * n_variables)
    counts, states = np.zeros(n_variables), []
    for row in range(batch.n_rows):
        if row:
            drive = B @ rates[row]
            span = (time[row - 1], time[row])
            z = solve_ivp(in_time, span, z, args=(drive,), rtol=1e-11, atol=1e-13).y[:, -1]
        z = z + B @ doses[row]
        counts = counts + mask[row]
        goal = np.concatenate(
            [np.where(mask[row], value[row], path[:n_variables]), np.sqrt(counts)]
        )
        direction, path = goal - path, goal
        moved = solve_ivp(
            lambda s, z, d=direction: matrix_of(z) @ d,
            (0, 1),
            z,
            rtol=jump_tolerance,
            atol=jump_tolerance,
        )
        z = moved.y[:, -1]
        states.append(z)
    return np.array(states)


def test_the_state_is_the_solution_of_the_controlled_equation(classified, build):
    model = build(classified, "neural-cde")
    batch = classified.batch([SUBJECT], DOUBLE)
    assert batch.treatments.is_impulse.any()
    with torch.no_grad():
        found, _ = model._run(batch, model.memory.before(batch))
    np.testing.assert_allclose(found.numpy(), follow(model, batch), rtol=0, atol=1e-4)


def test_halving_the_way_along_values_shows_their_solver_s_fourth_order(classified, build):
    model = build(classified, "neural-cde")
    hidden, inner = model.settings.hidden, model.settings.field_hidden
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(40, hidden, dtype=DOUBLE, generator=generator)
    along = torch.randn(40, hidden, inner, dtype=DOUBLE, generator=generator) / inner
    straight = torch.randn(40, hidden, dtype=DOUBLE, generator=generator)

    def walk(n: int) -> torch.Tensor:
        at = z
        for _ in range(n):
            at = model._jump(at, along / n, straight / n)
        return at

    with torch.no_grad():
        exact = walk(256)
        errors = [(walk(n) - exact).norm().item() for n in (4, 8, 16)]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert (orders > 3.7).all()
    assert (orders < 4.5).all()


def test_values_that_were_not_measured_do_not_move_the_path(classified, build):
    model = build(classified, "neural-cde")
    batch = classified.batch([SUBJECT], DOUBLE)
    wild = batch.replace(value=torch.where(batch.mask, batch.value, 1e3))
    with torch.no_grad():
        found, _ = model._run(batch, model.memory.before(batch))
        again, _ = model._run(wild, model.memory.before(batch))
    assert torch.equal(found, again)
