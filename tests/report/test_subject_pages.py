"""Whole pages of subjects, of every task and of ensembles, from models that were fitted."""

import html
import re

import numpy as np
import pytest
import torch

import clinode as cn
from clinode.attribution.changes import nearest_changes
from clinode.report import ModelFacts
from clinode.report.wording import FORBIDDEN, LIMITS, percent, significant
from clinode.training import fit_ensemble

pytestmark = pytest.mark.slow

CONFIG = cn.FitConfig(epochs=1)


@pytest.fixture(scope="module")
def cohort():
    return cn.simulate_cohort(60, seed=3)


def fitted(cohort, task, folder):
    return cn.fit(cn.sequence.LinearLatentODE(), cohort, task=task, out=folder, config=CONFIG,
                  progress=False)  # fmt: skip


@pytest.fixture(scope="module")
def run(cohort, tmp_path_factory):
    task = cn.Classify(cohort.outcomes.columns[-1])
    return fitted(cohort, task, tmp_path_factory.mktemp("risk") / "run")


@pytest.fixture(scope="module")
def forecasting(cohort, tmp_path_factory):
    return fitted(cohort, cn.Forecast(12.0), tmp_path_factory.mktemp("forecast") / "run")


@pytest.fixture(scope="module")
def attributions(run, cohort):
    return cn.explain(run, cohort, subjects=cohort.subjects[:3])


def text_of(index, name):
    page = (index.parent / name).read_text(encoding="utf-8")
    body = re.sub(r"<style>.*?</style>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def check(index):
    for path in index.parent.glob("*.html"):
        page = path.read_text(encoding="utf-8")
        assert "<script" not in page
        assert "nan" not in re.findall(r"\b[a-z]+\b", text_of(index, path.name))
        assert not re.findall(r"(?:src|href)=\"https?:", page)
        ids = re.findall(r'\bid="([^"]*)"', page)
        assert len(ids) == len(set(ids))
        assert page.count("<svg") == len(re.findall(r"<title id=", page))
        if path.name.startswith("subject"):
            assert len(page.encode()) < 300_000
            for sentence in LIMITS:
                assert sentence in text_of(index, path.name)
        if path.name == "methods.html":
            continue  # it prints the task as it was given, with the names of its columns
        for phrase in FORBIDDEN:
            assert not re.search(phrase, text_of(index, path.name), flags=re.IGNORECASE), phrase


def test_a_page_of_a_risk_holds_every_part(run, cohort, attributions, tmp_path):
    ids = list(attributions.gates["subject_id"])
    others = [
        cn.explain(run, cohort, subjects=ids, baseline="carry"),
        cn.explain(run, cohort, subjects=ids, method="shapley", baseline="delete"),
    ]
    index = cn.write_report(
        run, cohort, attributions, tmp_path / "report", others=others,
        kinds=cn.attribution.explain_kinds(run, cohort, subjects=ids),
        facts=ModelFacts(threshold=0.3),
    )  # fmt: skip
    check(index)
    text = text_of(index, "subject-0001.html")
    for words in ("was not trained to forecast", "Exact shares of three players",
                  "Shared of the largest", "Behavior of the model only"):  # fmt: skip
        assert words in text
    blank = cn.write_report(run, cohort, attributions, tmp_path / "blank")
    assert text_of(blank, "subject-0001.html").count("Not provided") >= 3


def test_a_nearest_change_crosses_and_half_a_step_before_it_does_not(run, cohort, attributions):
    output = attributions.gates["output"].to_numpy(dtype=float)
    risk = float(1 / (1 + np.exp(-(output[0] + 0.05))))
    found = nearest_changes(run, cohort, attributions, risk, most=3)
    assert 0 in set(
        attributions.gates.index[attributions.gates["subject_id"].isin(found["subject_id"])]
    )
    assert found.groupby("subject_id").size().max() <= 3
    before = run.predict(cohort).set_index("subject_id")["probability"]
    for row in found[found["distance"] > 0.05].to_dict("records"):
        table = cohort.observations
        here = (
            (table["subject_id"] == row["subject_id"])
            & (table["time"] == row["time"])
            & (table["variable"] == row["variable"])
        )
        assert here.sum() == 1

        def risk_with(value, here=here, row=row, table=table):
            changed = cn.Cohort.from_tables(
                table.assign(value=table["value"].where(~here, value)),
                statics=cohort.statics, inputs=cohort.inputs, outcomes=cohort.outcomes,
                schema=cohort.schema,
            )  # fmt: skip
            asked = run.predict(changed.select([row["subject_id"]]))
            return float(asked["probability"].iloc[0])

        is_above = before[row["subject_id"]] > risk
        assert (risk_with(row["changed"]) > risk) == (not is_above)
        nearer = row["value"] + 0.97 * (row["changed"] - row["value"])
        assert (risk_with(nearer) > risk) == is_above
        logit = torch.logit(torch.tensor(risk_with(row["changed"]))).item()
        assert logit == pytest.approx(row["logit"], abs=1e-3)


@pytest.mark.parametrize("risk", [0.0, 1.0, float("nan")])
def test_a_risk_that_cannot_be_crossed_is_refused(run, cohort, attributions, risk):
    with pytest.raises(cn.ArgumentError, match="within"):
        nearest_changes(run, cohort, attributions, risk)


def test_maps_of_variables_and_windows_are_tables(run, cohort, tmp_path):
    ids = cohort.subjects[:2]
    for method, words in (("shapley", "all together"), ("occlusion", "stretch from")):
        found = cn.explain(run, cohort, subjects=ids, method=method)
        index = cn.write_report(run, cohort, found, tmp_path / method,
                                facts=ModelFacts(threshold=0.3))  # fmt: skip
        check(index)
        text = text_of(index, "subject-0001.html")
        assert words in text
        assert "not single values" in text
        assert 'class="timeline"' not in (index.parent / "subject-0001.html").read_text()


def test_a_forecast_is_told_in_its_unit_with_its_interval(forecasting, cohort, tmp_path):
    ids = cohort.subjects[:2]
    found = cn.explain(forecasting, cohort, subjects=ids, output="HR", hours=6.0)
    assert found.hours == 6.0
    index = cn.write_report(forecasting, cohort, found, tmp_path / "report")
    check(index)
    told = forecasting.predict(cohort.select(ids), hours_after=[6.0]).query("variable == 'HR'")
    text = text_of(index, "subject-0001.html")
    row = told[told["subject_id"] == ids[0]].iloc[0]
    for column in ("value", "low", "high"):
        assert significant(row[column], 3) in text
    assert "standard deviations of HR in training" in text
    assert "90 % interval" in text
    assert not (index.parent / "model-card.xml").exists()
    gates = found.gates.set_index("subject_id")
    place = np.array([list(forecasting.schema.variables).index("HR")])
    output = forecasting.schema.restore(place, gates.loc[[ids[0]], "output"].to_numpy())
    assert output[0] == pytest.approx(row["value"], rel=1e-4)


def test_forecasts_of_a_second_run_stand_on_pages_of_a_risk(
    run, forecasting, cohort, attributions, tmp_path
):
    index = cn.write_report(run, cohort, attributions, tmp_path / "report", forecasts=forecasting)
    check(index)
    assert "dark band: 50 % interval" in text_of(index, "subject-0001.html")


def test_survival_is_told_as_incidence_of_each_cause(cohort, tmp_path):
    rng = np.random.default_rng(0)
    outcomes = cohort.outcomes.assign(
        end=cohort.outcomes["prediction_time"] + rng.exponential(40.0, len(cohort.outcomes)) + 0.5,
        event=rng.integers(0, 3, len(cohort.outcomes)),
    )
    followed = cn.Cohort.from_tables(
        cohort.observations, statics=cohort.statics, inputs=cohort.inputs, outcomes=outcomes,
        schema=cohort.schema,
    )  # fmt: skip
    task = cn.Survive("end", "event", cause="event")
    run = fitted(followed, task, tmp_path / "run")
    ids = followed.subjects[:2]
    found = cn.explain(run, followed, subjects=ids, output="2", hours=20.0)
    index = cn.write_report(run, followed, found, tmp_path / "report",
                            facts=ModelFacts(threshold=0.2))  # fmt: skip
    check(index)
    told = run.predict(followed.select(ids), hours_after=[20.0]).set_index("subject_id")
    text = text_of(index, "subject-0001.html")
    assert f"{percent(told.loc[ids[0], 'incidence_2_20h'])} probability that" in text
    assert "explained: 20 h" in text
    assert "kind 1" in text
    assert "similar output" not in text


def test_an_ensemble_tells_how_far_its_members_lie_apart(cohort, tmp_path):
    task = cn.Classify(cohort.outcomes.columns[-1])
    both = fit_ensemble(cn.sequence.LinearLatentODE(), cohort, task=task, out=tmp_path / "runs",
                        seeds=(0, 1), config=CONFIG, progress=False)  # fmt: skip
    ids = cohort.subjects[:2]
    found = cn.explain(both, cohort, subjects=ids)
    members = [cn.explain(one, cohort, subjects=ids) for one in both.runs]
    index = cn.write_report(both, cohort, found, tmp_path / "report", members=members)
    check(index)
    text = text_of(index, "subject-0001.html")
    own = cohort.select(ids)
    risks = sorted(float(one.predict(own)["probability"].iloc[0]) for one in both.runs)
    assert f"from {percent(risks[0])} to {percent(risks[1])} one by one" in text
    assert "Range of 2 members" in text
    for one in both.runs:
        assert one.weights_sha256[:16] in text
    # a contribution of an ensemble is the mean of its members', so it lies within their range
    tables = [one.to_pandas() for one in members]
    mean = np.mean([table["attribution"].to_numpy() for table in tables], axis=0)
    np.testing.assert_allclose(found.to_pandas()["attribution"], mean, atol=0.02)


def test_several_labels_stand_in_a_table(cohort, tmp_path):
    first = cohort.outcomes.columns[-1]
    rng = np.random.default_rng(1)
    outcomes = cohort.outcomes.assign(second=rng.integers(0, 2, len(cohort.outcomes)))
    labelled = cn.Cohort.from_tables(
        cohort.observations, statics=cohort.statics, inputs=cohort.inputs, outcomes=outcomes,
        schema=cohort.schema,
    )  # fmt: skip
    run = fitted(labelled, cn.Classify((first, "second")), tmp_path / "run")
    found = cn.explain(run, labelled, subjects=labelled.subjects[:2], output="second")
    index = cn.write_report(run, labelled, found, tmp_path / "report")
    check(index)
    text = text_of(index, "subject-0001.html")
    told = run.predict(labelled.select(labelled.subjects[:1])).iloc[0]
    assert f"{percent(told['probability_second'])} probability that" in text
    assert f"second {percent(told['probability_second'])}" in text


def test_maps_of_another_output_do_not_stand_beside(
    run, forecasting, cohort, attributions, tmp_path
):
    other = cn.explain(forecasting, cohort, subjects=cohort.subjects[:2], output="HR")
    for word in ("others", "members"):
        with pytest.raises(cn.ArgumentError, match="explain the same output"):
            cn.write_report(run, cohort, attributions, tmp_path / word, **{word: [other]})
