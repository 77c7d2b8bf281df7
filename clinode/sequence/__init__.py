"""Systems we learn: models of irregular sequences, one file a family."""

from .families import MODELS, model_from_config
from .gru_d import GRUD
from .latent_system import BoundedLatentSystem, LinearLatentSystem
from .linear_latent_ode import LinearLatentODE
from .model import SequenceModel
from .ode_rnn import ODERNN
from .readout import Encoding, Prepared, Readout, in_batches

__all__ = [
    "GRUD",
    "MODELS",
    "ODERNN",
    "BoundedLatentSystem",
    "Encoding",
    "LinearLatentODE",
    "LinearLatentSystem",
    "Prepared",
    "Readout",
    "SequenceModel",
    "in_batches",
    "model_from_config",
]
