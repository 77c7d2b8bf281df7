"""What a bias buys: networks fitted to the same snapshots under different priors, then lesioned.

    python scripts/benchmarks/alignment.py linear|conductances [--snapshots 5000] [--seeds 20]

Hidden networks, drawn at random, are seen at rest under noise, by their mean and covariance:
exactly, or from a number of snapshots. Networks with free weights and with priors are fitted to
what was seen, and both are put under lesions: of a linear network every unit and every pair is
silenced, of one with conductances each unit is hyperpolarized. Each row of the table is the mean
over hidden networks, with its 95 % interval over them.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import clinode as cn
from clinode.alignment import AtRest, covariance_twins, lesions
from clinode.dynamics import (
    ConductanceForm,
    DalesLaw,
    LowRank,
    NetworkDrift,
    SparsityMask,
    Stable,
    fit_stationary,
    stationary_moments,
)
from clinode.statistics import bootstrap_interval

DENSITY = 0.3
ITERATIONS = 300
NOISE = 0.01  # of each unit, squared activity per time unit


@dataclass(frozen=True)
class Hidden:
    """A network that nobody sees, and what is seen of it."""

    system: cn.System
    mask: Tensor
    signs: Tensor
    mean: np.ndarray
    covariance: np.ndarray
    diffusion: np.ndarray


def drawn_structure(n: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """A sparse mask and the signs of the units, a third of them inhibitory."""
    mask = torch.rand(n, n, generator=draw) < DENSITY
    mask.fill_diagonal_(False)
    signs = torch.where(torch.arange(n) < round(2 * n / 3), 1.0, -1.0).double()
    return mask, signs


def linear_hidden(n: int, seed: int) -> Hidden:
    """A linear network, sparse and under Dale's law."""
    draw = torch.Generator().manual_seed(seed)
    mask, signs = drawn_structure(n, draw)
    W = torch.rand(n, n, generator=draw, dtype=torch.float64) * mask * signs
    W = 0.8 * W / torch.linalg.eigvals(W).abs().max().clamp(min=0.5)
    drive = 0.5 + torch.rand(n, 1, generator=draw, dtype=torch.float64)
    system = cn.LinearSystem(W - torch.eye(n).double(), drive, inputs=["drive"])
    return seen(system, mask, signs)


class SynapticNetwork(cn.System):
    """Potentials with conductances, or with currents, as synapses.

    V' = -V + sum_j g_ij s_j (E_j - V_i) + I, or V' = -k V + sum_j W_ij s_j + I, with a leak k for
    each unit; s = sigmoid(4 V - 2).
    """

    inputs = (cn.Quantity("drive", "1"),)

    def __init__(self, weights: Tensor, leak: Tensor, current: Tensor, reversal: Tensor | None):
        super().__init__()
        labels = tuple(str(k + 1) for k in range(len(weights)))
        self.states = (cn.Quantity("V", "1", labels, range=(-2.0, 3.0), default=0.0),)
        self.outputs = self.states
        self.register_buffer("weights", weights)
        self.register_buffer("leak", leak)
        self.register_buffer("current", current)
        self.form = None if reversal is None else ConductanceForm(reversal)

    def vector_field(self, t: Any, x: Tensor, u: Tensor) -> Tensor:
        s = torch.sigmoid(4 * x - 2)
        if self.form is None:
            inflow = (self.weights @ s.unsqueeze(-1)).squeeze(-1)
        else:
            inflow = self.form.current(self.weights, s, x)
        return -self.leak * x + inflow + self.current + u


class SynapticDrift(nn.Module):
    """The Jacobian of a synaptic network at a given rest; of currents the leaks are free too."""

    def __init__(self, weights: Tensor, rest: Tensor, reversal: Tensor | None):
        super().__init__()
        self.weight = nn.Parameter(weights)
        self.rest, self.reversal = rest, reversal
        self.log_leak = nn.Parameter(torch.zeros_like(rest), requires_grad=reversal is None)

    @property
    def leak(self) -> Tensor:
        return self.log_leak.exp()

    def forward(self) -> Tensor:
        s = torch.sigmoid(4 * self.rest - 2)
        slope = 4 * s * (1 - s)
        if self.reversal is None:
            return self.weight * slope - torch.diag(self.leak)
        gain = self.weight * slope * (self.reversal - self.rest.unsqueeze(-1))
        return gain - torch.diag(1 + self.weight @ s)


def synaptic_hidden(n: int, seed: int) -> Hidden:
    """A network of conductances, sparse and under Dale's law, with one rest that is stable."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        mask, signs = drawn_structure(n, draw)
        g = 0.4 * torch.rand(n, n, generator=draw, dtype=torch.float64) * mask
        current = 0.2 + 0.4 * torch.rand(n, generator=draw, dtype=torch.float64)
        system = SynapticNetwork(g, torch.ones_like(current), current, reversal(signs))
        found = cn.find_equilibria(system, n_starts=16)
        if len(found) == 1 and found[0].is_stable:
            return seen(system, mask, signs)


def reversal(signs: Tensor) -> Tensor:
    """Where excitation and inhibition pull to."""
    return torch.where(signs > 0, 3.0, -1.0).double()


def seen(system: cn.System, mask: Tensor, signs: Tensor) -> Hidden:
    """The network with its mean and covariance at rest."""
    Q = NOISE * np.eye(system.n_states)
    rest = cn.find_equilibria(system, drive(system))[0]
    moments = stationary_moments(system, rest, Q)
    return Hidden(system, mask, signs, moments.mean, moments.covariance, Q)


def drive(system: cn.System) -> float:
    """The input under which a network is seen."""
    return 1.0 if isinstance(system, cn.LinearSystem) else 0.0


def sampled(hidden: Hidden, n_snapshots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of independent snapshots."""
    draw = np.random.default_rng(seed)
    x = draw.multivariate_normal(hidden.mean, hidden.covariance, size=n_snapshots)
    return x.mean(axis=0), np.cov(x.T)


def hyperpolarize(site: str) -> Any:
    """A potential at which a synapse stays shut."""
    return cn.clamp(site, -2.0)


Fit = tuple[cn.System, float]
Make = Callable[[Hidden, np.ndarray, np.ndarray, torch.Generator], Fit]


def start(hidden: Hidden, draw: torch.Generator, decay: float = 1.0) -> NetworkDrift:
    """Random weights of the size that a network of this many units has."""
    n = len(hidden.mean)
    W = 0.5 * torch.randn(n, n, generator=draw, dtype=torch.float64) / n**0.5
    return NetworkDrift(W.fill_diagonal_(0.0), decay)


def fitted(hidden: Hidden, drift: nn.Module, mean: np.ndarray, P: np.ndarray, **told: Any) -> Fit:
    """A linear network that rests where the hidden one does, and what it explains."""
    fit = fit_stationary(drift, P, hidden.diffusion, max_iterations=ITERATIONS, **told)
    n = len(mean)
    eye = np.eye(n)
    names = {"states": hidden.system.states, "inputs": hidden.system.inputs}
    u = drive(hidden.system)
    model = cn.LinearSystem(fit.A, np.ones((n, 1)), eye, offset=(mean, [u]), **names,
                            outputs=hidden.system.outputs)  # fmt: skip
    return model, fit.explained


def under(prior: Callable[[Hidden], list[nn.Module]], decay: float = 1.0) -> Make:
    """A fit of weights under a prior; its start is made to have the structure."""

    def make(h: Hidden, mean: np.ndarray, P: np.ndarray, draw: torch.Generator) -> Fit:
        drift = start(h, draw, decay)
        for one in prior(h):
            with torch.no_grad():
                if isinstance(one, (DalesLaw, SparsityMask)):
                    drift.weight.copy_(one.impose(drift.weight))
                elif isinstance(one, Stable):
                    drift.weight.sub_(torch.eye(len(mean)).double())
            parametrize.register_parametrization(drift, "weight", one)
        return fitted(h, drift, mean, P)

    return make


def no_self(h: Hidden) -> Tensor:
    """All connections but those of a unit with itself."""
    return ~torch.eye(len(h.mean), dtype=torch.bool)


def wrong_mask(h: Hidden) -> Tensor:
    """As many connections, elsewhere: the mask of the same units in another order."""
    order = torch.arange(len(h.mean)).roll(1)
    return h.mask[order][:, order]


def pushed(n_pushes: int) -> Make:
    """Free weights, and the answers to a push of some of the units seen too."""

    def make(h: Hidden, mean: np.ndarray, P: np.ndarray, draw: torch.Generator) -> Fit:
        drift = start(h, draw)
        parametrize.register_parametrization(drift, "weight", SparsityMask(no_self(h)))
        assert isinstance(h.system, cn.LinearSystem)
        pushes = np.eye(len(mean))[:n_pushes]
        moves = -np.linalg.solve(h.system.A.numpy(), pushes.T).T
        return fitted(h, drift, mean, P, pushes=pushes, moves=moves)

    return make


def twin(h: Hidden, mean: np.ndarray, P: np.ndarray, draw: torch.Generator) -> Fit:
    """One of the networks of exactly this covariance, drawn blind."""
    assert isinstance(h.system, cn.LinearSystem)
    (made,) = covariance_twins(h.system, h.diffusion, 1, u=1.0, generator=draw)
    return made, 1.0


def synaptic(is_conductance: bool, is_masked: bool, has_signs: bool) -> Make:
    """A nonlinear network with the rest that was seen."""

    def make(h: Hidden, mean: np.ndarray, P: np.ndarray, draw: torch.Generator) -> Fit:
        n, rest = len(mean), torch.tensor(mean)
        E = reversal(h.signs) if is_conductance else None
        mask = h.mask if is_masked else no_self(h)
        W = 0.3 * torch.randn(n, n, generator=draw, dtype=torch.float64)
        if is_conductance:
            priors = [DalesLaw(torch.ones(n).double(), mask)]  # conductances: none is negative
        else:
            priors = [DalesLaw(h.signs, mask)] if has_signs else [SparsityMask(mask)]
        drift = SynapticDrift(priors[0].impose(W), rest, E)
        parametrize.register_parametrization(drift, "weight", priors[0])
        fit = fit_stationary(drift, P, h.diffusion, max_iterations=ITERATIONS)
        weights, leak = drift.weight.detach(), drift.leak.detach()
        still = SynapticNetwork(weights, leak, torch.zeros(n).double(), E)
        current = -still.vector_field(0.0, rest, torch.zeros(1).double())
        return SynapticNetwork(weights, leak, current, E), fit.explained

    return make


LINEAR: dict[str, Make] = {
    "twin drawn from the covariance": twin,
    "free weights": under(lambda h: [SparsityMask(no_self(h))]),
    "stable (free A)": under(lambda h: [Stable(len(h.mean))], decay=0.0),
    "low rank 2 (not true)": under(lambda h: [LowRank(len(h.mean), len(h.mean), 2)]),
    "Dale's law": under(lambda h: [DalesLaw(h.signs, no_self(h))]),
    "mask (not true)": under(lambda h: [SparsityMask(wrong_mask(h))]),
    "mask": under(lambda h: [SparsityMask(h.mask)]),
    "mask and Dale's law": under(lambda h: [DalesLaw(h.signs, h.mask)]),
    "free weights, 1 push seen": pushed(1),
    "free weights, 3 pushes seen": pushed(3),
    "free weights, 6 pushes seen": pushed(6),
}
SYNAPTIC: dict[str, Make] = {
    "currents, free": synaptic(False, False, False),
    "currents, Dale's law": synaptic(False, False, True),
    "currents, mask and Dale's law": synaptic(False, True, True),
    "conductances": synaptic(True, False, True),
    "conductances, mask": synaptic(True, True, True),
}


def measured(
    make_hidden: Callable[[int, int], Hidden],
    models: dict[str, Make],
    n: int,
    n_seeds: int,
    n_snapshots: int,
    lesion: Callable[[str], Any],
    n_sites: int,
) -> dict[str, dict[str, Any]]:
    """For each model, the mean of each score over hidden networks, with its interval."""
    none = [float("nan")] * 4
    rows: dict[str, list[list[float]]] = {name: [] for name in models}
    for seed in range(n_seeds):
        hidden = make_hidden(n, seed)
        mean, P = hidden.mean, hidden.covariance
        if n_snapshots:
            mean, P = sampled(hidden, n_snapshots, seed)
        every = lesions(hidden.system, n_sites=n_sites, lesion=lesion)
        for name, make in models.items():
            model, explained = make(hidden, mean, P, torch.Generator().manual_seed(1000 + seed))
            found = none
            if not np.isnan(explained):
                made = cn.interventional_alignment(
                    model, hidden.system, every, AtRest(u=drive(hidden.system)), n_resamples=20
                )
                found = [
                    made.r.value,
                    made.error.value,
                    made.sign_agreement.value,
                    len(made.lost) / len(every),
                ]
            rows[name].append([explained, *found])
    names = ("explained", "r", "error", "sign agreement", "lost")
    return {
        name: {
            what: over_networks(column)
            for what, column in zip(names, np.array(values).T.tolist(), strict=True)
        }
        for name, values in rows.items()
    }


def over_networks(values: list[float]) -> dict[str, Any]:
    """Mean over the networks that have one, how many have not, and the interval."""
    x = np.array([v for v in values if not np.isnan(v)])
    found = bootstrap_interval(lambda drawn: float(x[drawn].mean()), len(x))
    return {**found.to_dict(), "missing": len(values) - len(x), "of each": list(values)}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["linear", "conductances"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--units", type=int, default=10)
    parser.add_argument("--snapshots", type=int, default=0, help="0: the exact covariance")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    n, n_seeds, count = arguments.units, arguments.seeds, arguments.snapshots
    if arguments.kind == "linear":
        table = measured(linear_hidden, LINEAR, n, n_seeds, count, cn.silence, n_sites=2)
    else:
        table = measured(synaptic_hidden, SYNAPTIC, n, n_seeds, count, hyperpolarize, n_sites=1)
    if arguments.json:
        json.dump(table, sys.stdout, indent=2)
        return
    print(f"| fitted | {' | '.join(next(iter(table.values())))} |")
    for name, row in table.items():
        cells = [
            f"{e['value']:.3f} [{e['low']:.3f}, {e['high']:.3f}]"
            + (f" ({e['missing']} without)" if e["missing"] else "")
            for e in row.values()
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
