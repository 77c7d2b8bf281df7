"""How a system at rest answers a small oscillation: impedance, resonance, and the ZAP protocol.

Three frequencies are often taken for one: where the response is largest (resonance), where the
freed system would ring (natural), and where response and input are in phase (zero-phase). Each is
computed by its own definition, and each may not exist.

Everything but the ZAP protocol is linear: it holds for oscillations small enough, and `zap` says
how far its own amplitude is from that.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Complex, Float
from scipy.optimize import brentq
from torch import Tensor
from torch.func import grad

from clinode.errors import ArgumentError, SolverError
from clinode.system import FunctionSignal, LinearSystem, Quantity, System, Values

from .equilibria import Equilibrium
from .linearize import linearize
from .simulate import simulate

GRID = 1500  # frequencies scanned for extrema before each is solved for
MAX_ELEMENTS = 2**22  # of one stack of complex matrices
SETTLED = 1e-5  # of the slowest transient that is left when a ZAP recording ends
SAMPLES_A_CYCLE = 40  # of a ZAP recording, at its highest frequency


@dataclass(frozen=True, eq=False)
class Impedance:
    """Response of one output to one input, as a function of frequency.

    Attributes:
        frequencies: (frequency,), in cycles per time unit.
        impedance: (frequency,), output over input as complex amplitudes.
        resonance_frequency: Where |Z| peaks above both ends, zero and infinite frequency; None
            where an end is highest. Differentiable once by constants and inputs that ask for a
            gradient, as is `impedance`.
        resonance_magnitude: |Z| there; None without a resonance.
        Q: |Z| at resonance over |Z| at frequency zero; None without a resonance.
        natural_frequency: |Im| / 2 pi of the least damped pair of eigenvalues; None where all are
            real, so that the freed system does not ring.
        zero_phase_frequency: The lowest frequency above zero where Z is real; None if there is
            none.
        steady: Z at frequency zero.
        deviation: For `zap`, largest relative change of the impedance when the amplitude was
            halved: how far the protocol was from small. Zero of a linearization.
        verdict: "resonant" or "no resonance".
        input, output: What was driven and what was read out.
        time_unit: Unit of time; frequencies are per that unit.
    """

    frequencies: Float[Tensor, " frequency"]
    impedance: Complex[Tensor, " frequency"]
    resonance_frequency: Float[Tensor, ""] | None
    resonance_magnitude: float | None
    Q: float | None
    natural_frequency: float | None
    zero_phase_frequency: float | None
    steady: float
    deviation: float
    verdict: str
    input: Quantity
    output: Quantity
    time_unit: str

    @property
    def unit(self) -> str:
        """Unit of the impedance: that of the output over that of the input."""
        return f"{self.output.unit} / ({self.input.unit})"

    @property
    def magnitude(self) -> Float[Tensor, " frequency"]:
        """|Z|, (frequency,)."""
        return self.impedance.abs()

    @property
    def phase(self) -> Float[Tensor, " frequency"]:
        """Angle of Z in rad, (frequency,); positive where the output leads."""
        return self.impedance.angle()

    def to_pandas(self) -> pd.DataFrame:
        """One row a frequency: frequency, magnitude and phase, with their units."""
        return pd.DataFrame(
            {
                f"frequency (1/{self.time_unit})": self.frequencies.numpy(),
                f"magnitude ({self.unit})": self.magnitude.detach().numpy(),
                "phase (rad)": self.phase.detach().numpy(),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON; None where a frequency does not exist."""
        resonance = self.resonance_frequency
        return {
            "input": self.input.name,
            "output": self.output.name,
            "unit": self.unit,
            "time_unit": self.time_unit,
            "frequencies": self.frequencies.tolist(),
            "real": self.impedance.detach().real.tolist(),
            "imaginary": self.impedance.detach().imag.tolist(),
            "resonance_frequency": None if resonance is None else float(resonance.detach()),
            "resonance_magnitude": self.resonance_magnitude,
            "Q": self.Q,
            "natural_frequency": self.natural_frequency,
            "zero_phase_frequency": self.zero_phase_frequency,
            "steady": self.steady,
            "deviation": self.deviation,
            "verdict": self.verdict,
        }


def impedance(
    system: System,
    equilibrium: Equilibrium,
    frequencies: Values,
    *,
    input: str | None = None,
    output: str | None = None,
) -> Impedance:
    """Z(f) = C (2 pi i f - A)^-1 B + D of the system linearized at a stable equilibrium.

    Peaks are found on a scan over all time scales of the system and solved for by the exact
    derivative of |Z|^2, whatever frequencies are asked for.

    Args:
        system: A flow.
        equilibrium: A stable one of it, from `find_equilibria`.
        frequencies: (frequency,), cycles per time unit, not negative: of a system in ms, 0.01 is
            10 Hz.
        input: Flat name of the input that oscillates; the first by default.
        output: Flat name of what is read out; the first by default.

    Raises:
        ArgumentError: An unknown name, a system without inputs, frequencies that are negative.
        SolverError: The equilibrium is not stable: an oscillation about it does not settle.

    Example:
        >>> from clinode.dynamics.equilibria import find_equilibria
        >>> leak = LinearSystem(A=[[-0.1]], B=[[1.0]], states=["V"], inputs=["I"])
        >>> z = impedance(leak, find_equilibria(leak)[0], [0.0, 1.0])
        >>> z.steady, z.verdict
        (10.0, 'no resonance')
    """
    asked = _frequencies(frequencies)
    one = _Response(system, equilibrium, input, output)
    with torch.no_grad():
        resonance = one.resonance()
        zero_phase = one.zero_phase()
    steady = float(one.at(torch.zeros(1, dtype=torch.float64)).detach().real)
    magnitude = None if resonance is None else float(one.at(resonance[None]).detach().abs())
    return Impedance(
        frequencies=asked,
        impedance=one.at(2 * math.pi * asked),
        resonance_frequency=None if resonance is None else one.live(resonance) / (2 * math.pi),
        resonance_magnitude=magnitude,
        Q=None if magnitude is None else magnitude / abs(steady) if steady else math.inf,
        natural_frequency=one.natural_frequency(),
        zero_phase_frequency=None if zero_phase is None else float(zero_phase) / (2 * math.pi),
        steady=steady,
        deviation=0.0,
        verdict="no resonance" if resonance is None else "resonant",
        input=one.input,
        output=one.output,
        time_unit=system.time_unit,
    )


def zap(
    system: System,
    equilibrium: Equilibrium,
    band: tuple[float, float],
    duration: float,
    amplitude: float,
    *,
    input: str | None = None,
    output: str | None = None,
    rtol: float = 1e-6,
) -> Impedance:
    """Impedance as an experiment measures it: a chirp into the nonlinear system, FFT over FFT.

    I(t) = amplitude sin(2 pi (f0 t + (f1 - f0) t^2 / (2 T))) rides on the equilibrium's input
    (Puil, Gimbarzevsky & Miura 1986, J. Neurophysiol. 55:995-1016); the recording goes on until the
    response has died away, so that nothing is cut off. A second run at half the amplitude gives
    `deviation`.

    Args:
        system: A flow.
        equilibrium: A stable one of it.
        band: First and last frequency of the chirp, cycles per time unit.
        duration: T of the chirp, in time units; the frequencies returned are less than 1/(4 T)
            apart.
        amplitude: Of the input, in its unit.
        input: As in `impedance`.
        output: As in `impedance`.
        rtol: Relative tolerance of the simulation.

    Raises:
        ArgumentError: A band, duration or amplitude that is not positive and increasing, fewer
            than four cycles of the mean frequency, an unknown name.
        SolverError: The equilibrium is not stable, or the simulation failed.
    """
    low, high = band
    if not (0 <= low < high and math.isfinite(high)):
        raise ArgumentError(f"band must be 0 <= low < high, got ({low}, {high})")
    if not (amplitude > 0 and duration > 0 and duration * (low + high) / 2 >= 4):
        raise ArgumentError(
            f"amplitude {amplitude} and duration {duration} must be positive, the duration at "
            "least four cycles of the mean frequency",
        )
    one = _Response(system, equilibrium, input, output)
    slowest = -float(torch.linalg.eigvals(one.A.detach()).real.max())
    total = duration - math.log(SETTLED) / slowest
    n_samples = math.ceil(SAMPLES_A_CYCLE * high * total)
    times = torch.linspace(0, total, n_samples + 1, dtype=torch.float64)

    def chirp(t: Tensor) -> Tensor:
        wave = torch.sin(2 * math.pi * (low * t + (high - low) * t**2 / (2 * duration)))
        return torch.where(t <= duration, wave, 0.0)

    padded = 4 * len(times)  # zeros after what has died away: between the bins nothing is guessed
    drive = torch.fft.rfft(chirp(times), n=padded)

    def spectrum(size: float) -> Tensor:
        shape = torch.zeros(system.n_inputs, dtype=torch.float64)
        shape[one.column] = size
        rest = one.u0
        signal = FunctionSignal(lambda t: rest + shape * chirp(t).unsqueeze(-1), [duration])
        states = equilibrium.state.detach()
        atol = rtol * 1e-3 * float(one.scale(size))
        found = simulate(system, states, times, signal, rtol=rtol, atol=atol)
        rise = found.outputs[:, one.row] - found.outputs[0, one.row]
        return torch.fft.rfft(rise, n=padded) / (size * drive)

    grid = torch.fft.rfftfreq(padded, d=float(times[1])).double()
    inside = (grid >= low) & (grid <= high) & (grid > 0)
    full, half = spectrum(amplitude)[inside], spectrum(amplitude / 2)[inside]
    deviation = float(((full - half).abs() / half.abs().max()).max())
    peak = int(full.abs().argmax())
    steady = float(one.at(torch.zeros(1, dtype=torch.float64)).detach().real)
    is_peak = 0 < peak < len(full) - 1 and float(full.abs()[peak]) > abs(steady) * (1 + 1e-6)
    phase = full.imag
    turned = ((phase[:-1] > 0) & (phase[1:] <= 0)).nonzero().flatten()
    height = float(full.abs()[peak])
    return Impedance(
        frequencies=grid[inside],
        impedance=full,
        resonance_frequency=grid[inside][peak] if is_peak else None,
        resonance_magnitude=height if is_peak else None,
        Q=height / abs(steady) if is_peak and steady else None,
        natural_frequency=one.natural_frequency(),
        zero_phase_frequency=float(grid[inside][turned[0]]) if len(turned) else None,
        steady=steady,
        deviation=deviation,
        verdict="resonant" if is_peak else "no resonance",
        input=one.input,
        output=one.output,
        time_unit=system.time_unit,
    )


class _Response:
    """One entry of the frequency response of a system at a stable equilibrium."""

    def __init__(
        self, system: System, equilibrium: Equilibrium, input: str | None, output: str | None
    ):
        if not system.n_inputs:
            raise ArgumentError(f"{type(system).__name__} has no input to drive")
        if not equilibrium.is_stable:
            raise SolverError(
                f"the equilibrium is a {equilibrium.kind}: an oscillation about it does not settle",
                where=type(system).__name__,
                fix="take a stable equilibrium, or a smaller input",
            )
        chosen = system.input_names[0] if input is None else input
        shown = system.output_names[0] if output is None else output
        linear: LinearSystem = linearize(system, equilibrium, inputs=[chosen], outputs=[shown])
        if linear.n_inputs != 1 or linear.n_outputs != 1:
            raise ArgumentError(
                f"'{chosen}' or '{shown}' is a block of several",
                fix=f"name one member, such as '{linear.input_names[0]}'",
            )
        self.A, self.B, self.C, self.D = linear.A, linear.B[:, 0], linear.C[0], linear.D[0, 0]
        (self.input,), (self.output,) = linear.inputs, linear.outputs
        self.column = system.input_names.index(linear.input_names[0])
        self.row = system.output_names.index(linear.output_names[0])
        self.u0 = equilibrium.u.detach()
        self.eigenvalues = torch.linalg.eigvals(self.A.detach())

    def at(self, omega: Float[Tensor, " frequency"]) -> Complex[Tensor, " frequency"]:
        """Z at angular frequencies."""
        return self.D + self._resolved(omega, 1)[0]

    def scale(self, size: float) -> float:
        """How far the output moves for an input of this size, at its largest on the scan."""
        return size * float(self.at(self._grid()).detach().abs().max())

    def natural_frequency(self) -> float | None:
        """Of the least damped pair."""
        pairs = self.eigenvalues[self.eigenvalues.imag > 0]
        if not len(pairs):
            return None
        return float(pairs[pairs.real.argmax()].imag) / (2 * math.pi)

    def resonance(self) -> Tensor | None:
        """Angular frequency of the highest peak, if it is above both ends."""
        peaks = [omega for omega in self._roots(self.slope) if self._is_peak(omega)]
        candidates = torch.tensor([0.0, *peaks], dtype=torch.float64)
        height = self.at(candidates).abs()
        best = int(height.argmax())
        return candidates[best] if best and height[best] > self.D.abs() else None

    def zero_phase(self) -> float | None:
        """Lowest angular frequency above zero where Z is real."""
        found = self._roots(self.lead)
        return found[0] if found else None

    def live(self, omega: Tensor) -> Tensor:
        """A root of the slope with its derivative by the constants: one Newton step from it."""
        slope = self.slope(omega[None])[0]
        if not slope.requires_grad:
            return omega

        def held(w: Tensor) -> Tensor:
            return self.slope(w[None])[0]

        curvature = grad(held)(omega).detach()
        return omega - (slope - slope.detach()) / curvature

    def slope(self, omega: Float[Tensor, " frequency"]) -> Float[Tensor, " frequency"]:
        """d|Z|^2 / d(omega^2), which is finite at zero and has the zeros of d|Z| / d omega."""
        first, second, third = self._resolved(omega, 3)
        value = self.D + first
        rate = -1j * second
        positive = omega > 0
        away = (value.conj() * rate).real / torch.where(positive, omega, 1.0)
        return torch.where(positive, away, (second.abs() ** 2 - value * third).real)

    def lead(self, omega: Float[Tensor, " frequency"]) -> Float[Tensor, " frequency"]:
        """Im Z / omega, whose zeros above zero are those of the phase."""
        first, second = self._resolved(omega, 2)
        positive = omega > 0
        return torch.where(positive, first.imag / torch.where(positive, omega, 1.0), -second.real)

    def _resolved(self, omega: Tensor, order: int) -> list[Tensor]:
        """C R^k B for k = 1 .. order, R = (i omega - A)^-1, at every frequency."""
        n = len(self.A)
        at_once = max(1, MAX_ELEMENTS // (n * n))
        parts = [self._resolved_some(part, order) for part in omega.split(at_once)]
        return [torch.cat(pieces) for pieces in zip(*parts, strict=True)]

    def _resolved_some(self, omega: Tensor, order: int) -> list[Tensor]:
        eye = torch.eye(len(self.A), dtype=torch.complex128)
        shifted = 1j * omega[:, None, None] * eye - self.A
        x = self.B.to(torch.complex128).expand(len(omega), -1).unsqueeze(-1)
        row, found = self.C.to(torch.complex128), []
        for _ in range(order):
            x = torch.linalg.solve(shifted, x)
            found.append(x.squeeze(-1) @ row)
        return found

    def _grid(self) -> Tensor:
        """Zero, and angular frequencies around every time scale of the system."""
        size = self.eigenvalues.abs()
        low, high = float(size.min()) * 1e-4, float(size.max()) * 1e3
        spread = np.geomspace(low, high, GRID)
        poles = np.outer(self.eigenvalues.imag.abs().numpy(), [0.97, 1.0, 1.03]).ravel()
        damped = self.eigenvalues.real.abs().numpy()
        poles = np.concatenate([poles, *(np.abs(self.eigenvalues.imag.numpy()) + k * damped
                                         for k in (-1.0, 1.0))])  # fmt: skip
        every = np.unique(np.concatenate([[0.0], spread, poles[poles > low]]))
        return torch.tensor(every)

    def _roots(self, function: Callable[[Tensor], Tensor]) -> list[float]:
        """Zeros above zero of a function of angular frequency, to rounding."""

        def at(omega: float) -> float:
            return float(function(torch.tensor([omega], dtype=torch.float64))[0])

        grid = self._grid()
        value = function(grid).detach().numpy()
        found = []
        for i in np.flatnonzero(np.sign(value[:-1]) * np.sign(value[1:]) < 0):
            a, b = float(grid[i]), float(grid[i + 1])
            if at(a) * at(b) < 0:
                found.append(brentq(at, a, b, xtol=1e-15))
            else:  # one end is a root up to the rounding in which one and many solves differ
                found.append(min(a, b, key=lambda omega: abs(at(omega))))
        return [omega for omega in found if omega > 0]

    def _is_peak(self, omega: float) -> bool:
        near = torch.tensor([omega * (1 - 1e-4), omega * (1 + 1e-4)])
        before, after = self.slope(near).tolist()
        return before > 0 > after


def _frequencies(values: Values) -> Tensor:
    frequencies = torch.as_tensor(values, dtype=torch.float64)
    if frequencies.ndim != 1 or not (frequencies.isfinite().all() and (frequencies >= 0).all()):
        raise ArgumentError(
            f"frequencies must be one axis of finite values from 0 on, got {frequencies.ndim} axes"
        )
    return frequencies
