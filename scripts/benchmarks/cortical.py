"""Learn a Wilson-Cowan network from random stimulation, and compare what control would be told.

The truth is uneven: time constants, drives and gains differ by region. Only E is recorded, with 1 %
noise, and the connectome is not told. Printed beside the learned network: subspace identification,
autoregression, and ranking by strength.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.special
import scipy.stats
import torch

import clinode as cn
from clinode.cohort.recording import Recording
from clinode.dynamics.subspace import fit_autoregression, identify_subspace
from clinode.sequence.network import NetworkConfig, Phase, learn_network
from clinode.system import Quantity, System

STEP = 0.01  # s between samples
FINE = 4  # steps of the truth's solver a sample
LEVEL = 0.5  # standard deviation of the stimulation
HORIZON = 0.5  # s, of energies and Gramians


class UnevenWilsonCowan(System):
    """E and I in each region; c1 6, c2 8, c4 8, no I on I; output E, seconds."""

    time_unit = "s"

    def __init__(self, W: np.ndarray, seed: int, labels: tuple[str, ...]):
        super().__init__()
        draw = np.random.default_rng(seed)
        n = len(W)
        self.states = (
            Quantity("E", "1", labels, (-0.2, 0.6), 0.1),
            Quantity("I", "1", labels, (-0.2, 0.6), 0.1),
        )
        self.inputs = (Quantity("stimulus", "1", labels),)
        self.outputs = (Quantity("E", "1", labels),)
        self.register_buffer("W", torch.tensor(W))
        for name, low, high in (
            ("tau_e", 0.02, 0.03),
            ("tau_i", 0.03, 0.05),
            ("P", 1.0, 1.5),
            ("g", 0.7, 1.3),
        ):
            self.register_buffer(name, torch.tensor(draw.uniform(low, high, n)))

    def vector_field(self, t, x, u):
        E, I = x.chunk(2, dim=-1)
        to_e = response(6 * E - 8 * I + 3 * E @ self.W.T + self.P + self.g * u, 1.3, 2.5)
        to_i = response(8 * E - I, 2.0, 2.5)
        rate_e = (-E + (1 - E) * to_e) / self.tau_e
        rate_i = (-I + (1 - I) * to_i) / self.tau_i
        return torch.cat([rate_e, rate_i], dim=-1)

    def output(self, t, x, u):
        return x[..., : x.shape[-1] // 2]


def response(drive, slope, threshold):
    """Logistic, less its value at 0."""
    return torch.sigmoid(slope * (drive - threshold)) - float(
        scipy.special.expit(-slope * threshold)
    )


def rest_of(system, settle=4.0):
    """The equilibrium without stimulation, from its settled state by Newton's method."""
    n, m = system.n_states, system.n_inputs
    x, u = torch.zeros(n).double(), torch.zeros(m).double()
    for _ in range(int(settle / 0.005)):
        x = runge_kutta(system, x, u, 0.005)
    for _ in range(20):
        J = torch.func.jacfwd(lambda z: system.vector_field(0.0, z, u))(x)
        x = x - torch.linalg.solve(J, system.vector_field(0.0, x, u))
    residual = float(system.vector_field(0.0, x, u).abs().max())
    if residual > 1e-9:
        raise SystemExit(f"no rest was found: residual {residual:.1e}")
    return x


def runge_kutta(system, x, u, dt):
    """One step of the classical method."""
    k1 = system.vector_field(0.0, x, u)
    k2 = system.vector_field(0.0, x + dt / 2 * k1, u)
    k3 = system.vector_field(0.0, x + dt / 2 * k2, u)
    k4 = system.vector_field(0.0, x + dt * k3, u)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


@torch.no_grad()
def run(system, x, levels):
    """Outputs as each step begins, (session, point, output), of levels (session, point, input)."""
    u, out = torch.tensor(levels), []
    x = x.expand(len(u), -1)
    for k in range(u.shape[1]):
        out.append(system.output(0.0, x, u[:, k]))
        for _ in range(FINE):
            x = runge_kutta(system, x, u[:, k], STEP / FINE)
    return torch.stack(out, 1).numpy()


def random_levels(draw, n_sessions, n_points, n_inputs, level=LEVEL):
    """Independent piecewise-constant levels, held 50 to 200 ms."""
    out = np.empty((n_sessions, n_points, n_inputs))
    for session in range(n_sessions):
        for column in range(n_inputs):
            k = 0
            while k < n_points:
                hold = int(draw.integers(5, 21))
                out[session, k : k + hold, column] = draw.normal(0, level)
                k += hold
    return out


def at_rest(system, rest):
    """A, B, C at its rest, as arrays."""
    u = torch.zeros(system.n_inputs).double()
    A = torch.func.jacfwd(lambda z: system.vector_field(0.0, z, u))(rest)
    B = torch.func.jacfwd(lambda v: system.vector_field(0.0, rest, v))(u)
    C = torch.func.jacfwd(lambda z: system.output(0.0, z, u))(rest)
    return A.detach().numpy(), B.detach().numpy(), C.detach().numpy()


def impulse_responses(A, B, C, dt=0.0025):
    """C exp(A t) B on a grid to the horizon, (time, output, input)."""
    step, now, out = scipy.linalg.expm(A * dt), B, []
    for _ in range(round(HORIZON / dt) + 1):
        out.append(C @ now)
        now = step @ now
    return np.array(out), dt


def partial_rank(a, b, c):
    """Rank correlation of a and b with that of c taken out of both."""
    ab, ac, bc = (scipy.stats.spearmanr(p, q)[0] for p, q in ((a, b), (a, c), (b, c)))
    return (ab - ac * bc) / np.sqrt((1 - ac**2) * (1 - bc**2))


def compare(truth, other, strength, targets, stimulated):
    """Figures of one linearization against the true one, for inputs into these regions."""
    n = truth[2].shape[0]
    off = np.arange(n)[:, None] != stimulated
    G = [
        [
            C @ np.linalg.solve(2j * np.pi * f * np.eye(len(A)) - A, B)
            for f in np.geomspace(0.1, 12, 24)
        ]
        for A, B, C in (truth, other)
    ]
    G, H = np.array(G[0]), np.array(G[1])
    tf_all = np.linalg.norm(H - G) / np.linalg.norm(G)
    tf_off = np.linalg.norm((H - G)[:, off]) / np.linalg.norm(G[:, off])
    (g, dt), (h, _) = impulse_responses(*truth), impulse_responses(*other)
    gram, own = (np.einsum("tij,tkj->ik", r, r) * dt for r in (g, h))
    ranks, partial = [], []
    for target in targets:
        outside = ~np.isin(stimulated, target)
        true, said = (-np.log((r[:, target].mean(1) ** 2).sum(0))[outside] for r in (g, h))
        ranks.append(scipy.stats.spearmanr(true, said)[0])
        partial.append(partial_rank(true, said, strength[stimulated[outside]]))
    poles = [np.linalg.eigvals(A) for A in (truth[0], other[0])]
    slow = poles[0][np.argsort(np.abs(poles[0].real))[:10]]
    apart = [np.abs(poles[1] - p).min() / abs(p) for p in slow]
    return {
        "EN-off": np.mean(ranks),
        "EN|s": np.mean(partial),
        "tf all": tf_all,
        "tf-off": tf_off,
        "Gramian": np.linalg.norm(own - gram) / np.linalg.norm(gram),
        "poles": np.median(apart),
        "pole max": max(apart),
    }


def by_strength(truth, strength, targets, stimulated):
    """Rank correlation of the true energies with those that strength alone would order."""
    g, _ = impulse_responses(*truth)
    ranks = []
    for target in targets:
        outside = ~np.isin(stimulated, target)
        true = -np.log((g[:, target].mean(1) ** 2).sum(0))[outside]
        ranks.append(scipy.stats.spearmanr(true, -strength[stimulated[outside]])[0])
    return np.mean(ranks)


def pulse_levels(regions, n_inputs):
    """One 100 ms pulse of two deviations a region, (pulse, point, input)."""
    levels = np.zeros((len(regions), 60, n_inputs))
    levels[np.arange(len(regions)), :10, regions] = 2 * LEVEL
    return levels


def pulse_agreement(true, said, regions):
    """Median correlation of answers elsewhere than in the stimulated region of each pulse."""
    apart = [
        np.corrcoef(np.delete(t, region, 1).ravel(), np.delete(s, region, 1).ravel())[0, 1]
        for t, s, region in zip(true, said, regions, strict=True)
    ]
    return np.median(apart)


def main():
    """Print the figures of each seed, and their medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with connectomes/hcp_desikan68; a simulated connectome without it",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kept", type=float, default=1.0, help="share of the samples that is kept")
    parser.add_argument(
        "--stimulated", type=int, default=68, help="how many regions are stimulated"
    )
    parser.add_argument("--iterations", type=int, default=400, help="of the long windows")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.data is None:
        connectome = cn.simulate_connectome(68)
    else:
        connectome = cn.read_connectome(
            args.data / "connectomes" / "hcp_desikan68" / "connectome.npz"
        )
    S = connectome.weights.numpy()
    W = 0.8 * S / np.abs(np.linalg.eigvals(S)).max()
    tables = {}
    for seed in args.seeds:
        for name, row in one_seed(W, connectome.labels, seed, args).items():
            print(
                f"seed {seed} {name:12s}",
                "  ".join(f"{k} {v:.3f}" for k, v in row.items()),
                flush=True,
            )
            tables.setdefault(name, []).append(row)
    for name, rows in tables.items():
        print(
            f"median {name:12s}",
            "  ".join(f"{k} {np.median([r[k] for r in rows]):.3f}" for k in rows[0]),
        )


@dataclass(frozen=True)
class Scene:
    """One truth, one recording of it, and what fits of the recording are asked."""

    truth: UnevenWilsonCowan
    rest: torch.Tensor
    recording: Recording
    deviation: float  # of the recorded outputs, all together
    held_levels: np.ndarray
    held_outputs: np.ndarray
    targets: list[np.ndarray]

    @property
    def strength(self) -> np.ndarray:
        """Summed connections into each region."""
        return self.truth.W.numpy().sum(1)

    @property
    def stimulated(self) -> np.ndarray:
        """Positions of the regions that the recording stimulates."""
        places = {name: place for place, name in enumerate(self.recording.regions)}
        return np.array([places[name] for name in self.recording.stimulated])

    @property
    def linear(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The truth at its rest, for inputs into the stimulated regions."""
        A, B, C = at_rest(self.truth, self.rest)
        return A, B[:, self.stimulated], C

    def judge(self, system, seconds):
        """Figures of one system fitted to the recording, at its own rest."""
        own_rest, places = rest_of(system), self.stimulated
        n = len(self.strength)
        row = compare(self.linear, at_rest(system, own_rest), self.strength, self.targets, places)
        at = system.output(0.0, own_rest, torch.zeros(len(places)).double()).detach().numpy()
        row["rest"] = np.abs(at - self.rest[:n].numpy()).max() / self.deviation
        true = run(self.truth, self.rest, pulse_levels(places, n)) - self.rest[:n].numpy()
        said = run(system, own_rest, pulse_levels(np.arange(len(places)), len(places))) - at
        row["pulse r"] = pulse_agreement(true, said, places)
        free, held = run(system, own_rest, self.held_levels[..., places]), self.held_outputs
        row["R2"] = 1 - ((free - held) ** 2).mean() / ((held - held.mean((0, 1))) ** 2).mean()
        row["seconds"] = seconds
        return row


def scene_of(W, labels, seed, *, minutes, kept, n_stimulated):
    """Simulate a network and its recording; regions beyond `n_stimulated` get no input."""
    truth = UnevenWilsonCowan(W, seed, labels)
    rest = rest_of(truth)
    poles = np.linalg.eigvals(at_rest(truth, rest)[0])
    slowest = poles[np.argmax(poles.real)]
    low, high = rest[: len(W)].min(), rest[: len(W)].max()
    print(f"seed {seed}: rest E {low:.3f} to {high:.3f}, slowest pole {slowest:.2f} 1/s")
    draw = np.random.default_rng(1000 + seed)
    n = len(W)
    begun = time.perf_counter()
    levels = random_levels(draw, max(1, round(minutes * 2)), 3000, n)
    levels[..., draw.permutation(n)[n_stimulated:]] = 0
    clean = run(truth, rest, levels)
    deviation = np.sqrt(((clean - clean.mean((0, 1))) ** 2).mean())
    values = clean + draw.normal(0, 0.01 * deviation, clean.shape)
    values[draw.random(values.shape[:2]) >= kept] = np.nan
    print(f"seed {seed}: simulated in {time.perf_counter() - begun:.0f} s")
    stimulated = tuple(labels[i] for i in np.flatnonzero(np.abs(levels).max((0, 1)) > 0))
    columns = [labels.index(s) for s in stimulated]
    held = random_levels(draw, 4, 1000, n)
    held[..., np.setdiff1d(np.arange(n), columns)] = 0
    return Scene(
        truth=truth,
        rest=rest,
        recording=Recording(STEP, values, levels[..., columns], labels, stimulated),
        deviation=deviation,
        held_levels=held,
        held_outputs=run(truth, rest, held),
        targets=[draw.choice(n, 6, replace=False) for _ in range(20)],
    )


def one_seed(W, labels, seed, args):
    """Figures by model, of one truth and one recording of it."""
    n = len(W)
    scene = scene_of(
        W, labels, seed, minutes=args.minutes, kept=args.kept, n_stimulated=args.stimulated
    )
    ranked = by_strength(scene.linear, scene.strength, scene.targets, scene.stimulated)
    rows = {"strength": {"EN-off": ranked}}
    recording = scene.recording
    names = {
        "inputs": (Quantity("stimulus", "1", recording.stimulated),),
        "outputs": (Quantity("activity", "1", labels),),
    }
    if args.kept == 1.0 and args.stimulated == n:
        values, levels = recording.values, recording.stimulation
        begun = time.perf_counter()
        fit = fit_autoregression(values, levels, STEP, **names)
        rows["ARX"] = scene.judge(fit.system, time.perf_counter() - begun)
        begun = time.perf_counter()
        fit = identify_subspace(values, levels, STEP, n_states=2 * n, **names)
        rows["subspace"] = scene.judge(fit.system, time.perf_counter() - begun)
    short = 15 if args.kept > 0.5 else 20
    config = NetworkConfig(
        phases=(
            Phase(n_steps=short, n_unscored=8, batch=170, n_iterations=150, learning_rate=1e-2),
            Phase(
                n_steps=40,
                n_unscored=15,
                batch=64,
                n_iterations=args.iterations,
                learning_rate=5e-3,
            ),
        ),
        held_out=0.0,
    )
    learned = learn_network(recording, config, generator=torch.Generator().manual_seed(seed))
    print(f"seed {seed}: {learned.verdict}")
    rows["network"] = scene.judge(learned.system, learned.seconds)
    return rows


if __name__ == "__main__":
    main()
