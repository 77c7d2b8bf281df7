"""Figures of every room, drawn with matplotlib; one file a room."""

from .alignment import alignment_figure
from .attribution import kinds_figure, ranking_figure
from .bifurcations import bifurcation_figure, frequency_figure, onset_figure
from .circuits import compass_figure, competition_figure, decision_figure, mach_bands_figure
from .coding import coding_figure, readout_figure
from .decision import quantile_probability_figure, reciprobit_figure
from .dynamics import basin_figure, impedance_figure, phase_plane_figure, traces_figure
from .evaluation import calibration_figure
from .feedback import (
    action_cost_figure,
    minimal_intervention_figure,
    places_figure,
    reaching_figure,
)
from .learning import dopamine_figure, reflex_figure
from .maps import attribution_maps_figure, removal_figure
from .memory import capacity_figure, recall_figure, retrieval_figure
from .networks import connectome_figure, network_figure, region_traces_figure
from .neurons import neuron_figure
from .picture import data_uri, styled
from .plasticity import forgetting_figure
from .seizure import eeg_figure, epileptor_figure
from .similarity import model_ranking_figure, pairs_figure, rdm_figure
from .stimulation import adaptive_figure, stimulus_figure
from .survival import incidence_figure
from .synapses import fluctuation_figure, plasticity_figure, synapse_figure

__all__ = [
    "action_cost_figure",
    "adaptive_figure",
    "alignment_figure",
    "attribution_maps_figure",
    "basin_figure",
    "bifurcation_figure",
    "calibration_figure",
    "capacity_figure",
    "coding_figure",
    "compass_figure",
    "competition_figure",
    "connectome_figure",
    "data_uri",
    "decision_figure",
    "dopamine_figure",
    "eeg_figure",
    "epileptor_figure",
    "fluctuation_figure",
    "forgetting_figure",
    "frequency_figure",
    "impedance_figure",
    "incidence_figure",
    "kinds_figure",
    "mach_bands_figure",
    "minimal_intervention_figure",
    "model_ranking_figure",
    "network_figure",
    "neuron_figure",
    "onset_figure",
    "pairs_figure",
    "phase_plane_figure",
    "places_figure",
    "plasticity_figure",
    "quantile_probability_figure",
    "ranking_figure",
    "rdm_figure",
    "reaching_figure",
    "readout_figure",
    "recall_figure",
    "reciprobit_figure",
    "reflex_figure",
    "region_traces_figure",
    "removal_figure",
    "retrieval_figure",
    "stimulus_figure",
    "styled",
    "synapse_figure",
    "traces_figure",
]
