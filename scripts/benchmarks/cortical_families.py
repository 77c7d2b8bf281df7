"""What other fits of a cortical recording tell control: families of models, a constrained network.

    python scripts/benchmarks/cortical_families.py --data DIR [--seeds 0] [--models NAME ...]

The recording is that of `cortical.py`. Each family of patient models is fitted to its windows as a
forecast, and its latent system is asked in its outputs: rest, transfer, Gramian, poles, ranking.
Such a fit is made for the next observations, which at 100 samples a second are nearly the last
ones, so it need not know the network. A network of the true form whose connectome is told is
fitted by `identify`, for what knowing the form is worth. Set OMP_NUM_THREADS=1 to time one core.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from cortical import HORIZON, STEP, response, scene_of

import clinode as cn
from clinode.cohort.recording import SECONDS, Recording
from clinode.sequence import MODELS
from clinode.system import Quantity, System

WINDOW = 250  # points: 2 s that are read, .5 s that are forecast
SEGMENT = 100  # points of a session that `identify` reads, from rest on
N_RECORDINGS = 4  # sessions that it reads


class InSeconds(System):
    """A latent system with its time in seconds, and its regions in the recording's order."""

    time_unit = "s"

    def __init__(self, learned: System, recording: Recording):
        super().__init__()
        self.learned = learned
        self.states = learned.states
        self.inputs = tuple(_by_name(learned.inputs)[name] for name in recording.stimulated)
        self.outputs = tuple(_by_name(learned.outputs)[name] for name in recording.regions)
        self.into = [[q.name for q in self.inputs].index(q.name) for q in learned.inputs]
        self.from_ = [[q.name for q in learned.outputs].index(q.name) for q in self.outputs]

    def vector_field(self, t, x, u):
        return self.learned.vector_field(t, x, u[..., self.into]) / SECONDS

    def output(self, t, x, u):
        return self.learned.output(t, x, u[..., self.into])[..., self.from_]


def _by_name(quantities):
    return {quantity.name: quantity for quantity in quantities}


class ConstrainedNetwork(System):
    """The form of the truth on a connectome that is told; what differs by region is fitted."""

    time_unit = "s"

    def __init__(self, S: np.ndarray, labels: tuple[str, ...]):
        super().__init__()
        n = len(S)
        self.states = (Quantity("E", "1", labels, (-0.2, 0.6)), Quantity("I", "1", labels))
        self.inputs = (Quantity("stimulus", "1", labels),)
        self.outputs = (Quantity("E", "1", labels),)
        self.constants = (
            Quantity("c", "1", range=(0.1, 10.0)),
            Quantity("tau_e", "s", labels, range=(0.005, 0.2)),
            Quantity("tau_i", "s", labels, range=(0.005, 0.2)),
            Quantity("P", "1", labels),
            Quantity("g", "1", labels, range=(0.1, 5.0)),
        )
        one = torch.ones(n).double()
        self.register_buffer("S", torch.tensor(S / np.abs(np.linalg.eigvals(S)).max()))
        self.register_constants(
            c=torch.tensor([1.5]).double(),
            tau_e=0.02 * one,
            tau_i=0.03 * one,
            P=one,
            g=0.8 * one,
        )

    def vector_field(self, t, x, u):
        E, I = x.chunk(2, dim=-1)
        to_e = response(6 * E - 8 * I + self.c * E @ self.S.T + self.P + self.g * u, 1.3, 2.5)
        to_i = response(8 * E - I, 2.0, 2.5)
        rate_e = (-E + (1 - E) * to_e) / self.tau_e
        return torch.cat([rate_e, (-I + (1 - I) * to_i) / self.tau_i], dim=-1)

    def output(self, t, x, u):
        return x[..., : x.shape[-1] // 2]


def fit_constrained(S, scene):
    """Region constants by `identify`, from the first points of some sessions, and its seconds."""
    begun = time.perf_counter()
    recording = scene.recording
    times = torch.arange(SEGMENT).double() * STEP
    n_regions = len(recording.regions)
    found = cn.identify(
        ConstrainedNetwork(S, recording.regions),
        times,
        torch.tensor(recording.values[:N_RECORDINGS, :SEGMENT]),
        ["c", "tau_e", "tau_i", "P", "g"],
        u=cn.Signal(times, torch.tensor(recording.stimulation[:N_RECORDINGS, :SEGMENT])),
        x0=scene.rest.expand(N_RECORDINGS, -1),
        n_segments=1,
        method="rk4",
        step=STEP / 2,
    )
    print(f"constrained network of {4 * n_regions + 1} constants: {found.verdict}")
    return found.system, time.perf_counter() - begun


def windows_of(recording: Recording) -> Recording:
    """Each session cut into windows, which become sessions."""

    def cut(values):
        n, points, columns = values.shape
        whole = points // WINDOW
        return values[:, : whole * WINDOW].reshape(n * whole, WINDOW, columns)

    return Recording(
        recording.step,
        cut(recording.values),
        cut(recording.stimulation),
        recording.regions,
        recording.stimulated,
    )


def fit_family(name, scene, seed, epochs, folder):
    """A run on the windows of the recording, and its seconds."""
    begun = time.perf_counter()
    run = cn.fit(
        MODELS[name](),
        windows_of(scene.recording).cohort(),
        task=cn.Forecast(HORIZON / SECONDS),
        out=folder / f"{name}-{seed}",
        seed=seed,
        device="cpu",
        config=cn.FitConfig(epochs=epochs, batch_size=8, learning_rate=5e-3),
        progress=False,
    )
    return run, time.perf_counter() - begun


def main():
    """Print the figures of each family and seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with connectomes/hcp_desikan68")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    args = parser.parse_args()
    if args.data is None:
        connectome = cn.simulate_connectome(68)
    else:
        connectome = cn.read_connectome(
            args.data / "connectomes" / "hcp_desikan68" / "connectome.npz"
        )
    S = connectome.weights.numpy()
    W = 0.8 * S / np.abs(np.linalg.eigvals(S)).max()
    for seed in args.seeds:
        scene = scene_of(
            W, connectome.labels, seed, minutes=args.minutes, kept=1.0, n_stimulated=len(W)
        )
        system, seconds = fit_constrained(S, scene)
        show(seed, "constrained", scene.judge(system, seconds))
        with tempfile.TemporaryDirectory() as scratch:
            for name in args.models:
                run, seconds = fit_family(name, scene, seed, args.epochs, Path(scratch))
                try:
                    system = InSeconds(run.model.latent_system, scene.recording)
                except cn.errors.ArgumentError as error:
                    print(f"seed {seed} {name:18s} {seconds:.0f} s; {error}")
                    continue
                show(seed, name, scene.judge(system, seconds))


def show(seed, name, row):
    """A line of figures."""
    told = "  ".join(f"{k} {v:.3f}" for k, v in row.items())
    print(f"seed {seed} {name:18s} {told}", flush=True)


if __name__ == "__main__":
    main()
