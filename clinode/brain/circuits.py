"""Small circuits that compare, choose and remember: inhibition between units, and on a ring.

Rates are in Hz of the units' own activity. A rectified unit has a kink where its drive is zero; its
derivative there is taken as 0 (silent), so Jacobians are those of the units that are active.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Quantity, System, Time, Values

from .rates import linoid

State = Float[Tensor, "... state"]
Input = Float[Tensor, "... input"]


class LateralInhibition(System):
    """N rectified units, each inhibited by all others.

        tau dr_i/dt = -r_i + [I_i - w sum_{j != i} r_j]_+

    Hartline & Ratliff 1957, J Gen Physiol 40:357-376 (the eye of Limulus). Under a common input all
    rest at I / (1 + (N - 1) w), which is stable below w = 1; above it one unit silences the others.

    Args:
        n: Number of units, at least 2.
        w: Inhibition between two units.
        tau: Time constant.

    Raises:
        ArgumentError: Fewer than two units.
    """

    time_unit = "ms"
    constants = (Quantity("w", "1"), Quantity("tau", "ms"))

    def __init__(self, n: int = 2, w: Values = 0.5, tau: Values = 10.0):
        super().__init__()
        labels = _numbered("units", n, 2)
        self.states = (Quantity("r", "Hz", labels, range=(0.0, 100.0), default=0.0),)
        self.inputs = (Quantity("I", "Hz", labels, range=(0.0, 100.0), default=0.0),)
        self.register_constants(w=w, tau=tau)

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """Rates of change, as in the class's docstring."""
        others = x.sum(-1, keepdim=True) - x
        return (torch.relu(u - self.w * others) - x) / self.tau


class WinnerTakeAll(System):
    """N self-exciting units that compete through one inhibitory unit.

        tau dr_i/dt = -r_i + [I_i + alpha r_i - beta1 q - T]_+
        tau dq/dt   = -q + [beta2 sum_j r_j - T]_+

    Rutishauser, Douglas & Slotine 2011, Neural Comput 23:735-773. With T = 0 a winner rests at
    I / (1 + beta1 beta2 - alpha), an amplified copy of its input, the others at 0. It is stable and
    the only kind of stable equilibrium where 1 < alpha < 2 sqrt(beta1 beta2) and beta1 beta2 < 1.

    Args:
        n: Number of competing units, at least 2.
        alpha: Excitation of a unit by itself.
        beta1: Inhibition of each unit by the inhibitory one.
        beta2: Excitation of the inhibitory unit by each of the others.
        T: Threshold of all units.
        tau: Time constant of all units.

    Raises:
        ArgumentError: Fewer than two units.
    """

    time_unit = "ms"
    constants = (
        Quantity("alpha", "1"),
        Quantity("beta1", "1"),
        Quantity("beta2", "1"),
        Quantity("T", "Hz"),
        Quantity("tau", "ms"),
    )

    def __init__(
        self,
        n: int = 2,
        *,
        alpha: Values = 1.2,
        beta1: Values = 3.0,
        beta2: Values = 0.25,
        T: Values = 0.0,
        tau: Values = 10.0,
    ):
        super().__init__()
        labels = _numbered("units", n, 2)
        self.states = (
            Quantity("r", "Hz", labels, range=(0.0, 200.0), default=0.0),
            Quantity("q", "Hz", range=(0.0, 200.0), default=0.0),
        )
        self.inputs = (Quantity("I", "Hz", labels, range=(0.0, 100.0), default=0.0),)
        self.register_constants(alpha=alpha, beta1=beta1, beta2=beta2, T=T, tau=tau)

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """Rates of change, as in the class's docstring."""
        r, q = self.split(x).values()
        drive = u + self.alpha * r - self.beta1 * q - self.T
        pooled = self.beta2 * r.sum(-1, keepdim=True) - self.T
        rate_r = (torch.relu(drive) - r) / self.tau
        rate_q = (torch.relu(pooled) - q) / self.tau
        return self.join(r=rate_r, q=rate_q)


class LateralInhibitionField(System):
    """Units on a ring of positions with surround inhibition less center excitation; linear.

        tau dr/dt = -r + I - w * r,   w(d) = A_i G(d; s_i) - A_e G(d; s_e)

    (* is the convolution over positions, G a Gaussian of area 1). At rest each spatial frequency is
    divided by 1 + w^(k): low frequencies are damped, edges overshoot, which is what Mach bands are.
    Ratliff 1965, "Mach Bands"; difference of Gaussians after Rodieck 1965, Vision Res
    5:583-601. Rates are deviations from a background, so they may be negative.

    Args:
        n: Number of positions, at least 3.
        spacing: Distance between neighbors, in degrees of visual angle.
        A_e: Strength of the center.
        s_e: Standard deviation of the center, in degrees.
        A_i: Strength of the surround.
        s_i: Standard deviation of the surround, in degrees.
        tau: Time constant.

    Raises:
        ArgumentError: Fewer than three positions, or a spacing that is not positive.
    """

    time_unit = "ms"
    constants = (
        Quantity("A_e", "1"),
        Quantity("s_e", "deg"),
        Quantity("A_i", "1"),
        Quantity("s_i", "deg"),
        Quantity("spacing", "deg"),
        Quantity("tau", "ms"),
    )
    steps: Tensor

    def __init__(
        self,
        n: int = 128,
        spacing: Values = 0.1,
        *,
        A_e: Values = 0.5,
        s_e: Values = 0.2,
        A_i: Values = 1.5,
        s_i: Values = 0.6,
        tau: Values = 10.0,
    ):
        super().__init__()
        labels = _numbered("positions", n, 3)
        self.states = (Quantity("r", "Hz", labels, range=(-100.0, 100.0), default=0.0),)
        self.inputs = (Quantity("I", "Hz", labels, range=(0.0, 100.0), default=0.0),)
        self.register_constants(A_e=A_e, s_e=s_e, A_i=A_i, s_i=s_i, spacing=spacing, tau=tau)
        if not (self.spacing > 0).all():
            raise ArgumentError(f"spacing must be positive, got {spacing}")
        place = torch.arange(n)
        apart = (place[:, None] - place).abs()
        self.register_buffer("steps", torch.minimum(apart, n - apart).to(self.dtype))

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """Rates of change, as in the class's docstring."""
        inhibition = (self.kernel() @ x.unsqueeze(-1)).squeeze(-1)
        return (u - x - inhibition) / self.tau

    def kernel(self) -> Float[Tensor, "... position position"]:
        """Weight of the second position on the first, w(d) times the spacing."""
        spacing = self.spacing.unsqueeze(-1)
        distance = self.steps * spacing
        surround = _gaussian(distance, self.s_i.unsqueeze(-1)) * self.A_i.unsqueeze(-1)
        center = _gaussian(distance, self.s_e.unsqueeze(-1)) * self.A_e.unsqueeze(-1)
        return (surround - center) * spacing

    def steady_state(self, u: Input) -> State:
        """Where it rests under a constant input: r^(k) = I^(k) / (1 + w^(k)).

        Raises:
            ArgumentError: 1 + w^(k) is not positive at some frequency, so there is no rest.
        """
        transfer = 1 + torch.fft.rfft(self.kernel()[..., 0, :], dim=-1).real
        if not (transfer > 0).all():
            raise ArgumentError(
                f"1 + w^(k) falls to {float(transfer.min().detach()):.3g}: excitation outgrows "
                "the leak, there is no stable rest",
                fix="a weaker center (A_e)",
            )
        spectrum = torch.fft.rfft(u, dim=-1) / transfer
        return torch.fft.irfft(spectrum, n=self.n_states, dim=-1)


class WongWang(System):
    """Two populations that decide, in the reduced model of Wong & Wang.

        dS_i/dt = -S_i / tau_s + (1 - S_i) gamma H(x_i)
        H(x) = (a x - b) / (1 - exp(-d (a x - b)))
        x_i = J_same S_i - J_other S_j + I0 + J_ext mu0 (1 +- c / c_full)

    Wong & Wang 2006, J Neurosci 26:1314-1328 (appendix). S is the open fraction of NMDA receptors;
    the first population prefers a motion of positive coherence. J_same and J_other are the paper's
    J_N,11 and J_N,12. `NoisyWongWang` has its background noise.
    """

    time_unit = "s"
    states = (
        Quantity("S1", "1", range=(0.0, 1.0), default=0.1),
        Quantity("S2", "1", range=(0.0, 1.0), default=0.1),
    )
    inputs = (
        Quantity("mu0", "Hz", range=(0.0, 60.0), default=30.0),
        Quantity("c", "percent", range=(-100.0, 100.0), default=0.0),
    )
    constants = (
        Quantity("a", "Hz/nA"),
        Quantity("b", "Hz"),
        Quantity("d", "s"),
        Quantity("gamma", "1"),
        Quantity("tau_s", "s"),
        Quantity("J_same", "nA"),
        Quantity("J_other", "nA"),
        Quantity("J_ext", "nA/Hz"),
        Quantity("I0", "nA"),
        Quantity("c_full", "percent"),
    )

    def __init__(
        self,
        *,
        a: Values = 270.0,
        b: Values = 108.0,
        d: Values = 0.154,
        gamma: Values = 0.641,
        tau_s: Values = 0.1,
        J_same: Values = 0.2609,
        J_other: Values = 0.0497,
        J_ext: Values = 5.2e-4,
        I0: Values = 0.3255,
    ):
        super().__init__()
        self.register_constants(
            a=a,
            b=b,
            d=d,
            gamma=gamma,
            tau_s=tau_s,
            J_same=J_same,
            J_other=J_other,
            J_ext=J_ext,
            I0=I0,
            c_full=100.0,
        )

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """Rates of change, as in the class's docstring."""
        return _gating(self, x, u, self.I0)


class NoisyWongWang(System):
    """`WongWang` with the noise of its background input, an Ornstein-Uhlenbeck current each.

        dI_i = -I_i / tau_AMPA dt + sigma / sqrt(tau_AMPA) dW_i,   x_i of WongWang + I_i

    Wong & Wang 2006, J Neurosci 26:1314-1328. The current's standard deviation is sigma / sqrt(2).
    """

    time_unit = "s"
    states = (
        *WongWang.states,
        Quantity("I1", "nA", range=(-0.1, 0.1), default=0.0),
        Quantity("I2", "nA", range=(-0.1, 0.1), default=0.0),
    )
    inputs = WongWang.inputs
    constants = (*WongWang.constants, Quantity("sigma", "nA"), Quantity("tau_AMPA", "s"))

    def __init__(
        self,
        *,
        a: Values = 270.0,
        b: Values = 108.0,
        d: Values = 0.154,
        gamma: Values = 0.641,
        tau_s: Values = 0.1,
        J_same: Values = 0.2609,
        J_other: Values = 0.0497,
        J_ext: Values = 5.2e-4,
        I0: Values = 0.3255,
        sigma: Values = 0.02,
        tau_AMPA: Values = 0.002,
    ):
        super().__init__()
        self.register_constants(
            a=a,
            b=b,
            d=d,
            gamma=gamma,
            tau_s=tau_s,
            J_same=J_same,
            J_other=J_other,
            J_ext=J_ext,
            I0=I0,
            c_full=100.0,
            sigma=sigma,
            tau_AMPA=tau_AMPA,
        )

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """The drift, as in the class's docstring."""
        S, current = x[..., :2], x[..., 2:]
        rates = torch.broadcast_tensors(
            _gating(self, S, u, self.I0 + current), -current / self.tau_AMPA
        )
        return torch.cat(rates, dim=-1)

    def noise(self, t: Time, x: State, u: Input) -> State:
        """Standard deviation of each state's white noise; Ito, the same in either calculus."""
        current = self.sigma / torch.sqrt(self.tau_AMPA) * torch.ones_like(x[..., 2:])
        return torch.cat([torch.zeros_like(current), current], dim=-1)


class RingAttractor(System):
    """N units on a ring whose bump of activity points in a direction and holds it: a compass.

        tau du_i/dt = -u_i + I + s_i + 1/N sum_j [J0 + J1 cos(a_i - a_j) + tau v J1 sin(a_i - a_j)]
                      [u_j]_+

    Cosine weights of Ben-Yishai, Bar-Or & Sompolinsky 1995, PNAS 92:3844-3848; the odd part of
    Zhang 1996, J Neurosci 16:2112-2126, which moves the bump at the velocity v without changing its
    shape. Many units have for J1 > 2 and J0 < 0 a bump at any angle: the half-width h of its active
    part solves h - sin h cos h = 2 pi / J1 (90 degrees at J1 = 4). Below J1 = 2 it is flat.

    Args:
        n: Number of units, at least 4.
        J0: Mean weight; negative is inhibition.
        J1: Weight that depends on the angle between two units.
        tau: Time constant.

    Raises:
        ArgumentError: Fewer than four units.
    """

    time_unit = "s"
    constants = (Quantity("J0", "1"), Quantity("J1", "1"), Quantity("tau", "s"))
    angles: Tensor

    def __init__(self, n: int = 64, J0: Values = -2.0, J1: Values = 4.0, tau: Values = 0.01):
        super().__init__()
        labels = _numbered("units", n, 4)
        self.states = (Quantity("u", "Hz", labels, range=(-100.0, 100.0), default=0.0),)
        self.inputs = (
            Quantity("I", "Hz", range=(0.0, 100.0), default=10.0),
            Quantity("v", "rad/s", range=(-10.0, 10.0), default=0.0),
            Quantity("s", "Hz", labels, range=(-100.0, 100.0), default=0.0),
        )
        self.register_constants(J0=J0, J1=J1, tau=tau)
        self.register_buffer("angles", (2 * math.pi / n * torch.arange(n)).to(self.dtype))

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """Rates of change, as in the class's docstring."""
        I, v, s = self.split(u, self.inputs).values()
        active = torch.relu(x)
        cosine, sine = torch.cos(self.angles), torch.sin(self.angles)
        mean = active.mean(-1, keepdim=True)
        along = (active * cosine).mean(-1, keepdim=True)
        across = (active * sine).mean(-1, keepdim=True)
        turn = self.tau * v  # cos and sin of a difference are sums of products over the ring
        even = cosine * along + sine * across
        odd = sine * along - cosine * across
        recurrent = self.J0 * mean + self.J1 * (even + turn * odd)
        return (I + s + recurrent - x) / self.tau

    def heading(self, x: State) -> Float[Tensor, "..."]:
        """Angle of the population vector of the rates, in (-pi, pi]."""
        active = torch.relu(x)
        across = (active * torch.sin(self.angles)).sum(-1)
        return torch.atan2(across, (active * torch.cos(self.angles)).sum(-1))


def _gating(system: WongWang | NoisyWongWang, S: State, u: Input, background: Tensor) -> State:
    mu0, c = u[..., :1], u[..., 1:] / system.c_full
    sign = torch.tensor([1.0, -1.0], dtype=S.dtype, device=S.device)
    stimulus = system.J_ext * mu0 * (1 + sign * c)
    current = system.J_same * S - system.J_other * S.flip(-1) + background + stimulus
    rate = linoid(system.d * (system.a * current - system.b)) / system.d
    return -S / system.tau_s + (1 - S) * system.gamma * rate


def _gaussian(distance: Tensor, width: Tensor) -> Tensor:
    return torch.exp(-0.5 * (distance / width) ** 2) / (width * math.sqrt(2 * math.pi))


def _numbered(what: str, n: int, least: int) -> tuple[str, ...]:
    if n < least:
        raise ArgumentError(f"at least {least} {what} are needed, got {n}")
    return tuple(str(i + 1) for i in range(n))
