"""How decisions are made and learned: reaction times, their models, and what tells them apart."""

from .compare import DecisionComparison, PredictiveCheck, compare, predictive_check
from .diffusion import DDM
from .first_passage import FirstPassage
from .fit import Fit, Trials, fit
from .later import LATER
from .race import LBA, WaldRace
from .ramps import RampSignature, ramp_signature
from .response_times import ResponseModel, Responses
from .swivel import SwivelOrShift, swivel_or_shift
from .wiener import Wiener

__all__ = [
    "DDM",
    "LATER",
    "LBA",
    "DecisionComparison",
    "FirstPassage",
    "Fit",
    "PredictiveCheck",
    "RampSignature",
    "ResponseModel",
    "Responses",
    "SwivelOrShift",
    "Trials",
    "WaldRace",
    "Wiener",
    "compare",
    "fit",
    "predictive_check",
    "ramp_signature",
    "swivel_or_shift",
]
