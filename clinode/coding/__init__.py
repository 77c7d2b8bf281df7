"""How many bits a spike needs: counts and first spikes read by counters and clocks of B bits."""

from .codes import Code, FirstSpike, NoisyLevels, PoissonCount, RegularCount
from .encode import Spikes, lif_spikes
from .minimum import MinimumBits, minimum_bits, minimum_window

__all__ = [
    "Code",
    "FirstSpike",
    "MinimumBits",
    "NoisyLevels",
    "PoissonCount",
    "RegularCount",
    "Spikes",
    "lif_spikes",
    "minimum_bits",
    "minimum_window",
]
