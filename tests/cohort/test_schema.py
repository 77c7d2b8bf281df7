import json
import re
from pathlib import Path

import jsonschema
import pytest

from clinode.cohort import VARIABLES, CohortSchema, Conversion, Variable
from clinode.cohort.schema import json_schemas
from clinode.cohort.variables import (
    OUTCOMES,
    P12_VARIABLES,
    STATICS,
    YAIB_VARIABLES,
    find_variable,
    is_identifier,
)
from clinode.errors import ArgumentError, SchemaError

DATA_SCHEMAS = Path(__file__).resolve().parents[2] / "data_schemas"
EVERY_VARIABLE = [*VARIABLES.values(), *STATICS.values(), *OUTCOMES.values()]


def test_written_json_schemas_are_those_of_the_code():
    written = {path.name: json.loads(path.read_text()) for path in DATA_SCHEMAS.glob("*.json")}
    assert written == json_schemas()


def test_the_challenge_has_37_variables_and_yaib_48():
    assert len(set(P12_VARIABLES)) == 37
    assert len(set(YAIB_VARIABLES)) == 48
    assert set(VARIABLES) == {*P12_VARIABLES, *YAIB_VARIABLES}


@pytest.mark.parametrize("variable", EVERY_VARIABLE, ids=lambda v: v.name)
def test_a_normal_value_is_possible_and_no_conversion_touches_a_possible_value(variable):
    low, high = variable.range or (float("-inf"), float("inf"))
    if variable.normal is not None:
        assert low <= variable.normal[0] <= variable.normal[1] <= high
        assert variable.normal_source
    for rule in variable.conversions:
        assert rule.high < low or rule.low > high
        converted = sorted(edge * rule.scale + rule.offset for edge in (rule.low, rule.high))
        assert low <= converted[0] + 1e-9
        assert converted[1] - 1e-9 <= high


def test_loinc_codes_carry_their_right_check_digit():
    """The digit after the hyphen is the Luhn (mod 10) digit of those before it."""
    codes = [variable.loinc for variable in EVERY_VARIABLE if variable.loinc]
    assert len(codes) > 60
    for code in codes:
        number, digit = re.fullmatch(r"([0-9]+)-([0-9])", code).groups()
        doubled = [int(d) * (2 if k % 2 == 0 else 1) for k, d in enumerate(reversed(number))]
        total = sum(d // 10 + d % 10 for d in doubled)
        assert (10 - total % 10) % 10 == int(digit), code


def test_sodium_is_a_variable_and_no_missing_token():
    assert find_variable("Na").label == "Sodium"


@pytest.mark.parametrize("name", ["RecordID", "subject_id", "hadm_id", "stay_id", "MRN"])
def test_identifiers_are_known_by_name(name):
    assert is_identifier(name)


def test_schemas_and_variables_come_back_from_their_dictionaries():
    schema = CohortSchema(
        (VARIABLES["Temp"], Variable(name="score")),
        (STATICS["gender"], STATICS["icu_type"]),
        (Variable(name="norepinephrine", unit="ug/kg/min"),),
        ("died",),
    )
    stored = json.loads(json.dumps(schema.to_dict()))
    assert CohortSchema.from_dict(stored) == schema
    jsonschema.validate(stored, json_schemas()["cohort.json"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "needs a name"),
        ({"name": "x", "kind": "strange"}, "kind 'strange' is none of"),
        ({"name": "x", "transform": "sqrt"}, "transform 'sqrt' is none of"),
        ({"name": "x", "range": (2.0, 1.0)}, "is empty"),
    ],
)
def test_a_variable_that_contradicts_itself_is_refused(fields, words):
    with pytest.raises(ArgumentError, match=words):
        Variable(**fields)


def test_a_conversion_must_not_be_empty_or_flat():
    with pytest.raises(ArgumentError, match="above its high"):
        Conversion(low=2.0, high=1.0, scale=1.0)
    with pytest.raises(ArgumentError, match="scale other than 0"):
        Conversion(low=1.0, high=2.0, scale=0.0)


def test_unknown_fields_and_repeated_names_are_refused():
    with pytest.raises(SchemaError, match="no field 'colour'"):
        Variable.from_dict({"name": "x", "colour": "red"})
    with pytest.raises(SchemaError, match="no field 'rows'"):
        CohortSchema.from_dict({"rows": []})
    with pytest.raises(ArgumentError, match="repeated among the variables"):
        CohortSchema((Variable(name="x"), Variable(name="x")))
