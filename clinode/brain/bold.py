"""What a scanner sees of a network: blood that follows activity, and the signal of both.

`BalloonWindkessel` is a system of its own: `with_bold` joins it to a network, so that both are one
system (to linearize, say). For minutes of signal `record_bold` is faster: it lets the blood follow
a trajectory of the network in steps of its own, which may be hundreds of times as long.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.dynamics.simulate import Trajectory, simulate
from clinode.errors import ArgumentError
from clinode.system import Quantity, Signal, System, Time, Values, connect, positions
from clinode.system.quantity import nearest
from clinode.system.values import floating

State = Float[Tensor, "... state"]
Input = Float[Tensor, "... input"]

IN_A_SECOND = {"s": 1.0, "ms": 1e3}  # time units


class BalloonWindkessel(System):
    """Blood flow, volume and deoxyhemoglobin in each region, and the BOLD signal.

        ds/dt     = epsilon activity - kappa s - gamma (f - 1)
        df/dt     = s
        tau dv/dt = f - v^(1/alpha)
        tau dq/dt = f (1 - (1 - rho)^(1/f)) / rho - v^(1/alpha) q / v
        BOLD      = V0 (k1 (1 - q) + k2 (1 - q / v) + k3 (1 - v))

    Friston, Harrison & Penny 2003, NeuroImage 19:1273-1302, with its prior means as defaults:
    kappa 0.65/s, gamma 0.41/s^2, tau 0.98 s, alpha 0.32, rho 0.34, V0 0.02, k1 = 7 rho, k2 = 2,
    k3 = 2 rho - 0.2. `stephan2007` has the later constants of the signal. s is what dilates the
    vessels; f, v and q are relative to rest, where all are 1. The equations end where there is no
    flow or volume left: there the rates are NaN.

    Args:
        regions: Their names.
        time_unit: "s" or "ms", whichever the network has. Constants are given in s all the same;
            `with_constants` takes them in the time unit.
        activity_unit: Of the input.
        epsilon: Efficacy, 1/s^2 per unit of activity.
        kappa, gamma, tau, alpha, rho, V0, k1, k2, k3: As above.

    Raises:
        ArgumentError: Another time unit.
    """

    def __init__(
        self,
        regions: Sequence[str],
        *,
        time_unit: str = "s",
        activity_unit: str = "1",
        epsilon: Values = 1.0,
        kappa: Values = 0.65,
        gamma: Values = 0.41,
        tau: Values = 0.98,
        alpha: Values = 0.32,
        rho: Values = 0.34,
        V0: Values = 0.02,
        k1: Values = 2.38,
        k2: Values = 2.0,
        k3: Values = 0.48,
    ):
        super().__init__()
        if time_unit not in IN_A_SECOND:
            raise ArgumentError(f"time_unit must be 's' or 'ms', got {time_unit!r}")
        self.time_unit, names = time_unit, tuple(regions)
        pace, T = 1 / IN_A_SECOND[time_unit], time_unit  # constants are given in s
        self.states = (
            Quantity("s", f"1/{T}", names, range=(-0.5 * pace, 0.5 * pace), default=0.0),
            Quantity("f", "1", names, range=(0.3, 3.0), default=1.0),
            Quantity("v", "1", names, range=(0.5, 2.0), default=1.0),
            Quantity("q", "1", names, range=(0.3, 2.0), default=1.0),
        )
        self.inputs = (Quantity("activity", activity_unit, names, range=(-0.2, 1.0), default=0.0),)
        self.outputs = (Quantity("BOLD", "1", names),)
        per_activity = "" if activity_unit == "1" else f"/({activity_unit})"
        self.constants = (
            Quantity("epsilon", f"1/{T}**2{per_activity}"),
            Quantity("kappa", f"1/{T}"),
            Quantity("gamma", f"1/{T}**2"),
            Quantity("tau", T),
            *(Quantity(name, "1") for name in ("alpha", "rho", "V0", "k1", "k2", "k3")),
        )
        self.register_constants(
            epsilon=floating(epsilon) * pace**2,
            kappa=floating(kappa) * pace,
            gamma=floating(gamma) * pace**2,
            tau=floating(tau) / pace,
            alpha=alpha,
            rho=rho,
            V0=V0,
            k1=k1,
            k2=k2,
            k3=k3,
        )

    @classmethod
    def stephan2007(
        cls,
        regions: Sequence[str],
        *,
        time_unit: str = "s",
        activity_unit: str = "1",
        echo_time: float = 0.04,
        epsilon_signal: float = 1.43,
    ) -> "BalloonWindkessel":
        """With the signal of Stephan et al. 2007, NeuroImage 38:387-401, at 1.5 T.

        rho = 0.4, V0 = 0.04, k1 = 4.3 * 40.3 rho TE, k2 = e 25 rho TE, k3 = 1 - e.

        Args:
            regions: Their names.
            time_unit: As of the class.
            activity_unit: As of the class.
            echo_time: TE, s.
            epsilon_signal: e, the signal inside the vessels relative to that outside.
        """
        rho, outer, inner = 0.4, 4.3 * 40.3, 25.0  # 40.3/s: frequency offset; 25/s: relaxation
        return cls(
            regions,
            time_unit=time_unit,
            activity_unit=activity_unit,
            rho=rho,
            V0=0.04,
            k1=outer * rho * echo_time,
            k2=epsilon_signal * inner * rho * echo_time,
            k3=1 - epsilon_signal,
        )

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """Rates of change, as in the class's docstring."""
        s, f, v, q = self.split(x).values()
        f = torch.where(f > 0, f, torch.nan)  # without flow (1 - rho)^(1/f) would still be finite
        leaving = v ** (1 / self.alpha)
        extracted = (1 - (1 - self.rho) ** (1 / f)) / self.rho
        return self.join(
            s=self.epsilon * u - self.kappa * s - self.gamma * (f - 1),
            f=s,
            v=(f - leaving) / self.tau,
            q=(f * extracted - leaving * q / v) / self.tau,
        )

    def output(self, t: Time, x: State, u: Input) -> Float[Tensor, "... output"]:
        """The BOLD signal of every region, a fraction of the signal at rest."""
        _, _, v, q = self.split(x).values()
        return self.V0 * (self.k1 * (1 - q) + self.k2 * (1 - q / v) + self.k3 * (1 - v))


def with_bold(network: System, activity: str, bold: BalloonWindkessel | None = None) -> System:
    """A network and the blood that follows it as one system, whose output is the BOLD signal.

    Its parts are "brain" and "bold": inputs read `brain.stimulus:lh_precuneus`, outputs
    `bold.BOLD:lh_precuneus`.

    Args:
        network: Any system with an output block, one value a region.
        activity: Name of the block that drives the blood: "E", "S", "EEG".
        bold: The blood; at its published constants by default.

    Raises:
        ArgumentError: No such output block, or blood of other regions.
        UnitError: Blood that takes another unit.
    """
    driving = _named(network.outputs, activity, f"output of {type(network).__name__}")
    if bold is None:
        bold = BalloonWindkessel(
            driving.labels, time_unit=network.time_unit, activity_unit=driving.unit
        )
    parts = {"brain": network, "bold": bold}
    return connect(parts, [(f"brain.{activity}", "bold.activity")], outputs=["bold.BOLD"])


def record_bold(
    trajectory: Trajectory,
    activity: str,
    repetition_time: float,
    *,
    bold: BalloonWindkessel | None = None,
    step: float | None = None,
    start: Values | None = None,
) -> Trajectory:
    """The BOLD signal of a network that was simulated, once every repetition time.

    The activity is averaged over each step and held, so that what is faster is not aliased; blood
    takes seconds, and halving the step shows the error. Pieces of one simulation, each begun where
    the last ended, give what the whole gives if they end at repetition times.

    Args:
        trajectory: Of the network, all of it on one grid of times.
        activity: Name of the state or output block that drives the blood.
        repetition_time: TR, in the trajectory's time unit.
        bold: The blood; at its published constants by default.
        step: Of the blood, in the trajectory's time unit; 0.02 s by default.
        start: States of the blood at the start, (*batch, n_states), the last of the piece before;
            at rest by default.

    Returns:
        Outputs (*batch, time, region) from the start on, as long as there is activity.

    Raises:
        ArgumentError: No such block, times that differ between trajectories, a trajectory that is
            shorter than the repetition time or failed.
        SolverError: The activity lets a vessel run empty.
    """
    values, quantity = recorded(trajectory, activity)
    times = trajectory.times
    if bold is None:
        bold = BalloonWindkessel(
            quantity.labels or (quantity.name,),
            time_unit=trajectory.time_unit,
            activity_unit=quantity.unit,
        )
    if times.ndim > 1:
        raise ArgumentError("trajectories with times of their own have no common repetition times")
    if not values.isfinite().all():
        raise ArgumentError(f"'{activity}' is not finite everywhere: did a trajectory fail?")
    step = 0.02 * IN_A_SECOND[bold.time_unit] if step is None else step
    if not (repetition_time > 0 and step > 0):
        raise ArgumentError("the repetition time and the step must be positive")
    n_samples = int((float(times[-1] - times[0]) / repetition_time) * (1 + 1e-12))
    if n_samples < 1:
        raise ArgumentError(
            f"{float(times[-1] - times[0]):g} {bold.time_unit} of activity are shorter than one "
            f"repetition time of {repetition_time:g}"
        )
    per_sample = max(1, round(repetition_time / step))
    edges = torch.arange(n_samples * per_sample + 1, dtype=times.dtype, device=times.device)
    edges = times[0] + edges * (repetition_time / per_sample)
    held = Signal(edges[:-1], _averaged(times, values, edges))
    x0 = bold.initial_state() if start is None else start
    sampled = edges[::per_sample]
    return simulate(bold, x0, sampled, held, method="rk4", step=repetition_time / per_sample)


def recorded(trajectory: Trajectory, name: str) -> tuple[Float[Tensor, "*batch time _"], Quantity]:
    """The values of a block of outputs or states, (*batch, time, region), and what it is.

    Raises:
        ArgumentError: No block of this name.
    """
    for quantities, values in (
        (trajectory.output_quantities, trajectory.outputs),
        (trajectory.state_quantities, trajectory.states),
    ):
        if any(quantity.name == name for quantity in quantities):
            places = positions(quantities, name, "block of this trajectory")
            return values[..., places], _named(quantities, name, "block of this trajectory")
    both = (*trajectory.output_quantities, *trajectory.state_quantities)
    return values, _named(both, name, "block of this trajectory")


def _named(quantities: Sequence[Quantity], name: str, what: str) -> Quantity:
    for quantity in quantities:
        if quantity.name == name:
            return quantity
    known: dict[str, Any] = dict.fromkeys(quantity.name for quantity in quantities)
    raise ArgumentError(f"no {what} is called '{name}': {nearest(name, known)}")


def _averaged(times: Tensor, values: Tensor, edges: Tensor) -> Tensor:
    """Means of the lines between values (..., time, region) over the spans between edges."""
    widths = times.diff().unsqueeze(-1).to(values.dtype)
    areas = (values[..., 1:, :] + values[..., :-1, :]) / 2 * widths
    until = torch.nn.functional.pad(areas.cumsum(-2), (0, 0, 1, 0))
    left = (torch.searchsorted(times, edges, right=True) - 1).clamp(0, len(times) - 2)
    inside = (edges - times[left]).unsqueeze(-1).to(values.dtype)
    share = inside / widths[left]
    here = values[..., left, :] + share * (values[..., left + 1, :] - values[..., left, :])
    area = until[..., left, :] + inside * (values[..., left, :] + here) / 2
    return area.diff(dim=-2) / edges.diff().unsqueeze(-1).to(values.dtype)
