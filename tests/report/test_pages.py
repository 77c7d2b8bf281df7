"""The pages on a model and its cohort, of one run on simulated patients."""

import base64
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import clinode as cn
from clinode.evaluation.drift import Drift
from clinode.report.facts import NOT_PROVIDED
from clinode.report.material import Material
from clinode.report.methods import methods_page
from clinode.report.model_card import NAMESPACE, model_card
from clinode.report.performance import alerts, performance_page
from clinode.report.provenance import of_report
from clinode.report.subgroups import find_groupings, measure_groups, subgroups_page
from clinode.report.tripod import tripod_items
from clinode.training.drift import find_drift

pytestmark = pytest.mark.slow
FACTS = cn.ModelFacts(name="Demo <b>", contact="a desk & a phone", when_not_to_use="on children")

# element lists of the schema, version 0.2, in order; "?" where it may be left out
METRIC = {
    "MetricGoal": None,
    "Results": {"MetricResult": {"Label": None, "ValueJson": None}},
    "Interpretation": None,
    "TestType": None,
    "TestingDataDescription": None,
    "ValidationProcessAndJustification": None,
}
SCHEMA = {
    "BasicInfo": {"ModelName": None, "ModelDeveloper": None, "DeveloperContact": None},
    "ReleaseInfo": {
        "ReleaseStage": None,
        "ReleaseDate": None,
        "ReleaseVersion": None,
        "GlobalAvailability": None,
        "EHRCompatibility?": None,
        "RegulatoryApproval?": None,
    },
    "ModelSummary": {"Summary": None, "Keywords": {"Keyword": None}},
    "UsesAndDirections": {
        "IntendedUseAndWorkflow": None,
        "PrimaryIntendedUsers": None,
        "HowToUse": None,
        "TargetedPatientPopulation": None,
        "CautionedOutOfScopeSettings": None,
    },
    "Warnings": {
        "KnownRisksAndLimitations": None,
        "KnownBiasesOrEthicalConsiderations": None,
        "ClinicalRiskLevel": None,
    },
    "TrustIngredients": {
        "AISystemFacts": {
            "OutcomesAndOutputs": None,
            "ModelType": None,
            "FoundationModels?": None,
            "InputDataSource": None,
            "OutputAndInputDataTypes": None,
            "DevelopmentDataCharacterization": None,
            "BiasMitigationApproaches": None,
            "OngoingMaintenance": None,
            "Security?": None,
            "Transparency?": None,
        },
        "TransparencyInformation": {
            "FundingSource": None,
            "ThirdPartyInformation?": None,
            "StakeholdersConsulted": None,
        },
    },
    "KeyMetrics": {
        "UsefulnessUsabilityEfficacy": METRIC,
        "FairnessEquity": METRIC,
        "SafetyReliability": METRIC,
    },
    "Resources": {
        "EvaluationReferences?": None,
        "ClinicalTrial?": None,
        "PeerReviewedPublications": None,
        "ReimbursementStatus?": None,
        "PatientConsentOrDisclosure": None,
    },
    "Bibliography": None,
}
SEVERAL = ("Keyword", "MetricResult")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    cohort = cn.simulate_cohort(500, seed=3)
    train, held_out = cn.split(cohort, fractions=(0.4, 0.6))
    run = cn.fit(
        cn.sequence.LinearLatentODE(latent=4),
        train,
        task=cn.Classify(cohort.outcomes.columns[-1]),
        out=tmp_path_factory.mktemp("runs") / "run",
        config=cn.FitConfig(epochs=1),
    )
    found = cn.explain(run, held_out, subjects=held_out.subjects[:30])
    scored = run.predict(held_out).merge(held_out.outcomes)
    scored = scored.rename(columns={found.outcome: "outcome"})
    return Material(
        run=run,
        cohort=held_out,
        attributions=found,
        evaluation=cn.evaluate(run, held_out, n_resamples=30).to_dict(),
        scored=scored,
        drift=find_drift(run, held_out),
        facts=FACTS,
        n_resamples=50,
    )


def follows(element, schema):
    """Elements in the order of the schema, each demanded one there, none unknown."""
    names = [child.tag.removeprefix(f"{{{NAMESPACE}}}") for child in element]
    expected = [name.rstrip("?") for name in schema]
    assert set(names) <= set(expected)
    assert list(dict.fromkeys(names)) == [n for n in expected if n in names]
    for name, inner in schema.items():
        own = [c for c in element if c.tag == f"{{{NAMESPACE}}}{name.rstrip('?')}"]
        assert len(own) == 1 or name.endswith("?") or name in SEVERAL, name
        for child in own:
            if inner is None:
                assert not len(child)
            else:
                follows(child, inner)


def test_the_model_card_follows_its_schema_and_names_its_blanks(material):
    text = model_card(material, alerts(material), [])
    root = ElementTree.fromstring(text)
    assert root.tag == f"{{{NAMESPACE}}}AppliedModelCard"
    follows(root, SCHEMA)
    found = {e.tag.partition("}")[2]: e.text or "" for e in root.iter()}
    assert found["ModelName"] == "Demo <b>"
    assert found["DeveloperContact"] == "a desk & a phone"
    assert NOT_PROVIDED in found["FundingSource"].lower()
    empty = [e.tag for e in root.iter() if not len(e) and not (e.text or "").strip()]
    assert empty == [f"{{{NAMESPACE}}}Bibliography"]


def test_the_checklist_has_all_items_and_lists_every_blank(material):
    items = tripod_items(material)
    numbers = [int(re.match(r"\d+", item.number).group()) for item in items]
    assert sorted(set(numbers)) == list(range(1, 28))
    assert numbers == sorted(numbers)
    page = methods_page(material, of_report(material.run, material.cohort, None, {}, None))
    blanks = [item for item in items if item.filled is None]
    assert len(page["tripod_blanks"]) == len(blanks) == page["n_items"] - page["n_filled"]
    everything = {name: "said" for name in vars(FACTS) if isinstance(getattr(FACTS, name), str)}
    told = Material(**{**vars_of(material), "facts": cn.ModelFacts(**everything)})
    left = [item.number for item in tripod_items(told) if item.filled is None]
    assert left == ["9c", "12d", "20a", "23b"]  # what only the study itself can say


def vars_of(material):
    fields = material.__dataclass_fields__
    return {name: getattr(material, name) for name in fields}


def test_what_was_measured_of_groups_is_that_of_their_records(material):
    grouping = next(g for g in find_groupings(material) if g.name == "Gender")
    for k, row in enumerate(measure_groups(material, grouping)):
        own = grouping.level[material.subject] == k
        assert row.n in (None, int(own.sum()))
        assert row.events in (None, int(material.observed[own].sum()))
        alert = material.predicted[own] >= material.threshold[0]
        if row.missed is not None:
            had = material.observed[own] == 1
            assert row.missed.value == pytest.approx(1 - alert[had].mean())
            assert row.missed.low <= row.missed.value <= row.missed.high
        if row.false is not None:
            had_not = material.observed[own] == 0
            assert row.false.value == pytest.approx(alert[had_not].mean())


def test_no_group_shows_a_count_below_eleven(material):
    for grouping in find_groupings(material):
        for row in measure_groups(material, grouping):
            for count in (row.n, row.events):
                assert count is None or count == 0 or count >= 11
            if row.n is not None and row.events is not None:
                assert row.n - row.events == 0 or row.n - row.events >= 11


def test_few_subjects_get_pages_without_numbers_of_them(material):
    few = material.cohort.take(range(9))
    scored = material.scored[material.scored["subject_id"].isin(few.subjects)]
    gates = material.attributions.gates.head(9)
    events = material.attributions.events
    own = events[events["subject_id"].isin(gates["subject_id"])]
    found = type(material.attributions)(
        **{**vars(material.attributions), "gates": gates, "events": own}
    )
    small = Material(
        **{**vars_of(material), "cohort": few, "scored": scored, "attributions": found}
    )
    assert alerts(small) is None
    assert performance_page(small)["curves"] is None
    page = subgroups_page(small)
    assert page["chart"] is None
    cells = [cell for table in page["tables"] for row in table.rows for cell in row[1:]]
    assert set(cells) <= {"not shown", "0"}
    assert not page["attribution"]


def test_the_threshold_is_the_developers_or_a_stated_convention(material):
    assert "a convention" in material.threshold[1]
    assert 0 < material.threshold[0] < 1
    told = Material(**{**vars_of(material), "facts": cn.ModelFacts(threshold=0.2)})
    assert told.threshold == (0.2, "chosen by the developer")


def test_facts_kinds_and_checks_reach_the_pages_and_the_card_lies_beside(material, tmp_path):
    class Found:
        def to_dict(self):
            return {"share of values": 0.62, "rows": [{"subject_id": "SECRET", "x": 1}]}

    index = cn.write_report(
        material.run,
        material.cohort,
        material.attributions,
        tmp_path / "report",
        facts=FACTS,
        checks=Found(),
    )
    pages = {p.name: p.read_text(encoding="utf-8") for p in Path(index).parent.iterdir()}
    assert "Demo &lt;b&gt;" in pages["index.html"]
    assert "on children" in pages["index.html"]
    assert "share of values" in pages["cohort.html"]
    assert not [name for name, text in pages.items() if "SECRET" in text]
    link = re.search(r'href="data:application/xml;base64,([^"]+)"', pages["methods.html"])
    assert link is not None
    assert base64.b64decode(link.group(1)).decode() == pages["model-card.xml"]
    assert sum(len(text) for name, text in pages.items() if not name.startswith("subject")) < 1e6
    assert cn.folder.verify_folder(Path(index).parent)["kind"] == "report"


def test_drift_on_the_page_is_that_of_values_and_of_rates(material):
    from clinode.report.data import data_page

    page = data_page(material)
    assert page["drift"] is not None
    shown = {row[0] for row in page["drift"]["tables"][0].rows}
    assert material.label("HR") in shown
    assert isinstance(material.drift, Drift)
    assert np.isfinite([m["x"] for m in page["drift"]["chart"].marks if "x" in m and
                        not isinstance(m["x"], str)] or [0]).all()  # fmt: skip
