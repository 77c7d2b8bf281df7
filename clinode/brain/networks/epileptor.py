"""Regions that may seize and recruit one another."""

from jaxtyping import Float
from torch import Tensor

from clinode.brain.connectome import Connectome
from clinode.brain.seizure import Epileptor, epileptor_rates
from clinode.system import Past, Quantity, Time, Values

from .network import Input, Network, State


class EpileptorNetwork(Network):
    """An Epileptor in each region, coupled through their slow permittivities.

        dz_k/dt = (4 (x1_k - x0_k) - z_k - K sum_j W_kj (x1_j(t - length_kj / speed) - x1_k)) / tau0

    and the rest as in `Epileptor` (Jirsa et al. 2014, Brain 137:2210-2230). A region whose x1 is
    above another's lowers that one's z and so brings it nearer to a seizure: Proix et al. 2014,
    J Neurosci 34:15009-15021. Time is the Epileptor's, without a unit; a speed is in mm per unit of
    it. W, delays and noise (on x2 and y2) are as in `Network`. The output x2 - x1 stands for each
    region's field potential.

    Args:
        connectome: Regions and weights, and tract lengths if there are to be delays.
        K: Global coupling.
        x0: Excitability, one number or one a region: about -1.6 where seizures begin, -2.2, the
            default, where alone there are none (Jirsa et al. 2017, NeuroImage 145:377-388); alone a
            region loses its rest near -2.06.
        y0, tau0, tau2, I1, I2, gamma: As in `Epileptor`.
        sigma: None is no noise.
        speed: In mm per unit of time; None is no delays.
        delay_step: As in `Network`.

    Raises:
        ArgumentError: A speed that is not positive or without tract lengths.
    """

    states = Epileptor.states
    inputs = (Quantity("stimulus", "1", range=(-2.0, 2.0), default=0.0),)
    outputs = Epileptor.outputs
    constants = (*Epileptor.constants, Quantity("K", "1"))
    by_region = ("x0",)
    delayed = ("x1",)
    noisy = ("x2", "y2")

    def __init__(
        self,
        connectome: Connectome,
        *,
        K: Values = 1.0,
        x0: Values = -2.2,
        y0: Values = 1.0,
        tau0: Values = 2857.0,
        tau2: Values = 10.0,
        I1: Values = 3.1,
        I2: Values = 0.45,
        gamma: Values = 0.01,
        sigma: Values | None = None,
        speed: float | None = None,
        delay_step: float | None = None,
    ):
        super().__init__()
        own = {"K": K, "x0": x0, "y0": y0, "tau0": tau0, "tau2": tau2}
        own |= {"I1": I1, "I2": I2, "gamma": gamma}
        self._place(connectome, own, speed=speed, delay_step=delay_step, sigma=sigma)

    def vector_field(self, t: Time, x: State, u: Input, past: Past | None = None) -> State:
        """Rates of change, as in the class's docstring."""
        states = self.split(x)
        seen = self.received(lambda seen: seen["x1"], states, past)
        pull = self.K * (seen - self.weights.sum(-1) * states["x1"])
        return epileptor_rates(self, x, u, pull)

    def output(self, t: Time, x: State, u: Input) -> Float[Tensor, "... output"]:
        """x2 - x1 of every region."""
        states = self.split(x)
        return states["x2"] - states["x1"]
