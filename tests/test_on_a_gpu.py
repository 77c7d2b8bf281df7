"""What a machine with CUDA promises: the answers of the CPU, from tensors that lie on the GPU."""

import numpy as np
import pytest
import torch

from clinode.attribution import explain
from clinode.brain import WilsonCowanNetwork, simulate_connectome
from clinode.cohort import Classify, PackedRecords, Preprocessor, split
from clinode.control import controllability
from clinode.dynamics import find_equilibria, linearize, simulate
from clinode.physiology import simulate_cohort
from clinode.sequence import MODELS, ODERNN
from clinode.training import FitConfig, fit, load_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA"),
]
TASK = Classify("in_hospital_death")


@pytest.fixture(scope="module")
def cohort():
    return simulate_cohort(90, 0)


@pytest.fixture(scope="module")
def records(cohort):
    return PackedRecords.build(cohort, Preprocessor.fit(cohort, TASK), TASK)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("name", MODELS)
def test_a_family_is_blind_to_the_batch_and_says_what_it_says_on_the_cpu(
    records, name, dtype, tolerance
):
    model = MODELS[name]().build(records.schema, TASK, torch.Generator().manual_seed(0))
    model.prepare(records)
    model = model.to(dtype)
    batch = records.batch(list(range(40)), dtype)
    with torch.no_grad():
        here = model(batch).value
        model.cuda()
        there = model(batch.to("cuda")).value.cpu()
        torch.testing.assert_close(there, here, rtol=0, atol=tolerance)
        for place, position in enumerate(batch.subject[:4].tolist()):
            alone = model(records.batch([position], dtype).to("cuda")).value[0].cpu()
            torch.testing.assert_close(alone, there[place], rtol=0, atol=tolerance)


def test_a_fit_is_explained_and_hands_over_its_system(cohort, tmp_path):
    train, test = split(cohort, (0.7, 0.3), salt="gpu")
    call = {"task": TASK, "config": FitConfig(epochs=1, batch_size=32), "progress": False}
    run = fit(ODERNN(hidden=6), train, out=tmp_path / "run", device="cuda", **call)
    back = load_run(tmp_path / "run", device="cpu")
    few = test.take(range(2))
    for method in ("integrated_gradients", "occlusion"):
        there, here = (explain(r, few, method=method).to_pandas() for r in (run, back))
        np.testing.assert_allclose(there["attribution"], here["attribution"], atol=1e-5)
    there, here = (find_equilibria(r.model.latent_system, n_starts=4) for r in (run, back))
    assert len(there) == len(here)
    torch.testing.assert_close(there[0].state.cpu(), here[0].state, atol=1e-4, rtol=1e-4)


def test_a_network_rests_moves_and_is_controlled_as_on_the_cpu():
    connectome = simulate_connectome(12, 0)
    times = torch.linspace(0, 0.1, 5, dtype=torch.float64)
    found = []
    for device in ("cpu", "cuda"):
        brain = WilsonCowanNetwork(connectome).to(device)
        rest = find_equilibria(brain, n_starts=16)[0]
        start = rest.state.to(device) + 0.01
        moved = simulate(brain, start, times)
        assert moved.states.device.type == device
        linear = linearize(brain, rest, inputs=[brain.inputs[0].names[0]])
        found.append((rest.state.cpu(), moved.states.cpu(), controllability(linear).dimension))
    torch.testing.assert_close(found[1][0], found[0][0], atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(found[1][1], found[0][1], atol=1e-7, rtol=1e-6)
    assert found[0][2] == found[1][2]
