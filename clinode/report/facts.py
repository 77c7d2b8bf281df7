"""What only the developer of a model can say of it: the fields of page 1, of the sheets and card.

A report fills what a run knows by itself. The rest is handed over as `ModelFacts`, is printed in
the developer's words, and where it is missing the page says so instead of leaving it out.
"""

import math
from dataclasses import dataclass, fields

from clinode.errors import ArgumentError, printable

MOST_LETTERS = 4000
NOT_PROVIDED = "not provided: ask the developer"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The developer's own words about a model; what is left out is printed as not provided.

    Args:
        name: Of the model, as its users know it.
        version: Of the model.
        developer: Who made it and answers for it.
        contact: Where questions go.
        summary: The model in two or three sentences.
        context: Why it was made: the clinical situation, and what is done there today.
        outcome: The outcome in words, and how it is ascertained.
        outcome_assessment: Who or what decided on the outcome, and whether blind to the predictors.
        intended_use: For which decision, at which point of the work.
        intended_users: Who reads its output.
        how_to_use: What a user does with it, and what training that takes.
        when_not_to_use: Settings and patients it must not be used for.
        target_population: Whom it is meant for.
        inequalities: Known inequalities in the care of these patients.
        sites_and_years: Where and when the data were collected.
        data_source: Which records, and how they came to be.
        eligibility: Who was let in, and who not.
        treatments: Treatments that the subjects received.
        sample_size: How the number of subjects was arrived at.
        external_validation: Whether and where it was tried on other sites or later years.
        last_check: When its performance was last looked at, and what was found.
        risks: Known risks and limitations.
        biases: Known biases, and what of them is an ethical matter.
        bias_mitigation: What was done about them.
        risk_level: How bad a wrong output may be.
        maintenance: How it is watched and updated.
        security: How data and model are protected.
        funding: Who paid.
        conflicts: Interests of those who made it.
        stakeholders: Which patients, clinicians and others were asked.
        ethics: Approval, and consent of the subjects.
        protocol: Where the plan of the study is, and where it was registered.
        availability: Where data and code can be had.
        release_stage: Research, pilot, in use.
        release_date: When this version was released.
        regulatory: What authorities say of it.
        publications: Papers on it.
        interpretation: What its results mean beside earlier studies.
        usability: How it is used when inputs are poor or missing, and what its users must know.
        threshold: Risk from which an alert is raised; by default the frequency of the outcome in
            the training part, a convention and no recommendation.
        threshold_reason: Why that one.
        lowest_threshold, highest_threshold: Risks between which somebody would act, the range of
            the decision curve.

    Raises:
        ArgumentError: A threshold lies outside (0, 1), the range is empty, or a text is longer
            than 4,000 characters.
    """

    name: str = ""
    version: str = ""
    developer: str = ""
    contact: str = ""
    summary: str = ""
    context: str = ""
    outcome: str = ""
    outcome_assessment: str = ""
    intended_use: str = ""
    intended_users: str = ""
    how_to_use: str = ""
    when_not_to_use: str = ""
    target_population: str = ""
    inequalities: str = ""
    sites_and_years: str = ""
    data_source: str = ""
    eligibility: str = ""
    treatments: str = ""
    sample_size: str = ""
    external_validation: str = ""
    last_check: str = ""
    risks: str = ""
    biases: str = ""
    bias_mitigation: str = ""
    risk_level: str = ""
    maintenance: str = ""
    security: str = ""
    funding: str = ""
    conflicts: str = ""
    stakeholders: str = ""
    ethics: str = ""
    protocol: str = ""
    availability: str = ""
    release_stage: str = ""
    release_date: str = ""
    regulatory: str = ""
    publications: str = ""
    interpretation: str = ""
    usability: str = ""
    threshold: float | None = None
    threshold_reason: str = ""
    lowest_threshold: float = 0.01
    highest_threshold: float = 0.5

    def __post_init__(self):
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.type is str and not isinstance(value, str):
                raise ArgumentError(f"{entry.name} must be a text", where="facts")
            if isinstance(value, str) and len(value) > MOST_LETTERS:
                raise ArgumentError(
                    f"{entry.name} has {len(value):,} characters, at most {MOST_LETTERS:,} fit",
                    where="facts",
                    fix="say it shorter, and name where the rest stands",
                )
        for name in ("threshold", "lowest_threshold", "highest_threshold"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and 0 < value < 1):
                raise ArgumentError(f"{name} must be a risk inside (0, 1)", where="facts")
        if not self.lowest_threshold < self.highest_threshold:
            raise ArgumentError(
                "lowest_threshold must lie below highest_threshold",
                where="facts",
                fix="give the range of risks at which somebody would act",
            )

    def said(self, name: str) -> str | None:
        """One text in one line, fit for a page; None where nothing was said."""
        return printable(" ".join(getattr(self, name).split())) or None
