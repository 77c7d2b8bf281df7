"""Learning a network of rate units from a recording of regions under stimulation.

Windows of the recording are run open loop from an observed sample, short ones first. Nothing is
selected on what is held out; it only measures.
"""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clinode.cohort import Cohort
from clinode.cohort.recording import Recording, recording_of
from clinode.errors import ArgumentError, SolverError

from .rate_network import RateNetwork
from .rollout import PARTS, rollout

LINEAR = 0.95  # share of the variance that makes a stimulation small
SMALL = 1e-3  # of the stimulation: its answer is the linearization's
SETTLING = 1000  # steps in which it comes to rest
ANSWER = 1000  # steps of the answer that is looked at
RESTLESS = 1e-6  # pooled deviations that the network may move in a step and still be at rest


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of the training: windows of one length.

    Args:
        n_steps: Steps of a window.
        n_unscored: The first of them, in which the hidden partners find their place.
        batch: Windows an iteration.
        n_iterations: Steps of the optimizer.
        learning_rate: At the peak of its one cycle.
    """

    n_steps: int
    n_unscored: int
    batch: int
    n_iterations: int
    learning_rate: float

    def __post_init__(self):
        if not 0 <= self.n_unscored < self.n_steps:
            raise ArgumentError("a phase leaves fewer steps unscored than its windows have")
        if self.batch < 1 or self.n_iterations < 1 or not self.learning_rate > 0:
            raise ArgumentError("a phase needs windows, iterations and a positive learning rate")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """How a rate network is learned.

    Args:
        phases: One after the other; the second starts from the first's weights.
        width: Hidden units of the correction that regions share.
        embedding: Numbers by which that correction tells regions apart.
        clip: Largest norm of the gradient.
        held_out: Share of the sessions that only measure; of one session, its end.
    """

    phases: tuple[Phase, ...] = (
        Phase(n_steps=15, n_unscored=8, batch=170, n_iterations=150, learning_rate=1e-2),
        Phase(n_steps=40, n_unscored=15, batch=64, n_iterations=400, learning_rate=5e-3),
    )
    width: int = 16
    embedding: int = 2
    clip: float = 1.0
    held_out: float = 0.1

    def __post_init__(self):
        if not self.phases:
            raise ArgumentError("training needs a phase")
        if self.width < 1 or self.embedding < 1 or not self.clip > 0:
            raise ArgumentError("width, embedding and clip must be positive")
        if not 0 <= self.held_out < 1:
            raise ArgumentError(f"held_out must lie in [0, 1), got {self.held_out}")


@dataclass(frozen=True, eq=False)
class LearnedNetwork:
    """What was learned of a recording.

    Attributes:
        system: The network, in seconds and the recording's units.
        identified: Of each region, whether it was stimulated. How the network answers stimulation
            of one that never was is not in the recording.
        losses: (iteration,), mean squared error of the windows, in pooled variances.
        held_out: Explained share of the variance of held-out windows as long as the last phase's,
            their unscored steps left out; NaN where nothing was held out.
        linear_share: Of the variance of the network's own answer to the recording's stimulation,
            what its linearization at rest explains; NaN without stimulation or without rest.
        seconds: Taken by the training.
        config: Of the training.
    """

    system: RateNetwork
    identified: tuple[bool, ...]
    losses: np.ndarray
    held_out: float
    linear_share: float
    seconds: float
    config: NetworkConfig

    @property
    def latent_system(self) -> RateNetwork:
        """The network, under the name that every learned model has for its dynamics."""
        return self.system

    @property
    def verdict(self) -> str:
        """In words, what may be asked of it."""
        regions = self.system.outputs[0].labels
        unknown = [name for name, known in zip(regions, self.identified, strict=True) if not known]
        said = f"{len(regions) - len(unknown)} of {len(regions)} regions were stimulated"
        if unknown:
            said += (
                "; how the network answers a stimulus in the others is not in the recording, and "
                "they are not ranked"
            )
        if not any(self.identified):
            return said
        if math.isnan(self.linear_share):
            return said + "; without stimulation the network does not come to rest"
        is_small = self.linear_share >= LINEAR
        said += f"; the linearization at rest explains {self.linear_share:.0%} of the variance"
        said += " under this stimulation, which was "
        return said + (
            "small enough for a linear fit"
            if is_small
            else "too large for a linear fit to be its linearization"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists; without the weights."""
        return {
            "regions": list(self.system.outputs[0].labels),
            "identified": list(self.identified),
            "losses": self.losses.tolist(),
            "held_out": None if math.isnan(self.held_out) else self.held_out,
            "linear_share": None if math.isnan(self.linear_share) else self.linear_share,
            "seconds": self.seconds,
            "config": asdict(self.config),
            "verdict": self.verdict,
        }


def learn_network(
    recording: Cohort | Recording,
    config: NetworkConfig | None = None,
    *,
    generator: torch.Generator | None = None,
) -> LearnedNetwork:
    """Learn a network of rate units, one seen and one hidden a region, from a recording.

    Args:
        recording: A cohort whose variables are regions and whose inputs are named by the region
            that they enter, or its arrays.
        config: How it is trained.
        generator: Draws weights and windows; seed 0 by default.

    Raises:
        ArgumentError: A region without a sample, values that do not vary, or no window of a phase
            that begins at a sample of all regions.
        SolverError: The loss is not finite.
    """
    config = NetworkConfig() if config is None else config
    if isinstance(recording, Cohort):
        recording = recording_of(recording)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    begun = time.perf_counter()
    recording = _with_given_inputs(recording, config)
    train, held_out = _divided(recording, config)
    data = _Windows(train, _scales(train))
    learner = _Learner(train, config, generator)
    losses = [
        loss for phase in config.phases for loss in _phase(learner, data, phase, config, generator)
    ]
    seconds = time.perf_counter() - begun
    system = learner.system(recording, data.scales)
    identified = tuple(name in recording.stimulated for name in recording.regions)
    explained = math.nan
    if held_out is not None:
        explained = _explained(learner, _Windows(held_out, data.scales), config.phases[-1])
    share = _linear_share(learner, data)
    return LearnedNetwork(system, identified, np.array(losses), explained, share, seconds, config)


@dataclass(frozen=True)
class _Scales:
    """Of a recording: mean of each region, pooled deviation about it, and the input's."""

    mean: np.ndarray
    deviation: float
    input: float


def _scales(recording: Recording) -> _Scales:
    never = ~np.isfinite(recording.values).any(axis=(0, 1))
    if never.any():
        name = recording.regions[int(never.argmax())]
        raise ArgumentError(
            f"the region {name!r} has no sample to learn from", fix="leave it out of the recording"
        )
    mean = np.nanmean(recording.values, axis=(0, 1))
    deviation = float(np.sqrt(np.nanmean((recording.values - mean) ** 2)))
    if deviation == 0:
        raise ArgumentError("the recorded values do not vary, so there is nothing to learn")
    level = float(recording.stimulation.std()) if recording.stimulated else 1.0
    return _Scales(mean, deviation, level)


def _with_given_inputs(recording: Recording, config: NetworkConfig) -> Recording:
    """Without the inputs that the part to learn from never shows at another value than 0."""
    train, _ = _divided(recording, config)
    given = np.abs(train.stimulation).max(axis=(0, 1), initial=0.0) > 0
    names = tuple(n for n, one in zip(recording.stimulated, given, strict=True) if one)
    return replace(recording, stimulation=recording.stimulation[..., given], stimulated=names)


def _divided(recording: Recording, config: NetworkConfig) -> tuple[Recording, Recording | None]:
    """The sessions to train on, and those, or the end of a single one, that are held out."""
    n = len(recording.values)
    if config.held_out == 0:
        return recording, None
    if n > 1:
        cut = n - max(1, round(config.held_out * n))
        return _part(recording, slice(0, cut)), _part(recording, slice(cut, None))
    cut = round((1 - config.held_out) * recording.values.shape[1])
    first, last = slice(0, cut), slice(cut, None)
    return _part(recording, slice(None), first), _part(recording, slice(None), last)


def _part(recording: Recording, sessions: slice, points: slice = slice(None)) -> Recording:
    values, levels = recording.values[sessions, points], recording.stimulation[sessions, points]
    return replace(recording, values=values, stimulation=levels)


class _Windows:
    """A recording on the scale of the network, from which windows are cut."""

    def __init__(self, recording: Recording, scales: _Scales):
        self.scales = scales
        values = (recording.values - scales.mean) / scales.deviation
        self.mask = torch.tensor(np.isfinite(values))
        self.values = torch.tensor(np.nan_to_num(values), dtype=torch.float32)
        self.u = torch.tensor(recording.stimulation / scales.input, dtype=torch.float32)
        self.seen = torch.tensor(recording.is_seen)

    def starts(self, n_steps: int) -> Tensor:
        """(start, 2): session and point of the samples of all regions that windows may begin at."""
        return self.seen[:, : max(self.seen.shape[1] - n_steps, 0)].nonzero()

    def cut(self, starts: Tensor, n_steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """First values, then inputs, values and mask (step, batch, ...) of the steps after."""
        session = starts[:, 0]
        point = starts[:, 1] + torch.arange(n_steps).unsqueeze(-1)
        after = point + 1
        first = self.values[session, starts[:, 1]]
        return first, self.u[session, point], self.values[session, after], self.mask[session, after]


class _Learner(nn.Module):
    """The network's weights as they are trained, float32."""

    def __init__(self, recording: Recording, config: NetworkConfig, generator: torch.Generator):
        super().__init__()
        n = len(recording.regions)
        self.dt = recording.step
        places = [recording.regions.index(name) for name in recording.stimulated]
        self.place: Tensor
        self.register_buffer("place", torch.tensor(places, dtype=torch.long))

        def filled(value: float) -> nn.Parameter:
            return nn.Parameter(torch.full((n,), value))

        self.W = nn.Parameter(torch.zeros(n, n))
        self.b, self.bh, self.d = filled(0.0), filled(0.0), filled(0.0)
        self.gain = nn.Parameter(torch.full((len(recording.stimulated),), 0.4))
        self.wee, self.wei, self.wie, self.wii = filled(0.5), filled(-1.0), filled(1.5), filled(0.0)
        self.c = filled(0.7)
        # a region's own pace is a few steps where samples are so far apart, as in BOLD
        pace = max(1.0, self.dt / 0.02)
        self.log_tau, self.log_tau_h = filled(math.log(0.05 * pace)), filled(math.log(0.04 * pace))
        width, embedding = config.width, config.embedding
        draw = torch.randn(5 + n, max(width, embedding), generator=generator)
        self.inward = nn.Parameter(draw[:3, :width] / math.sqrt(5))
        self.turn = nn.Parameter(torch.randn(embedding, width, generator=generator) / math.sqrt(5))
        self.turn_offset = nn.Parameter(torch.zeros(width))
        self.embedding = nn.Parameter(draw[5:, :embedding] * 0.5)
        self.outward = nn.Parameter(torch.zeros(width, 2))
        self.shift = nn.Parameter(torch.zeros(2))

    def weights(self) -> dict[str, Tensor]:
        """By the names of `PARTS`."""
        own = self.embedding @ self.turn + self.turn_offset
        derived = {"tau": self.log_tau.exp(), "tau_h": self.log_tau_h.exp(), "own": own}
        return {name: derived[name] if name in derived else getattr(self, name) for name in PARTS}

    def forward(self, first: Tensor, u: Tensor) -> Tensor:
        """Values after each step from the first, (step, batch, region)."""
        spread = self.c.exp()
        x = (first - self.d) / spread
        h = torch.tanh(self.wie * x + self.bh)
        drive = self.b.expand(*u.shape[:-1], -1).index_add(-1, self.place, u * self.gain)
        return self.d + spread * rollout(x, h, drive, self.weights(), self.dt)

    def system(self, recording: Recording, scales: _Scales) -> RateNetwork:
        """A copy of the network, in the recording's units."""
        with torch.no_grad():
            gain = torch.zeros(len(recording.regions)).index_add(0, self.place, self.gain)
            spread = self.c.exp().double() * scales.deviation
            center = torch.tensor(scales.mean) + self.d.double() * scales.deviation
            return RateNetwork(
                {**self.weights(), "b": self.b, "gain": gain},
                center=center,
                spread=spread,
                input_scale=scales.input,
                regions=recording.regions,
                stimulated=recording.stimulated,
                unit=recording.unit,
            )


def _phase(
    learner: _Learner,
    data: _Windows,
    phase: Phase,
    config: NetworkConfig,
    generator: torch.Generator,
) -> Iterator[float]:
    """Train over one phase; the loss of each iteration."""
    starts = data.starts(phase.n_steps)
    if not len(starts):
        raise ArgumentError(
            f"no window of {phase.n_steps} steps begins at a sample of all regions",
            fix="give longer sessions, or phases with shorter windows",
        )
    optimizer = torch.optim.Adam(learner.parameters(), lr=phase.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, phase.learning_rate, total_steps=phase.n_iterations, cycle_momentum=False
    )
    for iteration in range(phase.n_iterations):
        chosen = starts[torch.randint(len(starts), (phase.batch,), generator=generator)]
        first, u, values, mask = data.cut(chosen, phase.n_steps)
        error = ((learner(first, u) - values) * mask)[phase.n_unscored :]
        loss = error.square().sum() / mask[phase.n_unscored :].sum().clamp(min=1)
        if not bool(loss.isfinite()):
            raise SolverError(
                f"the loss of iteration {iteration} is not finite",
                fix="lower the learning rate of the phase",
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), config.clip)
        optimizer.step()
        schedule.step()
        yield float(loss.detach())


@torch.no_grad()
def _explained(learner: _Learner, data: _Windows, phase: Phase) -> float:
    """Share of the variance that windows side by side explain, their unscored steps left out."""
    starts = data.starts(phase.n_steps)
    starts = starts[starts[:, 1] % (phase.n_steps - phase.n_unscored) == 0]
    if not len(starts):
        return math.nan
    first, u, values, mask = data.cut(starts, phase.n_steps)
    scored = mask[phase.n_unscored :]
    error = (learner(first, u) - values)[phase.n_unscored :][scored]
    return float(1 - error.square().mean() / values[phase.n_unscored :][scored].square().mean())


@torch.no_grad()
def _linear_share(learner: _Learner, data: _Windows) -> float:
    """Of the network's answer to the recording's stimulation, what is proportional to it."""
    learner = copy.deepcopy(learner).double()
    u = data.u[:1, :ANSWER].double().transpose(0, 1)  # (step, 1, stimulated)
    if not bool(u.any()):
        return math.nan
    still = torch.zeros(SETTLING, 2, u.shape[-1]).double()
    both = torch.cat([still, torch.cat([SMALL * u, u], dim=1)])
    found = learner(learner.d.expand(2, -1), both)
    rest, before = found[SETTLING - 1, 0], found[SETTLING - 2, 0]
    if not float((rest - before).abs().max()) < RESTLESS:
        return math.nan
    expected, answer = (found[SETTLING:] - rest).unbind(1)
    missed = (answer - expected / SMALL).square().sum()
    return float(1 - missed / (answer - answer.mean(0)).square().sum())
