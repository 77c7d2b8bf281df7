"""How memories of different synapses fade, under the bound that holds for all of them."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from clinode.brain.plasticity import BennaFusi, MarkovSynapse, memory_envelope
from clinode.errors import printable
from clinode.figures.picture import LINE, LOWER, QUIET, RAISE, styled

COLORS = (LOWER, RAISE, "#3d7a4f", "#7a4f8f", "#8a6d1f", QUIET)


def forgetting_figure(
    synapses: Mapping[str, MarkovSynapse | BennaFusi], N: float, n_events: float = 1e5
) -> Figure:
    """Signal-to-noise ratio over events, logarithmic; the line at 1 is where noise takes over."""
    times = np.unique(np.logspace(0, np.log10(n_events), 120).round())
    with styled():
        figure = Figure(figsize=(5.6, 3.6), layout="constrained")
        axis = figure.subplots()
        markov = [one.n_states for one in synapses.values() if isinstance(one, MarkovSynapse)]
        if markov:
            bound = memory_envelope(times, max(markov), N)
            axis.fill_between(times, bound, bound.max() * 3, color=LINE, alpha=0.6, lw=0)
            axis.plot(times, bound, color=QUIET, lw=0.8, label=f"bound, {max(markov)} states")
        for k, (name, synapse) in enumerate(synapses.items()):
            ratio = synapse.snr(times, N)
            axis.plot(times, ratio, color=COLORS[k % len(COLORS)], lw=1.6, label=printable(name))
        axis.axhline(1.0, color=QUIET, lw=0.8, ls=":")
        axis.set(xscale="log", yscale="log", xlim=(1, times[-1]), ylim=(1e-2, 3 * np.sqrt(N)))
        axis.set_xlabel("events since the memory was stored (1)")
        axis.set_ylabel(f"signal over noise of {N:,.0f} synapses (1)")
        legend = axis.legend(frameon=False, fontsize=8)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure
