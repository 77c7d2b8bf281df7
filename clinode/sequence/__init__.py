"""Systems we learn: models of irregular sequences, one file a family."""

from .cfc import CfC
from .families import MODELS, model_from_config
from .flow_system import FlowLatentSystem
from .gated_system import GatedLatentSystem
from .gru_d import GRUD
from .gru_gap import GRUGap
from .gru_ode_bayes import GRUODEBayes
from .kalman_latent_ode import KalmanLatentODE
from .latent_ode import LatentODE
from .latent_sde import LatentSDE
from .latent_system import BoundedLatentSystem, LinearLatentSystem
from .linear_latent_ode import LinearLatentODE
from .model import SequenceModel
from .network import (
    LearnedNetwork,
    NetworkConfig,
    Phase,
    RateNetwork,
    learn_network,
    load_network,
    save_network,
)
from .neural_cde import NeuralCDE
from .neural_flow import NeuralFlow
from .noisy_system import NoisyLatentSystem
from .ode_rnn import ODERNN
from .readout import Encoding, Head, HeadSizes, Prepared, Readout, in_batches
from .scan_latent_ode import ScanLatentODE
from .step_check import (
    StepCheck,
    check_steps,
)

__all__ = [
    "GRUD",
    "MODELS",
    "ODERNN",
    "BoundedLatentSystem",
    "CfC",
    "Encoding",
    "FlowLatentSystem",
    "GRUGap",
    "GRUODEBayes",
    "GatedLatentSystem",
    "Head",
    "HeadSizes",
    "KalmanLatentODE",
    "LatentODE",
    "LatentSDE",
    "LearnedNetwork",
    "LinearLatentODE",
    "LinearLatentSystem",
    "NetworkConfig",
    "NeuralCDE",
    "NeuralFlow",
    "NoisyLatentSystem",
    "Phase",
    "Prepared",
    "RateNetwork",
    "Readout",
    "ScanLatentODE",
    "SequenceModel",
    "StepCheck",
    "check_steps",
    "in_batches",
    "learn_network",
    "load_network",
    "model_from_config",
    "save_network",
]
