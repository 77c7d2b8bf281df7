"""Networks of populations on a connectome."""

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Delay, Quantity, System, Time, Values

from .connectome import Connectome
from .populations import WilsonCowan, convention_named, wilson_cowan_rates

State = Float[Tensor, "... state"]
Input = Float[Tensor, "... input"]


class WilsonCowanNetwork(System):
    """A Wilson-Cowan population in each region, coupled through what their E sends.

        tau_e dE_k/dt = -E_k + (k_e - r_e E_k) S_e(c1 E_k - c2 I_k + P_k + stimulus_k
                        + K sum_j W_kj E_j(t - length_kj / speed))
        tau_i dI_k/dt = -I_k + (k_i - r_i I_k) S_i(c3 E_k - c4 I_k + Q_k)

    Wilson & Cowan 1972, Biophys J 12:1-24, on a connectome as in Muldoon et al. 2016, PLoS Comput
    Biol 12:e1005076. W is the connectome's weights divided by the largest total that a region
    receives, so that their arbitrary unit does not matter and K bounds the coupling. W is a
    constant of n x n members named "target<-source": `with_constants(W=...)` takes another network
    (W.flatten(-2)), or a batch of them.

    Args:
        connectome: Regions and weights, and tract lengths if there are to be delays.
        K: Global coupling.
        P, Q: Constant drive of E and I, one number or one a region.
        c1, c2, c3, c4, a_e, theta_e, a_i, theta_i, r_e, r_i, tau_e, tau_i: As in `WilsonCowan`.
        sigma: Strength of white noise on each E and I, per root of a ms; None is a network
            without noise, which then has no such constant.
        speed: Of conduction, in mm/ms; None is a network without delays.
        convention: As in `WilsonCowan`.

    Raises:
        ArgumentError: A speed that is not positive or without tract lengths, an unknown convention.

    Example:
        >>> from clinode.brain.connectome import simulate_connectome
        >>> brain = WilsonCowanNetwork(simulate_connectome(8))
        >>> brain.input_names[0]
        'stimulus:lh_precuneus'
    """

    time_unit = "ms"
    constants = (
        *WilsonCowan.constants,
        Quantity("K", "1"),
    )

    def __init__(
        self,
        connectome: Connectome,
        *,
        K: Values = 4.0,
        P: Values = 0.75,
        Q: Values = 0.0,
        c1: Values = 16.0,
        c2: Values = 12.0,
        c3: Values = 15.0,
        c4: Values = 3.0,
        a_e: Values = 1.3,
        theta_e: Values = 4.0,
        a_i: Values = 2.0,
        theta_i: Values = 3.7,
        r_e: Values = 1.0,
        r_i: Values = 1.0,
        tau_e: Values = 10.0,
        tau_i: Values = 10.0,
        sigma: Values | None = None,
        speed: float | None = None,
        convention: str = "asymptote",
    ):
        super().__init__()
        self.convention = convention_named(convention)
        self.connectome = connectome
        self.is_noisy = sigma is not None
        regions = connectome.labels
        self._name_quantities(regions)
        self._declare_delays(speed)
        noise = {} if sigma is None else {"sigma": sigma}
        self.register_constants(
            c1=c1,
            c2=c2,
            c3=c3,
            c4=c4,
            a_e=a_e,
            theta_e=theta_e,
            a_i=a_i,
            theta_i=theta_i,
            r_e=r_e,
            r_i=r_i,
            tau_e=tau_e,
            tau_i=tau_i,
            K=K,
            P=P,
            Q=Q,
            W=connectome.scaled().weights.flatten(),
            **noise,
        )

    def vector_field(
        self, t: Time, x: State, u: Input, past: dict[str, Tensor] | None = None
    ) -> State:
        """Rates of change, as in the class's docstring.

        Args:
            t: Any time.
            x: E of all regions, then I.
            u: The stimulus.
            past: Where there are delays, past["E"][..., k, j] is E_j as region k receives it.
        """
        n = x.shape[-1] // 2
        E, I = x[..., :n], x[..., n:]
        W = self.weights
        if past is not None:
            received = (W * past["E"]).sum(-1)
        elif W.ndim == 2:
            received = torch.nn.functional.linear(E, W)
        else:
            received = (W @ E.unsqueeze(-1)).squeeze(-1)
        drive = self.P + u + self.K * received
        return wilson_cowan_rates(self, self.convention, E, I, P=drive, Q=self.Q)

    @property
    def weights(self) -> Float[Tensor, "... region region"]:
        """W as a matrix: row k holds what region k receives."""
        n = len(self.connectome.labels)
        return self.W.unflatten(-1, (n, n))

    @property
    def noise(self):  # pyright: ignore[reportIncompatibleVariableOverride]  (its type is the same)
        """Standard deviation of the white noise on each state (Ito), or None."""
        return self._noise if self.is_noisy else None

    def _noise(self, t: Time, x: State, u: Input) -> State:
        return self.sigma * torch.ones_like(x)

    def _name_quantities(self, regions: tuple[str, ...]) -> None:
        pairs = tuple(f"{target}<-{source}" for target in regions for source in regions)
        self.states = tuple(
            Quantity(name, "1", regions, range=(0.0, 0.5), default=0.0) for name in ("E", "I")
        )
        self.inputs = (Quantity("stimulus", "1", regions, range=(-5.0, 5.0), default=0.0),)
        drives = (Quantity("P", "1", regions), Quantity("Q", "1", regions))
        self.constants = (*type(self).constants, *drives, Quantity("W", "1", pairs))
        if self.is_noisy:
            self.constants = (*self.constants, Quantity("sigma", "1/ms**0.5"))

    def _declare_delays(self, speed: float | None) -> None:
        if speed is None:
            return
        lengths = self.connectome.tract_lengths
        if lengths is None:
            raise ArgumentError(
                "delays need tract lengths and the connectome has none",
                fix="speed=None for a network without delays",
            )
        if not speed > 0:
            raise ArgumentError(f"speed must be positive, got {speed} mm/ms")
        used = self.connectome.weights != 0  # a pair without a weight needs no history
        self.register_buffer("delay_times", torch.where(used, lengths / speed, 0.0))
        self.delays = (Delay("E", "delay_times"),)
