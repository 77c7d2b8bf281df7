import numpy as np
import pandas as pd
import pytest

from clinode.cohort import Classify, Cohort, PackedRecords, Preprocessor, read_cohort, split
from clinode.cohort.conditions import Bounds, Given, Happened, Measured, Recorded
from clinode.cohort.definition import TaskDefinition
from clinode.cohort.definition_yaml import parse_task, read_task
from clinode.cohort.exclusions import Before, FewObservations, LabelBefore, ShortStay, Static
from clinode.errors import ArgumentError, SchemaError

# subject: (hour, lactate); every record is closed by a heart rate
LACTATE = {
    1: [(10, 5.0), (31, 4.0), (40, 4.1)],  # high within (30, 54], and before
    2: [(30, 9.0), (54, 3.0)],  # high at 30, which the label does not read; 54 belongs to it
    3: [(54, 4.5)],  # at the last hour
    4: [(54.1, 9.0)],  # behind it: not measured within
    5: [(35, 1.0)],  # normal, but the record ends at 50
    6: [],  # never measured
}
END = {1: 60, 2: 60, 3: 60, 4: 60, 5: 50, 6: 20}
YAML = """
name: shock
index: 0
window: 24
gap: 6
horizon: 24
label: {variable: Lactate, above: 4, unit: mmol/L}
exclude:
  - {stay_below: 30}
  - {static: age, below: 18}
"""


def make_tables() -> dict:
    rows = [(s, t, "Lactate", v) for s, held in LACTATE.items() for t, v in held]
    rows += [(s, t, "HR", 80.0) for s, end in END.items() for t in (1.0, float(end))]
    age = [70.0, 17.0, 50.0, np.nan, 30.0, 40.0]
    return {
        "observations": pd.DataFrame(rows, columns=["subject_id", "time", "variable", "value"]),
        "statics": pd.DataFrame({"subject_id": range(1, 7), "age": age}),
        "inputs": pd.DataFrame(
            {
                "subject_id": [1, 3, 4],
                "start": [20.0, 54.0, 12.0],
                "end": [70.0, np.nan, 13.0],
                "variable": ["norepinephrine", "norepinephrine", "insulin"],
                "value": [0.1, 0.2, 4.0],
            }
        ),
        "outcomes": pd.DataFrame(
            {
                "subject_id": range(1, 7),
                "died": [1, 0, 0, np.nan, 0, 1],
                "death_hours": [40.0, np.nan, 28.0, 12.0, 54.0, 54.5],
            }
        ),
    }


def cohort_of(tables: dict | None = None) -> Cohort:
    return Cohort.from_tables(**(tables or make_tables()))


def labels(definition: TaskDefinition, cohort: Cohort | None = None) -> list[float]:
    """One a subject, in order; NaN where unknown."""
    outcomes = definition.define(cohort or cohort_of()).cohort.outcomes
    return outcomes[definition.name].tolist()


def timed(*label, **changes) -> TaskDefinition:
    return TaskDefinition(name="y", label=label, window=24.0, gap=6.0, horizon=24.0, **changes)


HIGH = Measured(variable="Lactate", bounds=Bounds(above=4.0))


def test_a_label_reads_the_hours_behind_the_gap_up_to_the_horizon_and_no_others():
    unknown = np.nan
    np.testing.assert_array_equal(labels(timed(HIGH)), [1, 0, 1, unknown, unknown, unknown])
    assumed = timed(HIGH, unmeasured="negative")
    np.testing.assert_array_equal(labels(assumed), [1, 0, 1, 0, unknown, unknown])
    dropped = timed(HIGH, unmeasured="negative", record_ends="negative")
    np.testing.assert_array_equal(labels(dropped), [1, 0, 1, 0, 0, 0])


def test_each_kind_of_label_has_its_own_idea_of_no():
    began = Given(input="norepinephrine")
    np.testing.assert_array_equal(labels(timed(began)), [0, 0, 1, 0, np.nan, np.nan])
    death = Happened(time_of="death_hours")  # at 28 h within the gap, at 12 h before: unknown
    np.testing.assert_array_equal(labels(timed(death)), [1, 0, np.nan, np.nan, 1, 0])
    plain = TaskDefinition(name="y", label=(Recorded(outcome="died"),), window=24.0)
    np.testing.assert_array_equal(labels(plain), [1, 0, 0, np.nan, 0, 1])
    twice = Measured(variable="Lactate", bounds=Bounds(at_least=4.0), times=2)
    np.testing.assert_array_equal(labels(timed(twice))[:3], [1, 0, 0])


def test_any_and_all_leave_unknown_what_is_not_decided():
    began = Given(input="norepinephrine")
    either, both = timed(HIGH, began), timed(HIGH, began, need="all")
    np.testing.assert_array_equal(labels(either), [1, 0, 1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(labels(both), [0, 0, 1, 0, np.nan, np.nan])


def test_the_flow_counts_every_rule_in_order_and_adds_up(tmp_path):
    path = tmp_path / "shock.yaml"
    path.write_text(YAML)
    defined = read_task(path).define(cohort_of())
    assert defined.task == Classify("shock", at=24.0)
    found = [
        (s.rule, s.n_subjects_out, s.n_subjects_left, s.looks_ahead) for s in defined.flow.steps
    ]
    assert found == [
        ("in the cohort", 0, 6, False),
        ("stay below 30 h", 1, 5, True),  # subject 6; behind the prediction time: said so
        ("age below 18", 1, 4, False),  # subject 2; a missing age stays
    ]
    flow = defined.flow
    assert (flow.n_positive, flow.n_negative, flow.n_unknown) == (2, 0, 2)
    assert defined.cohort.subjects.tolist() == [1, 3, 4, 5]
    table = flow.to_pandas()
    assert table["n_left"].tolist() == [6, 5, 4, 2, 0, 2]
    assert table["n_left"].iloc[-3:].sum() == flow.steps[-1].n_left
    assert flow.to_dict()["n_unknown"] == 2


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        (ShortStay(stay_below=24.0), [1, 2, 3, 4, 5]),
        (Static(static="age", missing=True), [1, 2, 3, 5, 6]),
        (Static(static="age", levels=(70.0, 17.0)), [3, 4, 5, 6]),
        (Before(condition=Measured(variable="Lactate"), missing=True), [1]),
        (Before(condition=HIGH), [2, 3, 4, 5, 6]),
        (Before(condition=Given(input="norepinephrine")), [2, 3, 4, 5, 6]),
        (FewObservations(observations_below=2), [1, 6]),
        (LabelBefore(), [2, 3, 4, 5, 6]),
    ],
)
def test_an_exclusion_takes_away_whom_it_names(rule, left):
    defined = timed(HIGH, exclude=(rule,)).define(cohort_of())
    assert defined.cohort.subjects.tolist() == left


def test_the_index_time_may_be_the_first_of_an_event():
    definition = TaskDefinition(
        name="y", label=(HIGH,), index=Given(input="norepinephrine"), window=2.0, horizon=18.0
    )
    defined = definition.define(cohort_of())
    assert defined.cohort.outcomes["prediction_time"].tolist() == [22.0, 56.0]
    assert defined.cohort.outcomes["y"].iloc[0] == 1.0  # 40 lies in (22, 40]
    assert defined.task == Classify("y")
    assert defined.flow.steps[1].rule == "no index: norepinephrine given"
    assert defined.flow.steps[1].n_subjects_out == 4


def test_prediction_times_go_on_until_the_event_or_the_end_of_the_record():
    definition = TaskDefinition(name="y", label=(HIGH,), window=12.0, every=12.0, horizon=12.0)
    defined = definition.define(cohort_of())
    outcomes = defined.cohort.outcomes
    times = {s: part["prediction_time"].tolist() for s, part in outcomes.groupby("subject_id")}
    assert times == {
        # subject 1 was high at 10 h, before the first prediction time
        2: [12.0, 24.0],
        3: [12.0, 24.0, 36.0, 48.0],
        4: [12.0, 24.0, 36.0, 48.0],
        5: [12.0, 24.0, 36.0, 48.0],
        6: [12.0],
    }
    held = outcomes.set_index(["subject_id", "prediction_time"])["y"]
    assert held[2, 24.0] == 1.0
    assert held[3, 48.0] == 1.0
    assert held[4, 48.0] == 1.0
    assert np.isnan(held[3, 12.0])  # not measured within (12, 24]
    assert np.isnan(held[5, 48.0])  # the record ends at 50
    assert held[5, 24.0] == 0.0
    assert defined.flow.steps[-1].rule == "the event came by the prediction time"
    short = TaskDefinition(
        name="y", label=(HIGH,), window=12.0, every=12.0, until=24.0, horizon=12.0
    )
    assert short.define(cohort_of()).cohort.outcomes["prediction_time"].max() == 24.0


def test_labels_read_nothing_by_the_prediction_time_and_features_nothing_after_it():
    tables = make_tables()
    definition = timed(HIGH, unmeasured="negative", record_ends="negative")
    defined = definition.define(cohort_of(tables))
    schema = Preprocessor.fit(defined.cohort, defined.task)

    def read(cohort: Cohort):
        records = PackedRecords.build(cohort, schema, defined.task)
        batch = records.batch(np.arange(len(records)))
        return batch.value.numpy(), batch.time.numpy(), records.target

    plain_value, plain_time, plain_label = read(defined.cohort)
    generator = np.random.default_rng(0)
    observations = tables["observations"]
    lactate = observations["variable"] == "Lactate"
    early, late = observations["time"] <= 30.0, observations["time"] > 24.0
    past = observations.copy()  # edits at or before the prediction time and in the gap
    past.loc[early & lactate, "value"] = generator.uniform(0.5, 9, (early & lactate).sum())
    _, _, label = read(definition.define(cohort_of({**tables, "observations": past})).cohort)
    np.testing.assert_array_equal(label, plain_label)
    future = observations.copy()  # edits after the prediction time
    future.loc[late & lactate, "value"] = generator.uniform(0.5, 9, (late & lactate).sum())
    value, time, label = read(
        definition.define(cohort_of({**tables, "observations": future})).cohort
    )
    np.testing.assert_array_equal(value, plain_value)
    np.testing.assert_array_equal(time, plain_time)
    assert (label != plain_label).any()  # so the edits were not idle
    behind = observations.copy()  # edits behind the horizon
    behind.loc[behind["time"] > 54.0, "value"] = 1.0
    _, _, label = read(definition.define(cohort_of({**tables, "observations": behind})).cohort)
    np.testing.assert_array_equal(label, plain_label)


def test_a_defined_cohort_is_split_saved_and_read_like_any_other(tmp_path):
    cohort = timed(HIGH).define(cohort_of()).cohort
    parts = split(cohort, (0.5, 0.5))
    assert sum(len(part.outcomes) for part in parts) == 6
    assert cohort.schema.outcomes == ("y",)
    cohort.save(tmp_path / "defined")
    again = read_cohort(tmp_path / "defined")
    pd.testing.assert_frame_equal(again.outcomes, cohort.outcomes)
    assert again.schema == cohort.schema
    assert again.fingerprint() == cohort.fingerprint()


def test_the_whole_language_is_read():
    definition = parse_task(
        """
        name: shock
        index: {input: norepinephrine, above: 0.05}
        window: 6
        gap: 1
        horizon: 12
        every: 6
        until: 96
        unmeasured: negative
        record_ends: unknown
        label:
          all:
            - {variable: Lactate, above: 4, unit: mmol/L, times: 2}
            - {variable: MAP, below: 65, at_least: 20}
            - {input: norepinephrine}
            - {time_of: death_hours}
        exclude:
          - {stay_below: 30}
          - {static: age, below: 18}
          - {static: sex, levels: [unknown, 3]}
          - {variable: Creatinine, missing: true}
          - {input: insulin}
          - {observations_below: 5}
          - {event_before: true}
        """
    )
    assert definition == TaskDefinition(
        name="shock",
        index=Given(input="norepinephrine", bounds=Bounds(above=0.05)),
        window=6.0,
        gap=1.0,
        horizon=12.0,
        every=6.0,
        until=96.0,
        unmeasured="negative",
        need="all",
        label=(
            Measured(variable="Lactate", bounds=Bounds(above=4.0), times=2, unit="mmol/L"),
            Measured(variable="MAP", bounds=Bounds(below=65.0, at_least=20.0)),
            Given(input="norepinephrine"),
            Happened(time_of="death_hours"),
        ),
        exclude=(
            ShortStay(stay_below=30.0),
            Static(static="age", bounds=Bounds(below=18.0)),
            Static(static="sex", levels=("unknown", 3)),
            Before(condition=Measured(variable="Creatinine"), missing=True),
            Before(condition=Given(input="insulin")),
            FewObservations(observations_below=5),
            LabelBefore(),
        ),
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("horizont: 3", "line 3, horizont: there is no key 'horizont' here. Fix: did you mean 'ho"),
        ("window: 24 h", "line 3, window: expected a number"),
        ("window: true", "line 3, window: expected a number"),
        ("window:", "line 3, window: there is no value"),
        ("window: -1", "line 1, window must be hours of at least 0"),
        ("horizon: 4", "line 1, an outcome without a time cannot lie within gap and horizon"),
        ("every: 4", "an outcome without a time"),
        ("until: 4", "until says when"),
        ("unmeasured: maybe", "unmeasured must be 'unknown' or 'negative'"),
        ("name: twice", "a name is repeated at line 3"),
        ("gap: *a", "aliases are not allowed at line 3"),
        ("exclude: [{static: a, levels: [true]}]", r"levels\[1\]: expected a number or a text"),
        ("exclude: []", "line 3, exclude: expected a list"),
        ("exclude: {stay_below: 3}", "line 3, exclude: expected a list"),
        (
            "exclude: [{stay_bellow: 3}]",
            r"line 3, exclude\[1\]: none of .* did you mean 'stay_below'",
        ),
        ("exclude: [{static: a, variable: b}]", r"line 3, exclude\[1\]: two kinds of rule in one"),
        ("exclude: [{static: a}]", r"line 3, exclude\[1\]: static 'a': expected bounds, or levels"),
        ("exclude: [{static: a, missing: false}]", r"line 3, exclude\[1\].missing: expected true"),
        ("exclude: [{observations_below: 2.5}]", "expected a whole number"),
        ("exclude: [{variable: a, above: 3, below: 2}]", "no value lies within these bounds"),
        ("exclude: [{variable: a, above: 3, at_least: 2}]", "one side is bounded twice"),
        ("exclude: [{variable: a, above: 3, missing: true}]", "missing stands beside a bound"),
        ("index: {variable: a, times: 2}", "line 3, index: an index time is that of one event"),
        ("index: soon", "line 3, index: expected a number"),
    ],
)
def test_yaml_that_says_nothing_clear_is_refused_with_line_and_key(line, words):
    with pytest.raises(ArgumentError, match=words):
        parse_task(f"name: death\nlabel: {{outcome: died}}\n{line}", where="task.yaml")


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("{variable: a}", "the label has a time and no horizon"),
        ("{any: []}", "line 2, label.any: expected a list"),
        ("{any: [{outcome: a}], all: [{outcome: a}]}", "line 2, label: expected `any` or `all`"),
        ("{any: [{outcome: a, above: 3}]}", r"label.any\[1\].above: there is no key 'above'"),
        ("{stay_below: 3}", "line 2, label: none of variable, input, outcome, time_of is named"),
        ("died", "line 2, label: expected one of"),
        ("3", "line 2, label: expected one of"),
        ("{variable: 3}", "line 2, label.variable: expected a text"),
        ("{variable: a, times: 0}", "line 2, label: times must be at least 1"),
    ],
)
def test_a_label_that_says_nothing_clear_is_refused(label, words):
    with pytest.raises(ArgumentError, match=words):
        parse_task(f"name: death\nlabel: {label}")


@pytest.mark.parametrize("text", ["", "- a", "name: death", "3", "!!python/object:os.system {}"])
def test_a_file_that_is_no_definition_is_refused(text):
    with pytest.raises(ArgumentError, match="task: "):
        parse_task(text)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Measured(variable="Lactat"), "no variable 'Lactat'. Fix: did you mean 'Lactate'"),
        (Measured(variable="Lactate", unit="mg/dL"), "is in 'mmol/L', and the task says 'mg/dL'"),
        (Given(input="noradrenaline"), "no input 'noradrenaline'"),
        (Happened(time_of="death"), "no outcome column 'death'. Fix: did you mean 'death_hours'"),
        (Recorded(outcome="death_hours"), "'death_hours': expected 0, 1 or nothing, 5 rows"),
    ],
)
def test_a_cohort_that_lacks_what_the_task_names_is_refused(part, words):
    with pytest.raises(SchemaError, match=words):
        timed(part, Given(input="insulin")).define(cohort_of())


def test_a_task_that_leaves_nobody_is_refused():
    with pytest.raises(SchemaError, match="leaves nobody"):
        timed(HIGH, exclude=(ShortStay(stay_below=900.0),)).define(cohort_of())
