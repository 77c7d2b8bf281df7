import dataclasses
import functools
import inspect
import typing
from pathlib import Path

import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parent.parent
_SHAPES = jaxtyping.jaxtyped("context")


def _checked(declared=None, *, typechecker=None):
    """What `jaxtyping.jaxtyped` does to a function or a dataclass, in a tenth of the time a call.

    The import hook of jaxtyping decorates everything in the package by that name. Its own wrapper
    binds the arguments by `inspect` and checks them twice; here beartype checks them once, within
    one scope of axis names, the result with them.
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
    declared.__annotations__ = _resolved(declared)
    if typechecker is None or not declared.__annotations__:
        return declared
    inner = typechecker(declared)

    @functools.wraps(declared)
    def call(*arguments, **named):
        with _SHAPES:
            return inner(*arguments, **named)

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
