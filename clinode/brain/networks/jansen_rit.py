"""A cortical column in each region."""

from jaxtyping import Float
from torch import Tensor

from clinode.brain.connectome import Connectome
from clinode.brain.populations import JansenRit, firing_rate, jansen_rit_rates
from clinode.system import Past, Quantity, Time, Values

from .network import Blocks, Input, Network, State


class JansenRitNetwork(Network):
    """A column of Jansen & Rit in each region; pyramidal cells excite those of other regions.

    `JansenRit` with p_k + stimulus_k + K sum_j W_kj S(y1_j - y2_j)(t - length_kj / speed) in place
    of p. Jansen & Rit 1995, Biol Cybern 73:357-366, coupled as in Forrester et al. 2020, Netw
    Neurosci 4:467-483: the spikes arrive at the same excitatory synapses as p, without the further
    filter of the 1995 paper's two columns. The output y1 - y2 stands for each region's EEG. W and
    delays are as in `Network`; the noise is one of p.

    Args:
        connectome: Regions and weights, and tract lengths if there are to be delays.
        K: Global coupling: spikes that arrive for each that is fired.
        p: Spikes from elsewhere, Hz, one number or one a region; 120 to 320 in the paper. Alone, a
            column rests below 89.8 Hz and has its alpha rhythm above.
        A, B, a, b, e0, v0, r, C, alpha1, alpha2, alpha3, alpha4: As in `JansenRit`.
        sigma: Of white noise added to p, Hz sqrt(s); None is no noise.
        speed: In mm/ms; None is no delays.
        delay_step: In s, as in `Network`.

    Raises:
        ArgumentError: A speed that is not positive or without tract lengths.
    """

    time_unit = "s"
    states = JansenRit.states
    inputs = (Quantity("stimulus", "Hz", range=(-100.0, 400.0), default=0.0),)
    outputs = JansenRit.outputs
    constants = (*JansenRit.constants, Quantity("K", "1"), Quantity("p", "Hz"))
    by_region = ("p",)
    delayed = ("y1", "y2")
    noisy = ("y4",)

    def __init__(
        self,
        connectome: Connectome,
        *,
        K: Values = 10.0,
        p: Values = 120.0,
        A: Values = 3.25,
        B: Values = 22.0,
        a: Values = 100.0,
        b: Values = 50.0,
        e0: Values = 2.5,
        v0: Values = 6.0,
        r: Values = 0.56,
        C: Values = 135.0,
        alpha1: Values = 1.0,
        alpha2: Values = 0.8,
        alpha3: Values = 0.25,
        alpha4: Values = 0.25,
        sigma: Values | None = None,
        speed: float | None = None,
        delay_step: float | None = None,
    ):
        super().__init__()
        own = {"A": A, "B": B, "a": a, "b": b, "e0": e0, "v0": v0, "r": r, "C": C}
        own |= {"alpha1": alpha1, "alpha2": alpha2, "alpha3": alpha3, "alpha4": alpha4}
        own |= {"K": K, "p": p}
        self._place(connectome, own, speed=speed, delay_step=delay_step, sigma=sigma)

    def vector_field(self, t: Time, x: State, u: Input, past: Past | None = None) -> State:
        """Rates of change, as in the class's docstring."""
        received = self.received(self._fired, self.split(x), past)
        return jansen_rit_rates(self, x, self.p + u + self.K * received)

    def output(self, t: Time, x: State, u: Input) -> Float[Tensor, "... output"]:
        """y1 - y2 of every region."""
        states = self.split(x)
        return states["y1"] - states["y2"]

    def _fired(self, seen: Blocks) -> Tensor:
        return firing_rate(self, seen["y1"] - seen["y2"])

    def _noise(self, t: Time, x: State, u: Input) -> State:
        """A a sigma on y4, which p drives."""
        return self.A * self.a * super()._noise(t, x, u)

    def _noise_unit(self) -> str:
        return "Hz*s**0.5"
