import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import clinode

SOURCE = ast.parse(Path(clinode.__file__).read_text(encoding="utf-8"))


def names_that_type_checkers_see() -> set[str]:
    guard = next(node for node in SOURCE.body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name
        for statement in guard.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }


@pytest.mark.parametrize("name", clinode.__all__)
def test_every_promised_name_is_importable_from_the_package(name):
    assert getattr(clinode, name) is not None
    assert name in dir(clinode)


def test_people_and_type_checkers_see_the_same_names():
    assert set(clinode.__all__) == names_that_type_checkers_see()


@pytest.mark.parametrize("room", ["cohort", "dynamics", "sequence", "training", "attribution"])
def test_a_room_lists_only_names_that_it_holds(room):
    module = importlib.import_module(f"clinode.{room}")
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="gramiann"):
        _ = clinode.gramiann  # pyright: ignore[reportAttributeAccessIssue]  # it must not exist


def test_importing_the_package_loads_no_heavy_dependency():
    code = (
        "import sys, clinode; heavy = ('torch', 'pandas', 'numpy', 'matplotlib', 'duckdb'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"
