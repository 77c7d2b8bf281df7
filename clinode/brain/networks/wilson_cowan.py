"""Excitation and inhibition in each region."""

from clinode.brain.connectome import Connectome
from clinode.brain.populations import WilsonCowan, convention_named, wilson_cowan_rates
from clinode.system import Past, Quantity, Time, Values

from .network import Input, Network, State


class WilsonCowanNetwork(Network):
    """A Wilson-Cowan population in each region, coupled through what their E sends.

        tau_e dE_k/dt = -E_k + (k_e - r_e E_k) S_e(c1 E_k - c2 I_k + P_k + stimulus_k
                        + K sum_j W_kj E_j(t - length_kj / speed))
        tau_i dI_k/dt = -I_k + (k_i - r_i I_k) S_i(c3 E_k - c4 I_k + Q_k)

    Wilson & Cowan 1972, Biophys J 12:1-24, on a connectome as in Muldoon et al. 2016, PLoS Comput
    Biol 12:e1005076. W, delays and noise (on E and I) are as in `Network`.

    Args:
        connectome: Regions and weights, and tract lengths if there are to be delays.
        K: Global coupling.
        P, Q: Constant drive of E and I, one number or one a region.
        c1, c2, c3, c4, a_e, theta_e, a_i, theta_i, r_e, r_i, tau_e, tau_i: As in `WilsonCowan`.
        sigma: Per root of a ms; None is no noise.
        speed: In mm/ms; None is no delays.
        delay_step: In ms, as in `Network`.
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
    states = WilsonCowan.states
    inputs = (Quantity("stimulus", "1", range=(-5.0, 5.0), default=0.0),)
    constants = (
        *WilsonCowan.constants,
        *(Quantity(name, "1") for name in ("K", "P", "Q")),
    )
    by_region = ("P", "Q")
    delayed = ("E",)
    noisy = ("E", "I")

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
        delay_step: float | None = None,
        convention: str = "asymptote",
    ):
        super().__init__()
        self.convention = convention_named(convention)
        own = {"c1": c1, "c2": c2, "c3": c3, "c4": c4, "r_e": r_e, "r_i": r_i}
        own |= {"a_e": a_e, "theta_e": theta_e, "a_i": a_i, "theta_i": theta_i}
        own |= {"tau_e": tau_e, "tau_i": tau_i, "K": K, "P": P, "Q": Q}
        self._place(connectome, own, speed=speed, delay_step=delay_step, sigma=sigma)

    def vector_field(self, t: Time, x: State, u: Input, past: Past | None = None) -> State:
        """Rates of change, as in the class's docstring."""
        states = self.split(x)
        received = self.received(lambda seen: seen["E"], states, past)
        drive = self.P + u + self.K * received
        rates = wilson_cowan_rates
        return rates(self, self.convention, states["E"], states["I"], P=drive, Q=self.Q)
