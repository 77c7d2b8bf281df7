"""The systems that can be named in text, with a call that makes each at its published constants."""

from collections.abc import Callable

from clinode.system import System

from .circuits import LateralInhibition, NoisyWongWang, RingAttractor, WinnerTakeAll, WongWang
from .conductance import FitzHughNagumo, HodgkinHuxley, MorrisLecar
from .integrate_and_fire import LIF, AdaptiveLinear, AdEx, Izhikevich, NoisyLIF, Theta
from .populations import JansenRit, SNICOscillator, ThetaPopulation, WilsonCowan
from .seizure import Epileptor, Wendling

SYSTEMS: dict[str, Callable[[], System]] = {
    "adaptive-linear": AdaptiveLinear,
    "adex": AdEx,
    "epileptor": Epileptor,
    "fitzhugh-nagumo": FitzHughNagumo,
    "hodgkin-huxley": HodgkinHuxley,
    "izhikevich": Izhikevich,
    "jansen-rit": JansenRit,
    "lateral-inhibition": LateralInhibition,
    "lif": LIF,
    "morris-lecar": MorrisLecar.hopf,
    "morris-lecar-homoclinic": MorrisLecar.homoclinic,
    "morris-lecar-snic": MorrisLecar.snic,
    "noisy-lif": NoisyLIF,
    "noisy-wong-wang": NoisyWongWang,
    "ring-attractor": RingAttractor,
    "snic-oscillator": SNICOscillator,
    "theta": Theta,
    "theta-population": ThetaPopulation,
    "wendling": Wendling,
    "wilson-cowan": WilsonCowan,
    "winner-take-all": WinnerTakeAll,
    "wong-wang": WongWang,
}
