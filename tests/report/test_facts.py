import dataclasses

import pytest

from clinode.cli.settings import fill
from clinode.errors import ArgumentError
from clinode.report import ModelFacts


def test_every_field_is_told_of_in_the_docstring():
    for entry in dataclasses.fields(ModelFacts):
        assert entry.name in str(ModelFacts.__doc__)


def test_what_is_said_comes_in_one_line_without_control_characters():
    facts = ModelFacts(intended_use="  For\n\tteaching \u202eonly ")
    assert facts.said("intended_use") == "For teaching \\u202eonly"
    assert facts.said("contact") is None
    assert ModelFacts(contact=" \n ").said("contact") is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"intended_user": "nurses"}, "did you mean 'intended_users'"),
        ({"intended_use": 3}, "'intended_use': input should be a valid string"),
        ({"threshold": 1.5}, "threshold must be a risk inside"),
        ({"threshold": 0}, "threshold must be a risk inside"),
        ({"threshold": "high"}, "'threshold': input should be a valid number"),
        ({"lowest_threshold": 0.6}, "must lie below highest_threshold"),
        ({"risks": "x" * 5000}, "5,000 characters"),
    ],
)
def test_a_fact_that_no_page_can_print_is_refused_in_words(values, words):
    with pytest.raises(ArgumentError, match=words):
        fill(ModelFacts, values, where="facts.yaml")
