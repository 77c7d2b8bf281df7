"""The systems that can be named in text, with a call that makes each at its published constants.

`NETWORKS` take a connectome; `SYSTEMS` has each of them on a generated one.
"""

import functools
from collections.abc import Callable

from clinode.system import System

from .circuits import LateralInhibition, NoisyWongWang, RingAttractor, WinnerTakeAll, WongWang
from .conductance import FitzHughNagumo, HodgkinHuxley, MorrisLecar
from .connectome import Connectome, simulate_connectome
from .integrate_and_fire import LIF, AdaptiveLinear, AdEx, Izhikevich, NoisyLIF, Theta
from .networks import (
    EpileptorNetwork,
    JansenRitNetwork,
    KuramotoNetwork,
    Network,
    ReducedWongWangNetwork,
    SaturatingRateNetwork,
    StuartLandauNetwork,
    WilsonCowanNetwork,
)
from .populations import JansenRit, SNICOscillator, ThetaPopulation, WilsonCowan
from .seizure import Epileptor, Wendling

NETWORKS: dict[str, Callable[[Connectome], Network]] = {
    "epileptor": EpileptorNetwork,
    "jansen-rit": JansenRitNetwork,
    "kuramoto": KuramotoNetwork,
    "reduced-wong-wang": ReducedWongWangNetwork,
    "saturating-rate": SaturatingRateNetwork,
    "stuart-landau": StuartLandauNetwork,
    "wilson-cowan": WilsonCowanNetwork,
}


def on_generated(kind: Callable[[Connectome], Network]) -> Network:
    """A network of this kind on the generated connectome of 68 regions."""
    return kind(simulate_connectome())


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
    **{f"{name}-network": functools.partial(on_generated, kind) for name, kind in NETWORKS.items()},
}
