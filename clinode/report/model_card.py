"""The CHAI Applied Model Card, as XML of its schema, version 0.2.

Coalition for Health AI, https://mc.chai.org/v0.2/schema.xsd. What the run knows is filled in, the
rest are the developer's facts; a text that the schema demands and nobody gave says that it is
blank, and the others are left out.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from clinode.attribution import METHODS
from clinode.errors import printable
from clinode.report.facts import NOT_PROVIDED
from clinode.report.material import Material
from clinode.report.subgroups import Measured
from clinode.report.wording import LIMITS, percent

FILE = "model-card.xml"
NAMESPACE = "https://mc.chai.org/v0.2/schema.xsd"
OF_GROUPS = 12  # subgroup results, at most

Tree = Mapping[str, Any]  # a text, a tree, a list of tags with either, or None
_NOT_IN_XML = {0xFFFE: "?", 0xFFFF: "?"}  # what is left of them once control characters are told


def model_card(
    material: Material, alerts: Mapping[str, Any] | None, groups: Sequence[Measured]
) -> str:
    """The card as a document of XML.

    Args:
        material: Of the report.
        alerts: `at_threshold` of the whole cohort, each as `Estimate.to_dict()`; None where it is
            not shown.
        groups: Subgroups, for the part on fairness.

    Returns:
        The document. Empty optional texts are left out, empty demanded ones say so.
    """
    ElementTree.register_namespace("", NAMESPACE)
    root = ElementTree.Element(f"{{{NAMESPACE}}}AppliedModelCard")
    _fill(root, _card(material, alerts, groups))
    ElementTree.indent(root, "  ")
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _card(material: Material, alerts: Mapping[str, Any] | None, groups: Sequence[Measured]) -> Tree:
    run, said = material.run, material.facts.said
    schema = run.schema
    frequency = material.training_frequency
    share = "" if frequency is None else f", {percent(frequency)} of them with the outcome"
    units = ", ".join(material.label(name) for name in schema.variables[:60])
    return {
        "BasicInfo": {
            "ModelName": _or_blank(said("name")),
            "ModelDeveloper": _or_blank(said("developer")),
            "DeveloperContact": _or_blank(said("contact")),
        },
        "ReleaseInfo": {
            "ReleaseStage": said("release_stage") or "Research use only",
            "ReleaseDate": _or_blank(said("release_date")),
            "ReleaseVersion": said("version") or f"weights {run.weights_sha256[:16]}",
            "GlobalAvailability": _or_blank(said("availability")),
            "RegulatoryApproval": said("regulatory"),
        },
        "ModelSummary": {
            "Summary": said("summary")
            or f"A {type(run.model).__name__} that gives the probability of {material.outcome} "
            f"from irregular measurements of up to {schema.window:g} hours.",
            "Keywords": [("Keyword", word) for word in (material.outcome, "time series", "risk")],
        },
        "UsesAndDirections": {
            "IntendedUseAndWorkflow": _or_blank(said("intended_use")),
            "PrimaryIntendedUsers": _or_blank(said("intended_users")),
            "HowToUse": _or_blank(said("how_to_use")),
            "TargetedPatientPopulation": _or_blank(said("target_population")),
            "CautionedOutOfScopeSettings": _or_blank(said("when_not_to_use")),
        },
        "Warnings": {
            "KnownRisksAndLimitations": " ".join([*filter(None, [said("risks")]), *LIMITS]),
            "KnownBiasesOrEthicalConsiderations": _or_blank(said("biases")),
            "ClinicalRiskLevel": _or_blank(said("risk_level")),
        },
        "TrustIngredients": {
            "AISystemFacts": {
                "OutcomesAndOutputs": f"Probability of {material.outcome}. "
                + (said("outcome") or ""),
                "ModelType": f"{type(run.model).__name__}, {run.n_parameters:,} weights",
                "InputDataSource": _or_blank(said("data_source")),
                "OutputAndInputDataTypes": f"Output: a probability. Input: {units}; "
                f"{len(schema.inputs)} treatments.",
                "DevelopmentDataCharacterization": f"{schema.n_subjects:,} subjects{share}. "
                + (said("sites_and_years") or f"Sites and years {NOT_PROVIDED}."),
                "BiasMitigationApproaches": _or_blank(said("bias_mitigation")),
                "OngoingMaintenance": _or_blank(said("maintenance")),
                "Security": said("security"),
                "Transparency": "Each output can be explained event by event: "
                f"{METHODS[material.attributions.method]}, relative to {material.baseline}.",
            },
            "TransparencyInformation": {
                "FundingSource": _or_blank(said("funding")),
                "StakeholdersConsulted": _or_blank(said("stakeholders")),
            },
        },
        "KeyMetrics": {
            "UsefulnessUsabilityEfficacy": _useful(material, alerts),
            "FairnessEquity": _fair(material, groups),
            "SafetyReliability": _reliable(material),
        },
        "Resources": {
            "EvaluationReferences": "The pages of the report that this card belongs to.",
            "PeerReviewedPublications": _or_blank(said("publications")),
            "PatientConsentOrDisclosure": _or_blank(said("ethics")),
        },
        "Bibliography": "",
    }


def _useful(material: Material, alerts: Mapping[str, Any] | None) -> Tree:
    told = material.evaluation or {}
    results = [
        (name, told[key], 1.0) for key, name in (("auroc", "AUROC"), ("auprc", "AUPRC"))
        if key in told
    ]  # fmt: skip
    if alerts is not None:
        at = percent(material.threshold[0])
        results += [
            (f"Sensitivity at a risk of {at}", alerts["sensitivity"], 100.0),
            (f"Positive predictive value at a risk of {at}", alerts["ppv"], 100.0),
            (f"Alerts per 100 predictions at a risk of {at}", alerts["alerts_per_100"], 1.0),
        ]
    return _metric(
        material,
        "Whether those who will have the outcome get a higher risk than the others, and what an "
        "alert means.",
        results,
        "AUROC: chance that a subject with the outcome has the higher risk. Intervals: 95 %, over "
        "subjects.",
    )


def _fair(material: Material, groups: Sequence[Measured]) -> Tree:
    results = [
        (f"AUROC, {group.group}", group.auroc.to_dict(), 1.0)
        for group in groups
        if group.auroc is not None
    ][:OF_GROUPS]
    return _metric(
        material,
        "Whether the model tells subjects apart equally well in each group.",
        results,
        "Groups with fewer than eleven subjects with, or without, the outcome are not shown.",
    )


def _reliable(material: Material) -> Tree:
    told = material.evaluation or {}
    names = {
        "calibration_slope": "Calibration slope",
        "calibration_intercept": "Calibration intercept (logit)",
        "ece": "Expected calibration error",
    }
    results = [(name, told[key], 1.0) for key, name in names.items() if key in told]
    withheld = material.attributions.gates["withheld"].to_numpy(dtype=bool)
    share = {"value": 100 * float(withheld.mean()) if len(withheld) else None}
    return _metric(
        material,
        "Whether risks mean what they say, and whether explanations add up.",
        [*results, ("Explanations withheld, percent", share, 1.0)],
        f"{material.drift.verdict}.",
    )


def _metric(
    material: Material,
    goal: str,
    results: Sequence[tuple[str, Mapping[str, Any], float]],
    meaning: str,
) -> Tree:
    shown = [
        ("MetricResult", {"Label": label, "ValueJson": _value(told, factor)})
        for label, told, factor in results
    ]
    nothing = [("MetricResult", {"Label": "None", "ValueJson": _value({"value": None}, 1.0)})]
    told = material.evaluation
    data = (
        "This cohort carries no outcomes."
        if told is None
        else f"{told['n_subjects']:,} subjects, {told['n_records']:,} predictions, "
        f"{told.get('n_trained_on', 0):,} of the subjects took part in the fit."
    )
    return {
        "MetricGoal": goal,
        "Results": shown or nothing,
        "Interpretation": printable(meaning),
        "TestType": "Retrospective, on records",
        "TestingDataDescription": data,
        "ValidationProcessAndJustification": material.facts.said("external_validation")
        or f"External validation {NOT_PROVIDED}.",
    }


def _value(told: Mapping[str, Any], factor: float) -> str:
    """A number as the published examples of the schema write it."""
    value = told.get("value")
    if value is None:
        return json.dumps({"kind": "single", "value": None})
    unit = {"unit": "%"} if factor == 100 else {}
    if told.get("low") is None:
        return json.dumps({"kind": "single", "value": round(factor * value, 4), **unit})
    numbers = {
        "estimate": round(factor * value, 4),
        "lower": round(factor * told["low"], 4),
        "upper": round(factor * told["high"], 4),
    }
    return json.dumps({"kind": "estimate_ci", **numbers, "level": 95, **unit})


def _or_blank(text: str | None) -> str:
    return text or NOT_PROVIDED[0].upper() + NOT_PROVIDED[1:]


def _fill(parent: ElementTree.Element, tree: Tree) -> None:
    for name, content in tree.items():
        if content is None:
            continue
        child = ElementTree.SubElement(parent, f"{{{NAMESPACE}}}{name}")
        if isinstance(content, str):
            child.text = content.translate(_NOT_IN_XML) or None
        elif isinstance(content, Mapping):
            _fill(child, content)
        else:
            for key, entry in content:
                _fill(child, {key: entry})
