"""Simulated intensive care stays: different patients, treated by what the clinician sees.

A stay is a `Circulation` and a `GlucoseMinimalModel` with constants of their own, infected or not,
for 48 hours. Every hour a clinician looks, with some error and not always, and sets fluids,
norepinephrine and insulin. Patient i of a seed is the same whatever the number of patients.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clinode.dynamics import simulate
from clinode.system import Signal

from .circulation import Circulation
from .glucose import GlucoseMinimalModel

STAY = 48  # hours
BEFORE = 12  # hours of untreated illness before admission
FIX_STEP = 1 / 6  # h: 10 min, error of MAP below 0.02 mmHg
GLUCOSE_STEP = 5.0  # min
MINUTES = 60.0  # per hour
MILLIUNITS = 1000.0  # per unit of insulin

MAINTENANCE = 60.0  # mL/h, for a 70 kg adult
BOLUS = 1000.0  # mL/h over one hour, for a 70 kg adult
DOSE_STEP = 0.06  # ug/kg/min
DOSE_MAX = 1.2  # ug/kg/min
MAP_ENOUGH = 78.0  # mmHg: norepinephrine is reduced above it
MAP_ERROR = 3.0  # mmHg, of the clinician's look
GLUCOSE_LIMIT = 180.0  # mg/dL: insulin is given above it
GLUCOSE_AIM = 140.0  # mg/dL
GLUCOSE_PER_UNIT = 25.0  # mg/dL that a unit of insulin is expected to take away
INSULIN_MAX = 10.0  # units at once
STRESS_GLUCOSE = 90.0  # mg/min of glucose released per unit of inflammation


@dataclass(frozen=True, eq=False)
class Draws:
    """The luck of each subject, from its own generator.

    Attributes:
        normal: (subject, 40) standard normal, for constants and descriptors.
        uniform: (subject, 16), for choices.
        looks: (subject, hour, 3): whether the clinician acts, and the errors of what is seen.
    """

    normal: np.ndarray
    uniform: np.ndarray
    looks: np.ndarray

    @staticmethod
    def of(generators: list[np.random.Generator]) -> "Draws":
        """Draw for every subject, in a fixed order."""
        return Draws(
            np.stack([g.standard_normal(40) for g in generators]),
            np.stack([g.random(16) for g in generators]),
            np.stack([g.standard_normal((STAY, 3)) for g in generators]),
        )


@dataclass(frozen=True, eq=False)
class People:
    """Who they are; (subject,) each.

    Attributes:
        age: Years.
        gender: 1 male, 0 female.
        height: cm.
        weight: kg.
        size: Scale of volumes and flows, 1 at 70 kg.
        infection: Drive of inflammation before antibiotics act, 1/h.
        antibiotics: Hours from admission until they begin to act.
        tau_infection: Hours in which they then reduce the infection e-fold.
        fluid_limit: mL of boluses after which no more are given, for a 70 kg adult.
        map_aim: mmHg below which the clinician acts.
        diligence: Probability that the clinician acts in an hour.
        nutrition: Glucose given, mg/min.
    """

    age: np.ndarray
    gender: np.ndarray
    height: np.ndarray
    weight: np.ndarray
    size: np.ndarray
    infection: np.ndarray
    antibiotics: np.ndarray
    tau_infection: np.ndarray
    fluid_limit: np.ndarray
    map_aim: np.ndarray
    diligence: np.ndarray
    nutrition: np.ndarray


@dataclass(frozen=True, eq=False)
class Course:
    """What happened in each hour of each stay.

    Attributes:
        monitor: Truth by name ("MAP", ..., "Glucose", "inflammation"): (subject, hour, 3), at the
            start, the middle and the end of the hour, under that hour's treatment.
        fluids: (subject, hour), mL/h.
        vasopressor: (subject, hour), ug/kg/min.
        insulin: (subject, hour), units given at the start of the hour.
    """

    monitor: dict[str, np.ndarray]
    fluids: np.ndarray
    vasopressor: np.ndarray
    insulin: np.ndarray


def draw_people(draws: Draws) -> People:
    """Descriptors, illness and care, from each subject's luck."""
    z, v = draws.normal, draws.uniform
    gender = (v[:, 0] < 0.55).astype(float)
    height = 163 + 13 * gender + 7 * z[:, 1]
    weight = np.clip(27.5 * np.exp(0.2 * z[:, 2]) * (height / 100) ** 2, 40, 170)
    septic = v[:, 1] < 0.6
    uncontrolled = v[:, 2] < 0.25
    return People(
        age=np.clip(64 + 15 * z[:, 0], 18, 95).round(),
        gender=gender,
        height=height.round(),
        weight=weight.round(1),
        size=(weight / 70) ** 0.7,
        infection=np.minimum(
            np.where(septic, 0.2, 0.04) * np.exp(np.where(septic, 0.4, 0.6) * z[:, 3]), 0.3
        ),
        antibiotics=-6.0 * np.log1p(-v[:, 3]),
        tau_infection=np.where(uncontrolled, 60.0, 12.0) * np.exp(0.3 * z[:, 4]),
        fluid_limit=2500 * np.exp(0.3 * z[:, 5]),
        map_aim=65 + 2 * z[:, 6],
        diligence=0.25 + 0.6 * v[:, 4],
        nutrition=90 * np.exp(0.3 * z[:, 7]),
    )


def draw_circulation(draws: Draws, people: People) -> Circulation:
    """A batch of circulations, (subject, 1) constants."""
    z = draws.normal
    plain = Circulation()

    def vary(name: str, spread: float, column: int, factor: np.ndarray | float = 1.0) -> Tensor:
        own = torch.as_tensor(np.exp(spread * z[:, column]) * factor).unsqueeze(-1)
        return getattr(plain, name) * own

    size = people.size
    ageing = np.exp(-0.008 * (people.age - 64))
    return plain.with_constants(
        V_rest=vary("V_rest", 0.0, 0, size),
        W_rest=vary("W_rest", 0.0, 0, size),
        V_unstressed=vary("V_unstressed", 0.01, 8, size),
        compliance=vary("compliance", 0.0, 0, size),
        contractility=vary("contractility", 0.12, 9, size),
        R_venous=vary("R_venous", 0.05, 10, 1 / size),
        R_min=vary("R_min", 0.1, 11, 1 / size),
        R_max=vary("R_max", 0.1, 11, 1 / size),
        HR_min=vary("HR_min", 0.12, 12),
        P_set=plain.P_set + torch.as_tensor(5 * z[:, 13:14]),
        intake=vary("intake", 0.0, 0, size),
        transfer=vary("transfer", 0.0, 0, size),
        filtration_max=vary("filtration_max", 0.2, 14, size * ageing),
        creatinine_production=vary("creatinine_production", 0.1, 15, size),
        V_creatinine=vary("V_creatinine", 0.0, 0, size),
        # of production alone: the resting lactate differs between people
        lactate_production=vary("lactate_production", 0.2, 16),
        anaerobic=vary("anaerobic", 0.3, 17),
        P_anaerobic=plain.P_anaerobic + torch.as_tensor(3 * z[:, 18:19]),
        dose_half=vary("dose_half", 0.5, 19),
        vasodilation=vary("vasodilation", 0.2, 20),
        depression=vary("depression", 0.3, 21),
        leak=vary("leak", 0.2, 22, size),
        lactate_inflammation=vary("lactate_inflammation", 0.8, 23),
        T_normal=plain.T_normal + torch.as_tensor(0.2 * z[:, 24:25]),
        fever_max=vary("fever_max", 0.25, 25),
    )


def draw_glucose(draws: Draws) -> GlucoseMinimalModel:
    """A batch of minimal models; critical illness makes insulin act a third as strongly."""
    z = draws.normal
    diabetic = (draws.uniform[:, 5] < 0.25).astype(float)
    p3 = 1.3e-5 / 3 * np.exp(0.4 * z[:, 26]) * (1 - 0.4 * diabetic)
    G_b = 95 + 6 * z[:, 27] + 35 * diabetic
    return GlucoseMinimalModel(
        p3=torch.as_tensor(p3).unsqueeze(-1), G_b=torch.as_tensor(G_b).unsqueeze(-1)
    )


def run_stays(draws: Draws, people: People) -> Course:
    """Untreated until admission, then hour by hour: look, decide, simulate."""
    n = len(people.age)
    circulation, glucose = draw_circulation(draws, people), draw_glucose(draws)
    look = draws.looks
    acts = look[..., 0] < _normal_quantile(people.diligence)[:, None]
    size = people.size
    x = _settle(circulation, people)
    g = _settle_glucose(glucose, people, x[:, 3].numpy())
    given, dose, pressure = np.zeros(n), np.zeros(n), None
    fluids, doses, insulin = (np.zeros((n, STAY)) for _ in range(3))
    pieces: list[np.ndarray] = []
    for hour in range(STAY):
        if pressure is None:
            u = torch.zeros(n, 3, dtype=torch.float64)
            pressure = circulation.hemodynamics(x, u).MAP[:, 0].numpy()
        seen = pressure + MAP_ERROR * look[:, hour, 1]
        low, high = acts[:, hour] & (seen < people.map_aim), acts[:, hour] & (seen > MAP_ENOUGH)
        bolus = low & (given < people.fluid_limit)
        given = given + BOLUS * bolus
        # Norepinephrine from the second bolus on, or where there is no more fluid to give.
        raised = low & ((given > BOLUS) | ~bolus)
        dose = np.clip(dose + DOSE_STEP * raised - DOSE_STEP * high, 0, DOSE_MAX).round(2)
        fluids[:, hour] = ((MAINTENANCE + BOLUS * bolus) * size).round(-1)
        doses[:, hour] = dose
        if hour % 4 == 0:
            sugar = g[:, 0].numpy() * np.exp(0.03 * look[:, hour, 2])
            units = ((sugar - GLUCOSE_AIM) / GLUCOSE_PER_UNIT).round().clip(1, INSULIN_MAX)
            insulin[:, hour] = np.where(sugar > GLUCOSE_LIMIT, units, 0.0)
        spread = np.exp(-np.maximum(hour - people.antibiotics, 0) / people.tau_infection)
        drive = people.infection * spread
        u = torch.as_tensor(np.stack([fluids[:, hour], dose, drive], axis=-1))
        flow = simulate(
            circulation, x, [hour, hour + 0.5, hour + 1.0], u, method="rk4", step=FIX_STEP
        )
        appearing = people.nutrition + STRESS_GLUCOSE * x[:, 3].numpy()
        sweet = simulate(
            glucose,
            g,
            [hour * MINUTES, (hour + 0.5) * MINUTES, (hour + 1) * MINUTES],
            _insulin_signal(hour, insulin[:, hour], appearing),
            method="rk4",
            step=GLUCOSE_STEP,
        )
        x, g = flow.states[:, -1], sweet.states[:, -1]
        pressure = flow.outputs[:, -1, 0].numpy()
        rows = [flow.outputs, sweet.states[..., :1], flow.states[..., 3:4]]
        pieces.append(torch.cat(rows, dim=-1).numpy())
    names = [*circulation.output_names, "Glucose", "inflammation"]
    monitor = np.stack(pieces, axis=1)
    return Course({name: monitor[..., i] for i, name in enumerate(names)}, fluids, doses, insulin)


def _settle(circulation: Circulation, people: People) -> Tensor:
    """The state at admission, after `BEFORE` hours of untreated illness of a healthy adult."""
    n = len(people.age)
    healthy = circulation.initial_state().expand(n, -1).clone()
    healthy[:, 0:1] = circulation.V_rest
    healthy[:, 1:2] = circulation.W_rest
    healthy[:, 4:5] = circulation.lactate_production / circulation.lactate_clearance
    healthy[:, 5:6] = circulation.creatinine_production / circulation.filtration_max
    u = torch.zeros(n, 3, dtype=torch.float64)
    u[:, 2] = torch.as_tensor(people.infection)
    return simulate(circulation, healthy, [-BEFORE, 0.0], u, method="rk4", step=FIX_STEP).states[
        :, -1
    ]


def _settle_glucose(
    glucose: GlucoseMinimalModel, people: People, inflammation: np.ndarray
) -> Tensor:
    """The steady state without insulin: G = G_b + glucose / (p1 V_G)."""
    appearing = torch.as_tensor(people.nutrition + STRESS_GLUCOSE * inflammation).unsqueeze(-1)
    G = glucose.G_b + appearing / (glucose.p1 * glucose.V_G)
    return torch.cat([G, torch.zeros_like(G), glucose.I_b.expand_as(G)], dim=-1)


def _insulin_signal(hour: int, units: np.ndarray, appearing: np.ndarray) -> Signal:
    held = torch.as_tensor(np.stack([0 * appearing, appearing], axis=-1)).unsqueeze(1)
    amount = torch.as_tensor(np.stack([units * MILLIUNITS, 0 * units], axis=-1)).unsqueeze(1)
    start = [hour * MINUTES]
    return Signal(start, held, impulses=(start, amount) if units.any() else None)


def _normal_quantile(p: np.ndarray) -> np.ndarray:
    return torch.special.ndtri(torch.as_tensor(p)).numpy()
