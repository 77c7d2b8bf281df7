"""Page 8: the 27 items of TRIPOD+AI, filled from the report itself and from the developer's facts.

Collins et al. 2024, BMJ 385:e078378. Items are paraphrased. What nobody said is None, never a
sentence that only sounds like an answer.
"""

from dataclasses import dataclass

from clinode.errors import printable
from clinode.report.material import Material
from clinode.report.wording import percent


@dataclass(frozen=True)
class Item:
    """One item, or part of one.

    Args:
        number: As in the checklist, "12c" say.
        asks: What is asked, in our words.
        filled: What this report says, or where; None where nothing is known.
    """

    number: str
    asks: str
    filled: str | None


def tripod_items(material: Material) -> list[Item]:
    """All items in their order."""
    facts, run, cohort = material.facts, material.run, material.cohort
    schema = run.schema
    told = material.evaluation
    has_outcome = material.scored is not None
    said = facts.said
    n_tune = sum(run.parts["split"] == "tune")
    frequency = material.training_frequency
    events = "" if frequency is None else f", {percent(frequency)} of them with the outcome"
    window = f"{schema.window:g} h"
    rows: list[tuple[str, str, str | None]] = [
        ("1", "Title: development or evaluation, population, outcome", _title(material)),
        ("2", "Abstract: see the checklist for abstracts", said("summary")),
        ("3a", "Context, and why there is a model", said("context")),
        ("3b", "Population, purpose, place in care, users", _joined(
            said("target_population"), said("intended_use"), said("intended_users"))),
        ("3c", "Known inequalities between groups", said("inequalities")),
        ("4", "Objectives: development, evaluation, or both",
         "Pages 3 to 6: evaluation and explanation of a fitted model on the cohort named in the "
         "footer; its development is in the run."),
        ("5a", "Sources of the data, and why they fit", said("data_source")),
        ("5b", "Dates: start and end of accrual, end of follow-up", said("sites_and_years")),
        ("6a", "Setting: care, number and place of centers", said("sites_and_years")),
        ("6b", "Eligibility", _joined(
            None if material.flow is None else "Flow of the cohort: page 6.", said("eligibility"))),
        ("6c", "Treatments received", _joined(
            f"{len(schema.inputs)} treatments are read, up to the prediction time."
            if schema.inputs else None, said("treatments"))),
        ("7", "Preparation and quality checks of the data",
         "Page 6: every row is accounted for, by rule. Page 7: standardisation."),
        ("8a", "Outcome: what, when, how assessed", _joined(
            f"{material.outcome}.", said("outcome"))),
        ("8b", "Outcome: who assessed it", said("outcome_assessment")),
        ("8c", "Outcome: blind assessment", said("outcome_assessment")),
        ("9a", "Choice of predictors",
         f"All {len(schema.variables)} variables of the training part with an observation, "
         f"{len(cohort.schema.statics)} statics and {len(schema.inputs)} treatments; none was "
         "selected by the outcome."),
        ("9b", "Predictors: what, when, how measured",
         f"At any time up to the prediction time, within {window} at most; names and units: "
         "page 6."),
        ("9c", "Predictors: who assessed them", None),
        ("10", "Size of the study, and how it was arrived at", _joined(
            f"{schema.n_subjects:,} subjects trained the model{events}.", said("sample_size"))
            if said("sample_size") else None),
        ("11", "Missing data",
         "Nothing is filled in; a measurement has a time, and what was not measured has no row. "
         "Shares by variable: page 6; by group: page 5."),
        ("12a", "Use of the data: development and evaluation apart",
         f"{schema.n_subjects:,} subjects trained, {n_tune:,} chose the epoch; of the "
         f"{len(cohort):,} subjects here, {_trained_on(material)} took part in the fit."),
        ("12b", "Handling of predictors",
         "Clipped, standardised, some on a logarithmic scale, as measured in the training part: "
         "page 7."),
        ("12c", "Type of model, rationale, building, tuning, internal validation",
         f"{type(run.model).__name__}, {run.n_parameters:,} weights; settings, seed and selection "
         "of the epoch: page 7."),
        ("12d", "Differences between clusters", None),
        ("12e", "Measures and plots, and why",
         "Page 4: discrimination, calibration, net benefit, alerts; 95 % intervals over subjects."
         if has_outcome else None),
        ("12f", "Updating of the model", _updating(material)),
        ("12g", "How predictions are calculated",
         "From the stored weights, by `clinode predict`: page 7."),
        ("13", "Class imbalance", _imbalance(material)),
        ("14", "Fairness: approaches and why", _joined(
            "Page 5: the same measures by group." if has_outcome else None,
            said("bias_mitigation"))),
        ("15", "Output of the model: probabilities, classes, thresholds",
         f"A probability; alerts at {percent(material.threshold[0])}, {material.threshold[1]}."),
        ("16", "Differences between development and evaluation data",
         "Page 6: values, measurement rates, units, missing variables, outcome."),
        ("17", "Ethical approval and consent", said("ethics")),
        ("18a", "Funding", said("funding")),
        ("18b", "Conflicts of interest", said("conflicts")),
        ("18c", "Protocol", said("protocol")),
        ("18d", "Registration", said("protocol")),
        ("18e", "Data sharing", said("availability")),
        ("18f", "Code sharing", _joined(
            f"Written by clinode {run.version}.", said("availability"))),
        ("19", "Involvement of patients and public", said("stakeholders")),
        ("20a", "Flow of participants, with and without the outcome, follow-up",
         "Page 6 and page 4." if material.flow is not None else None),
        ("20b", "Characteristics, by setting; treatments, size, events, missing data",
         "Pages 5 and 6." if has_outcome else "Page 6."),
        ("20c", "Comparison with the development data", "Page 6."),
        ("21", "Participants and events in each analysis",
         f"{told['n_subjects']:,} subjects, {told['n_records']:,} predictions on page 4; "
         f"{len(material.attributions.gates):,} subjects explained on page 3."
         if told is not None else None),
        ("22", "Full specification of the model",
         "The run holds weights, schema and settings; SHA-256 on page 7."),
        ("23a", "Performance with intervals, also of groups",
         "Pages 4 and 5." if has_outcome else None),
        ("23b", "Differences in performance between clusters", None),
        ("24", "Results of updating", _updating(material)),
        ("25", "Interpretation, with fairness, beside earlier studies", said("interpretation")),
        ("26", "Limitations", _joined(
            "What these pages cannot say stands at their end.", said("risks"))),
        ("27a", "Poor or missing input in use", _joined(
            "A variable that is missing has no row; unknown ones are refused; implausible values "
            "are dropped by rule, and counted.", said("usability"))),
        ("27b", "Interaction and expertise that users need", said("how_to_use")),
        ("27c", "Next steps: applicability, further research", said("interpretation")),
    ]  # fmt: skip
    return [Item(*row) for row in rows]


def _title(material: Material) -> str | None:
    name = material.facts.said("name")
    if name is None:
        return None
    return f"{name}: model of {material.outcome}, evaluated on {len(material.cohort):,} subjects."


def _joined(*parts: str | None) -> str | None:
    return " ".join(part for part in parts if part) or None


def _trained_on(material: Material) -> str:
    told = material.evaluation
    count = None if told is None else told.get("n_trained_on")
    return "an unknown number" if count is None else "none" if count == 0 else f"{count:,}"


def _updating(material: Material) -> str:
    if material.run.calibration is None:
        return "None: the model is as it was fitted."
    return "The risk was recalibrated on further subjects: page 4."


def _imbalance(material: Material) -> str | None:
    weight = getattr(material.run.task, "class_weight", None)
    if weight is None:
        return "Nothing was resampled or weighted."
    return f"Positive outcomes were weighted ({printable(weight)}) in training."
