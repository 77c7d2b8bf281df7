"""How many bits a spike needs: counts and first spikes read by counters and clocks of B bits."""

from .codes import Code, FirstSpike, NoisyLevels, PoissonCount, RegularCount
from .encode import Spikes, lif_spikes
from .minimum import MinimumBits, minimum_bits, minimum_window
from .readout import LinearReadout, ReadoutAccuracy, readout_accuracy

__all__ = [
    "Code",
    "FirstSpike",
    "LinearReadout",
    "MinimumBits",
    "NoisyLevels",
    "PoissonCount",
    "ReadoutAccuracy",
    "RegularCount",
    "Spikes",
    "lif_spikes",
    "minimum_bits",
    "minimum_window",
    "readout_accuracy",
]
