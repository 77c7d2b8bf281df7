import base64

import numpy as np
import pytest
import torch

from clinode.brain.memory import GradedHopfield, Hopfield, ModernHopfield
from clinode.dynamics.simulate import simulate
from clinode.figures.dynamics import traces_figure
from clinode.figures.memory import capacity_figure, recall_figure, retrieval_figure
from clinode.figures.picture import data_uri


def random_patterns(count, n, seed=0):
    return torch.tensor(np.random.default_rng(seed).choice([-1.0, 1.0], (count, n)))


def capacity():
    n, loads, overlaps = 1200, np.linspace(0.02, 0.19, 9), []
    for load in loads:
        patterns = random_patterns(round(load * n), n)
        generator = torch.Generator().manual_seed(0)
        recall = Hopfield.store(patterns).complete(patterns[:8], generator=generator)
        overlaps.append(float((recall.state * patterns[:8]).mean()))
    return capacity_figure(loads, np.array(overlaps))


def recall():
    rows, columns = np.indices((16, 16))
    ring = np.where(abs(np.hypot(rows - 7.5, columns - 7.5) - 5) < 1.3, 1.0, -1.0)
    patterns = torch.cat([torch.tensor(ring).reshape(1, -1), random_patterns(8, 256)])
    mask = torch.arange(256) < 112
    generator = torch.Generator().manual_seed(0)
    found = Hopfield.store(patterns).complete(patterns[0], mask, generator=generator)
    cue = torch.where(mask, patterns[0], torch.zeros(256).double()).reshape(16, 16)
    return recall_figure(patterns[0].reshape(16, 16), cue, found)


def graded_recall():
    patterns = random_patterns(3, 60)
    system = GradedHopfield(Hopfield.store(patterns).weights)
    cue = 0.1 * patterns[0] * torch.where(torch.arange(60) % 4 == 0, -1.0, 1.0)
    times = torch.linspace(0, 120, 121).double()
    return traces_figure(simulate(system, cue, times, method="rk4", step=1.0), ["u", "V"])


def retrieval():
    patterns = random_patterns(64, 64, 3)
    scores = patterns @ patterns[0]
    betas, errors = np.linspace(0.1, 0.6, 11), []
    for beta in betas:
        found = ModernHopfield(patterns, beta=beta).next_state(
            0, patterns[0], patterns.new_zeros(0)
        )
        errors.append(float((found - patterns[0]).norm()))
    return retrieval_figure(betas, np.array(errors), float(scores[0] - scores[1:].max()))


FIGURES = {
    capacity: ("load (patterns per unit)", "overlap with the pattern (1)", "critical load 0.1379"),
    recall: ("sweep (all units once)", "energy (1)", "recalled"),
    graded_recall: ("time (ms)", "u, member", "V, member"),
    retrieval: ("inverse temperature", "error of retrieval (1)"),
}


@pytest.mark.parametrize("make", FIGURES)
def test_every_axis_carries_its_quantity_and_unit(make):
    text = base64.b64decode(data_uri(make()).split(",", 1)[1]).decode()
    for words in FIGURES[make]:
        assert words in text
