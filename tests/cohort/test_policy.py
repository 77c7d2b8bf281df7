import pytest

from clinode.cohort import Conversion, Policy
from clinode.errors import ArgumentError

POLICY = Policy(
    sentinels={"*": (-1.0,), "HR": (999.0,)},
    ranges={"HR": (20.0, 250.0), "Temp": None, "CRP": (0.0, float("inf"))},
    conversions={"K": (Conversion(low=20.0, high=80.0, scale=0.1, reason="tenfold"),)},
    rename={"pulse rate": "HR"},
    leave_out=("comment",),
    statics=("smoker",),
    strict=True,
)


def test_a_policy_comes_back_from_its_yaml(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("# edited by a person\n" + POLICY.to_yaml(), encoding="utf-8")
    assert Policy.read(path) == POLICY


def test_a_policy_of_one_field_leaves_the_rest_as_it_is(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("sentinels:\n  HR: [1e3]\n", encoding="utf-8")
    assert Policy.read(path) == Policy(sentinels={"HR": (1000.0,)})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sentinel: {}\n", "no field 'sentinel'"),
        ("strict: maybe\n", "does not hold what it should"),
        ("ranges: {HR: [1]}\n", "does not hold what it should"),
        ("sentinels: {HR: [many]}\n", "does not hold what it should"),
        ("- 1\n", "expected lines of the form"),
        ("strict: true\nstrict: false\n", "a name is repeated at line 2"),
        ("leave_out: &x [a]\nstatics: *x\n", "aliases are not allowed at line 2"),
        ("strict: !!python/object/apply:os.getcwd []\n", "tags are not allowed"),
        ("leave_out: [a\n", "not valid YAML at line"),
    ],
)
def test_a_policy_file_that_is_wrong_is_refused_by_name(tmp_path, text, words):
    path = tmp_path / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ArgumentError, match=words) as caught:
        Policy.read(path)
    assert caught.value.where == "policy.yaml"


def test_a_policy_file_must_be_there_and_be_text(tmp_path):
    with pytest.raises(ArgumentError, match="cannot be read"):
        Policy.read(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"leave_out: [caf\xe9]\n")
    with pytest.raises(ArgumentError, match="byte 15 is not UTF-8"):
        Policy.read(tmp_path / "latin.yaml")


def test_an_empty_range_is_refused():
    with pytest.raises(ArgumentError, match="range of 'HR' is empty"):
        Policy(ranges={"HR": (5.0, 5.0)})
