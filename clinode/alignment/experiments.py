"""What is done to a system, one experiment after the other: lesions of one site and of several.

An experiment is one intervention or several at once. Lesions of single sites mislead where sites
make up for each other, so those of several belong to the set (Fakhar & Hilgetag 2022, PLoS Comput.
Biol. 18:e1010250).
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import torch

from clinode.dynamics.field import Field, bounds_or_unit
from clinode.errors import ArgumentError
from clinode.system import Intervention, System, Values, cut, flat_names, intervene, silence
from clinode.system.interventions import Clamp, Cut, Injection

Experiment = Intervention | Sequence[Intervention]
MOST = 100_000  # experiments in a list


def lesions(
    system: System,
    sites: Sequence[str] | None = None,
    *,
    n_sites: int = 1,
    lesion: Callable[[str], Intervention] = silence,
) -> list[tuple[Intervention, ...]]:
    """All lesions of one site, of two at once, and so on up to `n_sites`.

    Args:
        system: What is lesioned.
        sites: Names of states, inputs or blocks; every state by default.
        n_sites: Most sites at once.
        lesion: What is done to a site: `silence`, or `lambda site: clamp(site, 0.3)`.

    Raises:
        ArgumentError: No or repeated sites, an unknown one, more at once than there are, or more
            than 100,000 experiments.

    Example:
        >>> from clinode.system import LinearSystem
        >>> pair = LinearSystem([[-1.0, 0.5], [0.5, -1.0]], [[1.0], [0.0]])
        >>> [describe(one) for one in lesions(pair, n_sites=2)]
        ['silence x1', 'silence x2', 'silence x1 & silence x2']
    """
    names = flat_names(system.states) if sites is None else tuple(sites)
    known = {n for q in (*system.states, *system.inputs) for n in (q.name, *q.names)}
    for name in names:
        if name not in known:
            intervene(system, silence(name))  # refuses, and offers the nearest
    return _combined([lesion(name) for name in names], n_sites)


def cuts(
    system: System,
    sites: Sequence[str] | None = None,
    *,
    n_sites: int = 1,
    reference: Values = 0.0,
    u: Values = 0.0,
) -> list[tuple[Intervention, ...]]:
    """All connections between different states, each cut alone, two at once, and so on.

    A connection is there where the target's derivative depends on the source in any of some states
    across the ranges.

    Args:
        system: A flow.
        sites: Names of flat states; all by default.
        n_sites: Most connections at once.
        reference: What the target sees instead, as in `cut`.
        u: The constant input.

    Raises:
        ArgumentError: As `lesions`; a name that is no flat state.
    """
    names = list(flat_names(system.states))
    chosen = names if sites is None else list(sites)
    for name in chosen:
        if name not in names:
            raise ArgumentError(
                f"'{name}' is no single state of {type(system).__name__}",
                fix="cuts go between single states, as 'E:lh_precuneus'",
            )
    field = Field(system, u)
    some = np.random.default_rng(0).random((8, len(names)))
    low, high = bounds_or_unit(system.states)
    _, jacobian = field.jacobian(low + (high - low) * some)
    is_there = (jacobian != 0).any(axis=0)
    found = [
        cut(source, target, reference)
        for source in chosen
        for target in chosen
        if source != target and is_there[names.index(target), names.index(source)]
    ]
    return _combined(found, n_sites)


def describe(experiment: Experiment) -> str:
    """An experiment in words: "silence PV & cut E -> PV"."""
    return " & ".join(_words(one) for one in as_tuple(experiment))


def distinct_words(experiments: Sequence[Experiment]) -> tuple[str, ...]:
    """Each experiment in words; of several that read alike, the later ones are numbered."""
    met: Counter[str] = Counter()
    made = []
    for one in experiments:
        words = describe(one)
        met[words] += 1
        made.append(words if met[words] == 1 else f"{words} ({met[words]})")
    return tuple(made)


def as_tuple(experiment: Experiment) -> tuple[Intervention, ...]:
    """The interventions of an experiment.

    Raises:
        ArgumentError: Something else than interventions, or none.
    """
    single = isinstance(experiment, (Clamp, Cut, Injection))
    if not single and not isinstance(experiment, Sequence):
        raise ArgumentError(
            f"{type(experiment).__name__} is no experiment",
            fix="an experiment is an intervention, or a list of several at once",
        )
    every = (experiment,) if single else tuple(experiment)
    if not every:
        raise ArgumentError("an experiment has no intervention", fix="leave it out of the list")
    for one in every:
        if not isinstance(one, (Clamp, Cut, Injection)):
            raise ArgumentError(
                f"{type(one).__name__} is no intervention", fix="use silence, clamp, cut or inject"
            )
    return every


def held_states(system: System, experiment: Experiment) -> np.ndarray:
    """(state,), whether the experiment holds it by hand."""
    held = np.zeros(system.n_states, dtype=bool)
    offset = 0
    names = {one.name for one in as_tuple(experiment) if isinstance(one, Clamp)}
    for quantity in system.states:
        for name in quantity.names:
            held[offset] = name in names or quantity.name in names
            offset += 1
    return held


def _combined(singles: Sequence[Intervention], n_sites: int) -> list[tuple[Intervention, ...]]:
    if not singles:
        raise ArgumentError("there is no site to lesion")
    if len(set(map(_words, singles))) < len(singles):
        raise ArgumentError("a site stands in the list twice")
    if not 1 <= n_sites <= len(singles):
        raise ArgumentError(f"n_sites must lie in 1..{len(singles)}, got {n_sites}")
    count = sum(math.comb(len(singles), k) for k in range(1, n_sites + 1))
    if count > MOST:
        raise ArgumentError(
            f"{count} experiments are more than {MOST}", fix="name fewer sites, or fewer at once"
        )
    return [some for k in range(1, n_sites + 1) for some in combinations(singles, k)]


def _words(one: Intervention) -> str:
    if isinstance(one, Cut):
        return f"cut {one.source} -> {one.target}"
    if isinstance(one, Injection):
        return f"inject {one.name} + {_number(one.amount)}"
    value = _number(one.value)
    return f"silence {one.name}" if value == "0" else f"clamp {one.name} = {value}"


def _number(value: Values) -> str:
    values = torch.as_tensor(value, dtype=torch.float64).flatten().tolist()
    shown = ", ".join(f"{x:.6g}" for x in values[:4])
    more = ", ..." if len(values) > 4 else ""
    return shown if len(values) == 1 else f"({shown}{more})"
