"""What concentrations do: equilibrium potentials of Nernst and Goldman, and the current of GHK.

Functions of tensors (or numbers), broadcast and differentiable. Concentrations in mmol/L (outside
and inside in one unit is enough for potentials), temperatures in K, potentials in mV.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Values

from .rates import linoid

GAS_CONSTANT = 8.31446261815324  # J/(mol K); exact since 2019, as the next
FARADAY_CONSTANT = 96485.33212331  # C/mol
BODY_TEMPERATURE = 310.15  # K
MICROAMPERES = 1e-4  # uA/cm^2 in one um/s C/mol mmol/L


def nernst(
    outside: Values, inside: Values, valence: int, temperature: Values = BODY_TEMPERATURE
) -> Tensor:
    """Equilibrium potential of one ion, E = R T / (z F) ln(outside / inside), in mV.

    Nernst 1889, Z Phys Chem 4:129-181.

    Args:
        outside: Concentration outside, mmol/L, positive.
        inside: Concentration inside, mmol/L, positive.
        valence: z, its charge: 1 for K+, 2 for Ca2+, -1 for Cl-.
        temperature: K.

    Raises:
        ArgumentError: A concentration or temperature that is not positive, or a valence of 0.

    Example:
        >>> nernst(outside=3.5, inside=140.0, valence=1)  # potassium in mammals
        tensor(-98.5914, dtype=torch.float64)
    """
    if valence == 0:
        raise ArgumentError("an ion without charge has no equilibrium potential")
    out, within = _positive("outside", outside), _positive("inside", inside)
    return thermal_voltage(temperature) / valence * torch.log(out / within)


def goldman(
    permeability: Mapping[str, Values],
    outside: Mapping[str, Values],
    inside: Mapping[str, Values],
    anions: tuple[str, ...] = ("Cl",),
    temperature: Values = BODY_TEMPERATURE,
) -> Tensor:
    """Potential at which the currents of several univalent ions cancel, in mV.

    V = R T / F ln((sum_cations P c_out + sum_anions P c_in) / (sum_cations P c_in + sum_anions P
    c_out)). Goldman 1943, J Gen Physiol 27:37-60; Hodgkin & Katz 1949, J Physiol 108:37-77.

    Args:
        permeability: Of each ion by name, in any one unit; not negative, not all zero.
        outside: Concentrations outside by name, mmol/L.
        inside: Concentrations inside by name, mmol/L.
        anions: Which of them carry a negative charge.
        temperature: K.

    Raises:
        ArgumentError: Names that do not agree, concentrations that are not positive.

    Example:
        >>> ions = {"K": 1.0, "Na": 0.04, "Cl": 0.45}
        >>> sea = {"K": 20.0, "Na": 440.0, "Cl": 560.0}
        >>> squid = {"K": 400.0, "Na": 50.0, "Cl": 52.0}
        >>> goldman(ions, sea, squid, temperature=293.15)
        tensor(-59.9267, dtype=torch.float64)
    """
    if not set(permeability) == set(outside) == set(inside):
        raise ArgumentError(
            "permeabilities and concentrations name different ions: "
            f"{sorted(permeability)}, {sorted(outside)}, {sorted(inside)}"
        )
    drives_up = drives_down = torch.zeros((), dtype=torch.float64)
    for ion, value in permeability.items():
        P = torch.as_tensor(value, dtype=torch.float64)
        pair = [_positive(ion, outside[ion]), _positive(ion, inside[ion])]
        up, down = reversed(pair) if ion in anions else pair
        drives_up, drives_down = drives_up + P * up, drives_down + P * down
    return thermal_voltage(temperature) * torch.log(drives_up / drives_down)


def ghk_current(
    V: Values,
    permeability: Values,
    outside: Values,
    inside: Values,
    valence: int,
    temperature: Values = BODY_TEMPERATURE,
) -> Tensor:
    """Current density that one ion carries through a membrane, outward positive.

    I = P z F (c_in linoid(s) - c_out linoid(-s)), s = z F V / (R T): the Goldman-Hodgkin-Katz flux
    in a form that is smooth at V = 0, where it is P z F (c_in - c_out).

    Args:
        V: mV.
        permeability: um/s (1e-4 cm/s).
        outside: mmol/L.
        inside: mmol/L.
        valence: z, not 0.
        temperature: K.

    Returns:
        uA/cm^2; zero at `nernst`.

    Raises:
        ArgumentError: A temperature or concentration that is not positive, or a valence of 0.
    """
    if valence == 0:
        raise ArgumentError("an ion without charge carries no current")
    s = valence * torch.as_tensor(V, dtype=torch.float64) / thermal_voltage(temperature)
    flux = _positive("inside", inside) * linoid(s) - _positive("outside", outside) * linoid(-s)
    return torch.as_tensor(permeability) * valence * FARADAY_CONSTANT * flux * MICROAMPERES


def thermal_voltage(temperature: Values) -> Tensor:
    """R T / F in mV: 26.73 mV at body temperature."""
    return _positive("temperature", temperature) * (1e3 * GAS_CONSTANT / FARADAY_CONSTANT)


def _positive(name: str, value: Values) -> Tensor:
    tensor = torch.as_tensor(value, dtype=torch.float64)
    if not (tensor > 0).all():
        raise ArgumentError(f"{name} must be positive")
    return tensor
