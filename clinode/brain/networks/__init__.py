"""Networks of populations on a connectome, one a region."""

from .epileptor import EpileptorNetwork
from .jansen_rit import JansenRitNetwork
from .network import Network
from .oscillators import KuramotoNetwork, StuartLandauNetwork, order_parameter
from .rates import ReducedWongWangNetwork, SaturatingRateNetwork
from .wilson_cowan import WilsonCowanNetwork

__all__ = [
    "EpileptorNetwork",
    "JansenRitNetwork",
    "KuramotoNetwork",
    "Network",
    "ReducedWongWangNetwork",
    "SaturatingRateNetwork",
    "StuartLandauNetwork",
    "WilsonCowanNetwork",
    "order_parameter",
]
