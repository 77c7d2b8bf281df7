"""The table of model families, and the one place where text becomes a model."""

from typing import Any

from clinode.errors import ArgumentError
from clinode.sequence.cfc import CfC
from clinode.sequence.gru_d import GRUD
from clinode.sequence.gru_gap import GRUGap
from clinode.sequence.gru_ode_bayes import GRUODEBayes
from clinode.sequence.kalman_latent_ode import KalmanLatentODE
from clinode.sequence.latent_ode import LatentODE
from clinode.sequence.latent_sde import LatentSDE
from clinode.sequence.linear_latent_ode import LinearLatentODE
from clinode.sequence.model import SequenceModel
from clinode.sequence.neural_cde import NeuralCDE
from clinode.sequence.neural_flow import NeuralFlow
from clinode.sequence.ode_rnn import ODERNN
from clinode.sequence.scan_latent_ode import ScanLatentODE

FAMILIES = (
    LinearLatentODE,
    ScanLatentODE,
    KalmanLatentODE,
    GRUGap,
    GRUD,
    ODERNN,
    LatentODE,
    GRUODEBayes,
    NeuralCDE,
    CfC,
    NeuralFlow,
    LatentSDE,
)
MODELS: dict[str, type[SequenceModel]] = {family.name: family for family in FAMILIES}


def model_from_config(config: dict[str, Any]) -> SequenceModel:
    """The configured, unbuilt model that `SequenceModel.config` described.

    Raises:
        ArgumentError: An unknown family or hyper-parameter.

    Example:
        >>> model_from_config({"name": "linear-latent-ode", "latent": 8}).config()["latent"]
        8
    """
    settings = dict(config)
    name = settings.pop("name", None)
    if name not in MODELS:
        raise ArgumentError(f"unknown model {name!r}; there are: {', '.join(MODELS)}")
    try:
        return MODELS[name](**settings)
    except TypeError as error:
        raise ArgumentError(f"{name}: {error}") from None
