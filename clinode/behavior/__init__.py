"""How decisions are made and learned: reaction times, their models, and what tells them apart."""

from .cerebellum import (
    VOR,
    Adaptation,
    CerebellarLearning,
    HeadMovement,
    ParallelFibers,
    adapt,
    delay_lines,
    learning_rates,
    low_passes,
)
from .compare import DecisionComparison, PredictiveCheck, compare, predictive_check
from .diffusion import DDM
from .first_passage import FirstPassage
from .fit import Fit, Trials, fit
from .later import LATER
from .race import LBA, WaldRace
from .ramps import RampSignature, ramp_signature
from .reinforcement import (
    TD,
    TRACES,
    Conditioning,
    Learned,
    MarkovReward,
    ThreeFactorSynapse,
    condition,
    lambda_returns,
    lstd,
    mean_field,
    random_walk,
)
from .response_times import ResponseModel, Responses
from .swivel import SwivelOrShift, swivel_or_shift
from .wald import Wald
from .wiener import Wiener

__all__ = [
    "DDM",
    "LATER",
    "LBA",
    "TD",
    "TRACES",
    "VOR",
    "Adaptation",
    "CerebellarLearning",
    "Conditioning",
    "DecisionComparison",
    "FirstPassage",
    "Fit",
    "HeadMovement",
    "Learned",
    "MarkovReward",
    "ParallelFibers",
    "PredictiveCheck",
    "RampSignature",
    "ResponseModel",
    "Responses",
    "SwivelOrShift",
    "ThreeFactorSynapse",
    "Trials",
    "Wald",
    "WaldRace",
    "Wiener",
    "adapt",
    "compare",
    "condition",
    "delay_lines",
    "fit",
    "lambda_returns",
    "learning_rates",
    "low_passes",
    "lstd",
    "mean_field",
    "predictive_check",
    "ramp_signature",
    "random_walk",
    "swivel_or_shift",
]
