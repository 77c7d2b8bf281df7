"""How a report says things: numbers as words, the limits it states, the words it never uses.

Attributions describe a model, so no sentence may read as a claim about the disease. `FORBIDDEN`
holds the phrases that would; a test reads every page for them.
"""

import math

FORBIDDEN = (
    r"because of",
    r"\bcaus(e|es|ed|ing)\b",
    r"\bdue to\b",
    r"drives the risk",
    r"reduces? (the )?risk if",
    r"will prevent",
    r"\bthe reason\b",
    r"\bproves?\b",
    r"\bsafe to\b",
    r"important for survival",
    r"normal patient",
)

LIMITS = (
    "Contributions describe this model, not the disease. "
    "Changing a value would not necessarily change the outcome.",
    "Every contribution is relative to the baseline named on the page; "
    "another baseline gives another picture.",
    "That a test was ordered is an action of a clinician, and the model may have learned from it.",
    "Unmeasured does not mean within the reference interval.",
    "Not for use outside the population on which the model was trained and evaluated.",
    "Research use only; not a medical device. "
    "Model output supports no treatment decision by itself.",
)

BRAIN_LIMITS = (
    "This page describes a model, not a patient: its regions, weights and constants are "
    "assumptions, and another connectome or another operating point gives another ranking.",
    "Controllability, energies and rankings are those of the linearization at one equilibrium; "
    "only the stimulus was run in the nonlinear model.",
    "Energies are in units of the model's inputs. They say nothing of current, dose or tissue "
    "unless the inputs carry such units.",
    "A place that stands out of null networks stands out of those nulls, and of nothing else.",
    "Research use only; not a medical device. Nothing here supports a decision about stimulation "
    "of a person by itself.",
)

BASELINES = {
    "cohort_mean": "the mean of the training cohort for each variable",
    "normal": "the midpoint of the reference interval of each variable",
    "carry": "the last value before the window (so that changes are explained)",
    "delete": "a record in which it was never measured",
}


def significant(value: float, digits: int = 2) -> str:
    """A number with at most `digits` significant digits and no exponent where that reads well."""
    if not math.isfinite(value):
        return "undefined"
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    if abs(rounded) >= 1e6 or abs(rounded) < 1e-4:
        return f"{value:.{digits - 1}e}"
    return f"{rounded:.{max(places, 0)}f}"


def measured(value: float) -> str:
    """A measured value as a chart would print it: four significant digits, no trailing zeros."""
    if not math.isfinite(value):
        return "undefined"
    return f"{value:.4g}" if 1e-4 <= abs(value) < 1e4 or value == 0 else significant(value, 4)


def signed(value: float) -> str:
    """A contribution in log-odds, two significant digits down to 0.01, with its sign."""
    if abs(value) < 0.005:
        return "0.00"
    return f"{value:+.2f}".replace("-", "−")


def outcome_words(outcome: str) -> str:
    """An outcome as a page names it; that a number stands for what ended a stay claims no more."""
    return outcome.replace(", cause ", ", kind ")


def contribution_unit(scale: str) -> str:
    """The scale of attributions as a page names it: log-odds, or standard deviations of what."""
    return scale.replace("log odds", "log-odds")


def percent(probability: float) -> str:
    """A probability as a whole percentage; the ends are never rounded to certainty."""
    if probability < 0.01:
        return "<1 %"
    if probability > 0.99:
        return ">99 %"
    return f"{100 * probability:.0f} %"


def hours(time: float) -> str:
    """A time since time zero, to a tenth of an hour."""
    return f"{time:.1f} h".replace("-", "−")


def probability(logit: float) -> float:
    """The probability of a logit, without overflow at either end."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))


def ordinal(position: int) -> str:
    """The run-local name of a subject: its 1-based position in `cohort.subjects`."""
    return f"#{position + 1:04d}"
