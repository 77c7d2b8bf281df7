"""What experiments change: of the system, of its model, and of models that fit as well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from clinode.dynamics.field import constant_input
from clinode.errors import ArgumentError, SolverError
from clinode.system import Intervention, LinearSystem, System, intervene
from clinode.system.interventions import Cut
from clinode.system.quantity import nearest

from .experiments import Experiment, as_tuple, describe, held_states
from .readouts import AtRest, Measured, Reading, Readout, dependence
from .rest import linear_rests
from .scores import Effects, Repeats


@dataclass(frozen=True, eq=False)
class Answers:
    """The effects of experiments on one system.

    Attributes:
        values: (experiment, reading), NaN where there is nothing to read.
        why: By experiment, why there is nothing; empty where there is.
        readings: What is read.
        intact: Before any experiment.
    """

    values: Effects
    why: tuple[str, ...]
    readings: tuple[Reading, ...]
    intact: Measured


def answers(
    who: str,
    system: System,
    experiments: Sequence[tuple[Intervention, ...]],
    readout: Readout,
    outputs: Sequence[str],
) -> Answers:
    """Put a system under each experiment, one after the other, each from the intact state.

    Raises:
        ArgumentError: A site or output that the system does not have.
        SolverError: The intact system has nothing to read.
    """
    for experiment in experiments:
        try:
            intervene(system, *experiment)
        except ArgumentError as error:
            raise ArgumentError(
                f"'{describe(experiment)}' cannot be done: {error.problem}",
                where=who,
                fix=error.fix or "give model_interventions where its sites have other names",
            ) from error
    columns, readings = _columns(who, readout.readings(system), outputs)
    intact = readout.intact(system)
    if intact.values is None:
        raise SolverError(
            f"there is nothing to read before any intervention: {intact.why}",
            where=who,
            fix="give the readout another input or start",
        )
    values, why = np.full((len(experiments), len(columns)), np.nan), []
    for row, experiment in zip(values, experiments, strict=True):
        changed = readout.under(system, experiment, intact)
        if changed.values is not None:
            row[:] = (changed.values - intact.values)[columns]
        why.append(changed.why)
    return Answers(values, tuple(why), readings, intact)


def models_own(
    model: System,
    system: System,
    experiments: Sequence[tuple[Intervention, ...]],
    given: Sequence[Experiment] | None,
) -> list[tuple[Intervention, ...]]:
    """The experiments as the model is to be put under them.

    Raises:
        ArgumentError: Another number of them; the states of a learned model taken for those of the
            system, whose coordinates are arbitrary.
    """
    if given is not None:
        if len(given) != len(experiments):
            raise ArgumentError(
                f"{len(given)} model_interventions for {len(experiments)} interventions"
            )
        return [as_tuple(one) for one in given]
    names = {name for q in model.states for name in (q.name, *q.names)}
    if model.latent and model is not system:
        for experiment in experiments:
            touched = {n for one in experiment for n in _touched(one)} & names
            if touched:
                raise ArgumentError(
                    f"'{sorted(touched)[0]}' is a state of a learned model, whose coordinates are "
                    "arbitrary: it need not be the system's",
                    where="the model",
                    fix="intervene on inputs, or say by model_interventions what stands for what",
                )
    return list(experiments)


def chosen_outputs(
    system: System, readout: Readout, outputs: Sequence[str] | Mapping[str, str] | None
) -> dict[str, str]:
    """Outputs of the system, and what each is called in the model.

    Raises:
        ArgumentError: No outputs, or one named twice.
    """
    if outputs is None:
        return {one.output: one.output for one in readout.readings(system)}
    pairs = dict(outputs) if isinstance(outputs, Mapping) else {name: name for name in outputs}
    if not pairs:
        raise ArgumentError("there are no outputs to compare")
    if len(pairs) < len(outputs) or len(set(pairs.values())) < len(pairs):
        raise ArgumentError("an output is named twice")
    return pairs


def check_readings(system: tuple[Reading, ...], model: tuple[Reading, ...]) -> None:
    """Raise ArgumentError where the model's readings do not stand for the system's."""
    if len(system) != len(model):
        raise ArgumentError(f"the system gives {len(system)} readings, the model {len(model)}")
    for own, other in zip(system, model, strict=True):
        if own.time != other.time:
            raise ArgumentError(f"'{own.name}' of the system is '{other.name}' of the model")
        if own.unit != other.unit:
            raise ArgumentError(
                f"'{own.output}' is in {own.unit} in the system and in {other.unit} in the model"
            )


def set_by_hand(
    system: System, experiments: Sequence[tuple[Intervention, ...]], actual: Answers
) -> np.ndarray:
    """(experiment, reading): whether all that a reading depends on is held by the experiment."""
    names = list(system.output_names)
    made = np.zeros(actual.values.shape, dtype=bool)
    if actual.intact.state is None or any(r.output not in names for r in actual.readings):
        return made
    depends = dependence(system, actual.intact.state)
    rows = depends[[names.index(one.output) for one in actual.readings]]
    for i, experiment in enumerate(experiments):
        held = held_states(system, experiment)
        made[i] = rows.any(axis=1) & ~(rows & ~held).any(axis=1)
    return made


def measured_effects(
    actual: Answers,
    noise: float | Mapping[str, float],
    repeats: int,
    generator: torch.Generator | None,
) -> Repeats:
    """The effects as they are measured: each repeat the intact and the changed system anew.

    Raises:
        ArgumentError: Noise that is negative or of an output that is not read, fewer than two
            repeats of a noisy measurement.
    """
    outputs = [one.output for one in actual.readings]
    if isinstance(noise, Mapping):
        for name in noise:
            if name not in outputs:
                raise ArgumentError(
                    f"noise of '{name}', which is not read: {nearest(name, outputs)}"
                )
        sizes = np.array([float(noise.get(name, 0.0)) for name in outputs])
    else:
        sizes = np.full(len(outputs), float(noise))
    if not (np.isfinite(sizes).all() and (sizes >= 0).all()):
        raise ArgumentError("noise must be finite and not negative")
    if not sizes.any():
        return actual.values[None]
    if repeats < 2:
        raise ArgumentError(f"a noisy measurement is repeated twice at least, got {repeats}")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    shape = (repeats, len(actual.values) + 1, len(outputs))
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64).numpy() * sizes
    return actual.values + drawn[:, 1:] - drawn[:, :1]


def twin_effects(
    twins: Sequence[System],
    experiments: Sequence[tuple[Intervention, ...]],
    readout: Readout,
    outputs: Sequence[str],
    predicted: Answers,
) -> np.ndarray:
    """(twin, experiment, reading); NaN where a twin has nothing to read.

    Raises:
        ArgumentError: A twin without the model's sites or outputs.
    """
    if isinstance(readout, AtRest) and len(twins) > 1 and _stackable(twins):
        linear = cast(Sequence[LinearSystem], twins)
        columns, _ = _columns("a twin", readout.readings(linear[0]), outputs)
        return _stacked_effects(linear, experiments, readout)[..., columns]
    made = np.full((len(twins), *predicted.values.shape), np.nan)
    for i, twin in enumerate(twins):
        own = answers(f"twin {i}", twin, experiments, readout, outputs)
        check_readings(predicted.readings, own.readings)
        made[i] = own.values
    return made


def _stackable(twins: Sequence[System]) -> bool:
    first = twins[0]
    return all(
        isinstance(one, LinearSystem)
        and one.step is None
        and one.A.ndim == 2
        and (one.states, one.inputs, one.outputs) == (first.states, first.inputs, first.outputs)
        for one in twins
    )


def _stacked_effects(
    twins: Sequence[LinearSystem],
    experiments: Sequence[tuple[Intervention, ...]],
    readout: AtRest,
) -> np.ndarray:
    """Effects on linear twins at rest, all at once."""
    first = twins[0]
    A, B, C, D = (torch.stack([getattr(one, n).double() for one in twins]) for n in "ABCD")
    offset = tuple(torch.stack([getattr(t, n).double() for t in twins]) for n in ("x0", "u0", "y0"))
    stack = LinearSystem(
        A, B, C, D, offset,
        states=first.states, inputs=first.inputs, outputs=first.outputs, time_unit=first.time_unit,
    )  # fmt: skip
    u = constant_input(readout.u, stack)

    def read(system: System) -> np.ndarray:
        x, is_stable = linear_rests(system, u)
        with torch.no_grad():
            y = system.output(0.0, torch.tensor(x), u).numpy()
        return np.where(is_stable[..., None], y, np.nan)

    intact = read(stack)
    changed = [read(intervene(stack, *experiment)) - intact for experiment in experiments]
    return np.stack(changed, axis=1)


def _columns(
    who: str, readings: tuple[Reading, ...], outputs: Sequence[str]
) -> tuple[list[int], tuple[Reading, ...]]:
    known = list(dict.fromkeys(one.output for one in readings))
    for name in outputs:
        if name not in known:
            raise ArgumentError(
                f"it has no output '{name}': {nearest(name, known)}",
                where=who,
                fix="outputs={name in the system: name in the model} says what stands for what",
            )
    times = list(dict.fromkeys(one.time for one in readings))
    places = {(one.time, one.output): j for j, one in enumerate(readings)}
    columns = [places[time, name] for time in times for name in outputs]
    return columns, tuple(readings[j] for j in columns)


def _touched(one: Intervention) -> tuple[str, ...]:
    return (one.source, one.target) if isinstance(one, Cut) else (one.name,)
