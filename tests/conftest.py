import dataclasses
import functools
import inspect
import typing
from pathlib import Path

import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parent.parent
FIRST_CALLS, EVERY = 20, 50
_SHAPES = jaxtyping.jaxtyped("context")
_CALLS: dict[object, int] = {}  # of each function since the test began


def _checked(declared=None, *, typechecker=None):
    """What `jaxtyping.jaxtyped` does to a function or a dataclass, in a tenth of the time a call.

    The import hook of jaxtyping decorates everything in the package by that name. Its own wrapper
    binds the arguments by `inspect` and checks them twice; here beartype checks them once, within
    one scope of axis names, the result with them. Of a function that a test calls over and over, a
    field in a solver say, the first calls are checked and every fiftieth after them: all of them
    would take as long as the tests themselves.
    """
    if declared is None:
        return functools.partial(_checked, typechecker=typechecker)
    again = functools.partial(_checked, typechecker=typechecker)
    if isinstance(declared, (classmethod, staticmethod)):
        return type(declared)(again(declared.__func__))
    if isinstance(declared, property):
        parts = (declared.fget, declared.fset, declared.fdel)
        return property(*(part and again(part) for part in parts))
    if inspect.isclass(declared):
        if dataclasses.is_dataclass(declared) and "__init__" in vars(declared):
            declared.__init__ = again(declared.__init__)
        return declared
    if typechecker is None or not declared.__annotations__:
        return declared
    checked, key = None, object()

    @functools.wraps(declared)
    def call(*arguments, **named):
        nonlocal checked
        n = _CALLS[key] = _CALLS.get(key, 0) + 1
        if n > FIRST_CALLS and n % EVERY:
            return declared(*arguments, **named)
        if checked is None:  # a checker takes a millisecond to make; most functions are not called
            declared.__annotations__ = _resolved(declared)
            checked = typechecker(declared)
        with _SHAPES:
            return checked(*arguments, **named)

    return call


def _resolved(function) -> dict:
    """Annotations of a function, without those that name what only a type checker imports."""
    found = {}
    for name, hint in function.__annotations__.items():
        alone = type("alone", (), {"__annotations__": {"value": hint}})
        try:
            hints = typing.get_type_hints(alone, function.__globals__, include_extras=True)
        except (NameError, AttributeError):
            continue
        found[name] = hints["value"]
    return found


# before any module of the package is imported; the rest of the session is decorated by it
jaxtyping.jaxtyped = _checked


def pytest_runtest_setup():
    _CALLS.clear()


def pytest_addoption(parser):
    parser.addoption(
        "--data",
        default=str(ROOT / "data"),
        metavar="DIR",
        help="folder with the open data sets that some tests read (default: data/ in the checkout)",
    )
    parser.addoption(
        "--axe",
        metavar="FILE",
        help="axe.min.js of the npm package axe-core, for the tests that ask it about report pages",
    )


@pytest.fixture(scope="session")
def data_dir(request) -> Path:
    """The folder of open data sets; a test that asks for it is skipped in words without it."""
    folder = Path(request.config.getoption("--data"))
    if not folder.is_dir():
        pytest.skip("no data folder: pass --data=DIR to run the tests on open data sets")
    return folder.resolve()
