"""The curves of page 3: what a point stands for, and who is not shown."""

import numpy as np
import pandas as pd
import pytest

from clinode.attribution import Attributions
from clinode.attribution.checks import InsertionDeletion, SeedStability
from clinode.report.charts import Chart
from clinode.report.curves import SMALLEST, dependence, insertion, seeds, without_curves
from clinode.report.rendering import page_environment
from clinode.statistics import Estimate

SECRET = "MRN-8675309"


def attributions(n_subjects, each=6, seed=0):
    """Contributions of "lactate" are 0.5 (value - 3); of "flat" always the same."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(n_subjects):
        for hour in range(each):
            value = draw.uniform(1, 5)
            subject = f"{SECRET}-{number}"
            rows.append((subject, "observation", float(hour), "lactate", value, 0.5 * (value - 3)))
            rows.append((subject, "observation", float(hour), "flat", 7.0, 0.25))
    columns = ["subject_id", "kind", "time", "variable", "value", "attribution"]
    events = pd.DataFrame(rows, columns=columns)
    subjects = list(dict.fromkeys(events["subject_id"]))
    gates = pd.DataFrame({"subject_id": subjects, "withheld": [False] * len(subjects)})
    return Attributions(
        events=events, gates=gates, method="integrated_gradients", baseline="cohort_mean",
        outcome="died", tolerance=0.01,
    )  # fmt: skip


def shown(found):
    return dependence(found, lambda name: f"{name} (mmol/L)", "log odds", 200)


def number(text):
    return float(text.replace("−", "-").replace("+", ""))


def test_the_mean_contribution_of_a_group_lies_where_its_mean_value_says():
    figure = shown(attributions(60))
    (table,) = figure["tables"]
    assert {row[0] for row in table.rows} == {"lactate (mmol/L)"}, "one value has no dependence"
    assert len(table.rows) == 8
    values = [float(row[1]) for row in table.rows]
    assert values == sorted(values)
    for value, row in zip(values, table.rows, strict=True):
        mean, low, high = (number(part.strip("[],")) for part in row[2].split())
        assert mean == pytest.approx(0.5 * (value - 3), abs=0.06)
        assert low <= mean <= high
    assert sum(int(row[3]) for row in table.rows) == 360


def test_no_point_stands_for_fewer_subjects_than_may_be_shown():
    for n_subjects in (10, 11, 14, 23):
        figure = shown(attributions(n_subjects, each=2))
        if n_subjects <= SMALLEST:
            assert figure is None
            continue
        assert min(int(row[4]) for row in figure["tables"][0].rows) >= SMALLEST
        assert sum(int(row[3]) for row in figure["tables"][0].rows) == 2 * n_subjects


def test_values_together_have_no_value_to_depend_on():
    found = attributions(30)
    together = Attributions(**{**vars(found), "players": "variable"})
    assert shown(together) is None


def ordered(n_subjects):
    line = tuple(np.linspace(0, 1, 11).tolist())
    ways = [("delete", "insertion"), ("delete", "deletion"), ("carry", "insertion"),
            ("carry", "deletion")]  # fmt: skip
    return InsertionDeletion(
        scores={way: Estimate(0.8, 0.7, 0.9) for way in ways},
        curves={(*way, order): line for way in ways for order in ("map", "random", "greedy")},
        bands=dict.fromkeys(ways, (line, line)),
        shares=line,
        n_subjects=n_subjects,
        verdict="passed: better than a random order under every fill",
    )


def test_events_that_come_and_go_are_drawn_for_every_fill_and_hidden_for_few_subjects():
    figure = insertion(ordered(SMALLEST))
    (table,) = figure["tables"]
    assert [row[1] for row in table.rows] == ["0.80 [0.70, 0.90]"] * 4
    chart = figure["chart"]
    assert isinstance(chart, Chart)
    assert sum(mark["style"] == "band" for mark in chart.marks) == 4
    assert sum(mark["style"] == "l1" for mark in chart.marks) == 5  # with the legend
    assert insertion(ordered(SMALLEST - 1)) is None
    assert insertion(None) is None
    told = without_curves({"one": ordered(20).to_dict()})
    assert set(told["one"]) == {"scores", "n_subjects", "verdict"}


def test_seeds_are_drawn_with_their_intervals_and_an_undefined_one_is_said():
    lacking = Estimate(float("nan"), float("nan"), float("nan"), verdict="undefined: too few")
    found = SeedStability(
        ranking=lacking,
        rank_correlation=Estimate(-0.1, -0.3, 0.2),
        same_sign=Estimate(0.9, 0.8, 0.95),
        same_sign_by_size=Estimate(0.99, 0.97, 1.0),
        pairs={(0, 1): float("nan")},
        verdict="undecided: fewer than two variables moved the output",
    )
    figure = seeds(found)
    cells = dict(figure["tables"][0].rows)
    assert "undefined" in cells["Kendall's tau of variables"]
    assert cells["Same sign"].startswith("0.900")
    assert "1 pair of models" in figure["caption"]
    for told in (figure, insertion(ordered(30)), shown(attributions(40))):
        template = page_environment().get_template("chart.svg")
        svg = template.render(chart=told["chart"])
        assert "<title" in svg
        assert "<desc" in svg
        assert "nan" not in svg
        assert SECRET not in svg + told["caption"] + str(told["tables"])
        assert len(svg) < 12_000
