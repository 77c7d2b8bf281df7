import pytest

from clinode.cohort.strict_yaml import parse_yaml, read_yaml
from clinode.errors import ArgumentError


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-2", -2),
        ("007", 7.0),
        ("0123", 123.0),
        ("22:30", "22:30"),
        ("NO", "NO"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("2026-01-02", "2026-01-02"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ('"1e-3"', "1e-3"),
        ("nan", "nan"),
        (".inf", ".inf"),
    ],
)
def test_a_word_means_what_it_looks_like(text, meaning):
    found = parse_yaml(f"a: {text}", where="x.yaml")["a"]
    assert found == meaning
    assert type(found) is type(meaning)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", "a name is repeated at line 2"),
        ("a: &x [1]\nb: *x", "aliases are not allowed at line 2"),
        ("a: !!python/object/apply:os.system [true]", "tags are not allowed at line 1"),
        ("a: !!str 5", "tags are not allowed"),
        ("a: [1, 2", "not valid YAML"),
        ("[1, 2]: 3", "a name must be one word"),
        ("a: " + "[" * 5000, "nested too deeply|not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
    ],
)
def test_what_settings_must_not_hold_is_refused_with_its_line(text, words):
    with pytest.raises(ArgumentError, match=words):
        parse_yaml(text, where="x.yaml")


def test_a_file_that_is_missing_not_utf8_or_no_table_of_names_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"x\.yaml: the file cannot be read"):
        read_yaml(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ArgumentError, match="byte 3 is not UTF-8"):
        read_yaml(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_text("- 1\n- 2\n", encoding="utf-8")
    with pytest.raises(ArgumentError, match="expected lines of the form"):
        read_yaml(tmp_path / "x.yaml")
