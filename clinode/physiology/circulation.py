"""The circulation of an adult under sepsis and treatment, on the time scale of hours.

Pressures and flow settle within minutes, so they follow the slow states at once: where the venous
return curve (Guyton, Lindsey & Kaufmann 1955, Am J Physiol 180:463-468) meets the cardiac function
curve. Fluid moves as in volume kinetics (Svensen & Hahn 1997, Anesthesiology 87:204-212); the
reflex has the sigmoid form of Zenker, Rubin & Clermont 2007, PLoS Comput Biol 3:e204, here with the
slower time constant of its hormonal part. Constants make a healthy 70 kg adult settle at textbook
values; those of sepsis are set by hand to give its course, and fitted to nobody.

Good for blood volumes of 3 to 8 L and inflammation of 0 to 3; a model to learn on, not to treat by.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.system import Quantity, System, Time, Values


class Hemodynamics(NamedTuple):
    """What follows at once from the state of the circulation; (..., 1) each.

    Attributes:
        MAP: Mean arterial pressure, mmHg.
        CVP: Central venous pressure, mmHg.
        HR: Heart rate, bpm.
        cardiac_output: L/min.
        filtration: Glomerular filtration, dL/h.
        urine: mL/h.
        exchange: Net flow from the blood into the interstitium, mL/h.
    """

    MAP: Tensor
    CVP: Tensor
    HR: Tensor
    cardiac_output: Tensor
    filtration: Tensor
    urine: Tensor
    exchange: Tensor


class Circulation(System):
    """Blood and interstitial volume, reflex, inflammation, lactate, creatinine and fever.

    With stress S (sympathetic activity), inflammation J, vasopressor effect
    D = dose / (dose + dose_half), blood volume V, interstitial volume W:

        unstressed = V_unstressed (1 - venoconstriction (S - S_rest) + venodilation J
                                   - pressor_venous D)
        P_filling  = (V - unstressed) / compliance
        K          = contractility (1 + inotropy (S - S_rest)) / (1 + depression J)
        Q          = (P_filling - P_heart) / (R_venous + 1 / K)          where the two curves meet
        CVP        = P_heart + Q / K
        R          = (R_min + (R_max - R_min) S) (1 + pressor D) / (1 + vasodilation J)
        MAP        = CVP + Q R
        HR         = HR_min + (HR_max - HR_min) S + tachycardia J
        filtration = filtration_max / (1 + exp((P_renal - MAP) / width_renal))
        urine      = excretion filtration exp(diuresis (V - V_rest) / V_rest)
        exchange   = transfer ((V - V_rest) / V_rest - (W - W_rest) / W_rest) + leak J

        dV/dt = intake + fluids - urine - exchange
        dW/dt = exchange
        dS/dt = (1 / (1 + exp((MAP - P_set) / width_reflex)) - S) / tau_reflex
        dJ/dt = infection - J / tau_inflammation
        dL/dt = lactate_production + anaerobic / (1 + exp((MAP - P_anaerobic) / width_anaerobic))
                + lactate_inflammation J - lactate_clearance L
        dC/dt = (creatinine_production - filtration C) / V_creatinine
        dF/dt = (fever_max J / (J + J_fever) - F) / tau_fever

    Inputs: fluids are what is infused beside `intake` (drinking, or its replacement, less what the
    skin loses); the vasopressor is norepinephrine; infection drives inflammation.
    """

    time_unit = "h"
    states = (
        Quantity("blood_volume", "mL", range=(3000.0, 8000.0), default=5000.0),
        Quantity("interstitial_volume", "mL", range=(8000.0, 25000.0), default=11000.0),
        Quantity("stress", "1", range=(0.0, 1.0), default=0.25),
        Quantity("inflammation", "1", range=(0.0, 3.0), default=0.0),
        Quantity("lactate", "mmol/L", range=(0.3, 20.0), default=1.0),
        Quantity("creatinine", "mg/dL", range=(0.3, 10.0), default=0.8),
        Quantity("fever", "K", range=(-1.0, 4.0), default=0.0),
    )
    inputs = (
        Quantity("fluids", "mL/h", range=(0.0, 2000.0), default=0.0),
        Quantity("vasopressor", "ug/kg/min", range=(0.0, 2.0), default=0.0),
        Quantity("infection", "1/h", range=(0.0, 0.4), default=0.0),
    )
    outputs = (
        Quantity("MAP", "mmHg", range=(30.0, 150.0)),
        Quantity("HR", "1/min", range=(40.0, 180.0)),
        Quantity("CVP", "mmHg", range=(-4.0, 20.0)),
        Quantity("cardiac_output", "L/min", range=(1.0, 15.0)),
        Quantity("urine", "mL/h", range=(0.0, 1000.0)),
        Quantity("Lactate", "mmol/L", range=(0.3, 20.0)),
        Quantity("Creatinine", "mg/dL", range=(0.3, 10.0)),
        Quantity("Temp", "degC", range=(34.0, 42.0)),
    )
    constants = (
        Quantity("V_rest", "mL"),
        Quantity("W_rest", "mL"),
        Quantity("V_unstressed", "mL"),
        Quantity("compliance", "mL/mmHg"),
        Quantity("P_heart", "mmHg"),
        Quantity("contractility", "L/min/mmHg"),
        Quantity("R_venous", "mmHg*min/L"),
        Quantity("R_min", "mmHg*min/L"),
        Quantity("R_max", "mmHg*min/L"),
        Quantity("HR_min", "1/min"),
        Quantity("HR_max", "1/min"),
        Quantity("S_rest", "1"),
        Quantity("P_set", "mmHg"),
        Quantity("width_reflex", "mmHg"),
        Quantity("tau_reflex", "h"),
        Quantity("venoconstriction", "1"),
        Quantity("inotropy", "1"),
        Quantity("intake", "mL/h"),
        Quantity("transfer", "mL/h"),
        Quantity("filtration_max", "dL/h"),
        Quantity("P_renal", "mmHg"),
        Quantity("width_renal", "mmHg"),
        Quantity("excretion", "mL/dL"),
        Quantity("diuresis", "1"),
        Quantity("creatinine_production", "mg/h"),
        Quantity("V_creatinine", "dL"),
        Quantity("lactate_production", "mmol/L/h"),
        Quantity("lactate_clearance", "1/h"),
        Quantity("anaerobic", "mmol/L/h"),
        Quantity("P_anaerobic", "mmHg"),
        Quantity("width_anaerobic", "mmHg"),
        Quantity("dose_half", "ug/kg/min"),
        Quantity("pressor", "1"),
        Quantity("pressor_venous", "1"),
        Quantity("tau_inflammation", "h"),
        Quantity("vasodilation", "1"),
        Quantity("venodilation", "1"),
        Quantity("depression", "1"),
        Quantity("tachycardia", "1/min"),
        Quantity("leak", "mL/h"),
        Quantity("lactate_inflammation", "mmol/L/h"),
        Quantity("T_normal", "degC"),
        Quantity("fever_max", "K"),
        Quantity("J_fever", "1"),
        Quantity("tau_fever", "h"),
    )

    def __init__(
        self,
        *,
        V_rest: Values = 5000.0,
        W_rest: Values = 11000.0,
        V_unstressed: Values = 3600.0,  # 1400 mL stressed: filling pressure 7 mmHg
        compliance: Values = 200.0,
        P_heart: Values = -4.0,  # where the cardiac function curve meets zero flow
        contractility: Values = 1.25,
        R_venous: Values = 1.4,  # Q = (7 + 4) / (1.4 + 1 / 1.25) = 5 L/min at CVP 0
        R_min: Values = 10.0,
        R_max: Values = 44.0,  # R = 18.5 at rest: MAP 92.5 mmHg
        HR_min: Values = 40.0,
        HR_max: Values = 160.0,  # HR = 70 at rest
        S_rest: Values = 0.25,
        P_set: Values = 78.8,  # 92.5 - 12.5 log(3): the reflex rests at S_rest
        width_reflex: Values = 12.5,
        tau_reflex: Values = 0.5,
        venoconstriction: Values = 0.25,
        inotropy: Values = 0.8,
        intake: Values = 60.0,
        transfer: Values = 3000.0,  # a bolus spreads with a half-time of about 50 min
        filtration_max: Values = 61.0,  # 100 mL/min at rest
        P_renal: Values = 60.0,
        width_renal: Values = 8.0,
        excretion: Values = 1.0,  # 1 % of the filtrate is lost as urine
        diuresis: Values = 12.0,
        creatinine_production: Values = 50.0,
        V_creatinine: Values = 420.0,
        lactate_production: Values = 0.5,
        lactate_clearance: Values = 0.5,
        anaerobic: Values = 3.0,
        P_anaerobic: Values = 56.0,
        width_anaerobic: Values = 3.0,
        dose_half: Values = 0.2,
        pressor: Values = 1.2,
        pressor_venous: Values = 0.08,
        tau_inflammation: Values = 12.0,
        vasodilation: Values = 0.7,
        venodilation: Values = 0.05,
        depression: Values = 0.2,
        tachycardia: Values = 5.0,
        leak: Values = 250.0,
        lactate_inflammation: Values = 0.35,
        T_normal: Values = 36.9,
        fever_max: Values = 3.0,
        J_fever: Values = 1.0,
        tau_fever: Values = 2.0,
    ):
        given = {name: value for name, value in locals().items() if name in _CONSTANT_NAMES}
        super().__init__()
        self.register_constants(**given)

    def hemodynamics(
        self, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Hemodynamics:
        """Pressures and flows at a state, under an input."""
        V, W, S, J = (x[..., i : i + 1] for i in range(4))
        dose = u[..., 1:2]
        D = dose / (dose + self.dose_half)
        unstressed = self.V_unstressed * (
            1
            - self.venoconstriction * (S - self.S_rest)
            + self.venodilation * J
            - self.pressor_venous * D
        )
        P_filling = (V - unstressed) / self.compliance
        inotropic = 1 + self.inotropy * (S - self.S_rest)
        K = self.contractility * inotropic / (1 + self.depression * J)
        Q = (P_filling - self.P_heart) / (self.R_venous + 1 / K)
        CVP = self.P_heart + Q / K
        tone = (1 + self.pressor * D) / (1 + self.vasodilation * J)
        MAP = CVP + Q * (self.R_min + (self.R_max - self.R_min) * S) * tone
        HR = self.HR_min + (self.HR_max - self.HR_min) * S + self.tachycardia * J
        filtration = self.filtration_max * torch.sigmoid((MAP - self.P_renal) / self.width_renal)
        excess = (V - self.V_rest) / self.V_rest
        urine = self.excretion * filtration * torch.exp(self.diuresis * excess)
        exchange = self.transfer * (excess - (W - self.W_rest) / self.W_rest) + self.leak * J
        return Hemodynamics(MAP, CVP, HR, Q, filtration, urine, exchange)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring."""
        flow = self.hemodynamics(x, u)
        S, J, L, C, F = (x[..., i : i + 1] for i in range(2, 7))
        fluids, _, infection = (u[..., i : i + 1] for i in range(3))
        reflex = torch.sigmoid((self.P_set - flow.MAP) / self.width_reflex)
        hypoxia = torch.sigmoid((self.P_anaerobic - flow.MAP) / self.width_anaerobic)
        production = self.lactate_production + self.anaerobic * hypoxia
        rates = (
            self.intake + fluids - flow.urine - flow.exchange,
            flow.exchange,
            (reflex - S) / self.tau_reflex,
            infection - J / self.tau_inflammation,
            production + self.lactate_inflammation * J - self.lactate_clearance * L,
            (self.creatinine_production - flow.filtration * C) / self.V_creatinine,
            (self.fever_max * J / (J + self.J_fever) - F) / self.tau_fever,
        )
        return torch.cat(torch.broadcast_tensors(*rates), dim=-1)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """What a monitor and a laboratory would show."""
        flow = self.hemodynamics(x, u)
        L, C, F = (x[..., i : i + 1] for i in range(4, 7))
        values = (
            flow.MAP,
            flow.HR,
            flow.CVP,
            flow.cardiac_output,
            flow.urine,
            L,
            C,
            self.T_normal + F,
        )
        return torch.cat(torch.broadcast_tensors(*values), dim=-1)


_CONSTANT_NAMES = frozenset(quantity.name for quantity in Circulation.constants)
