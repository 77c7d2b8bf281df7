"""Text becomes settings: strict YAML, `--set name=value`, and the dataclasses they fill.

An unknown name gets the nearest real one.
"""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from clinode.cohort.strict_yaml import parse_yaml
from clinode.errors import ArgumentError

Settings = TypeVar("Settings")


def with_changes(settings: Mapping[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """The settings with each `name=value` put in its place; a dot leads into a section.

    Raises:
        ArgumentError: A change is not of that form.

    Example:
        >>> with_changes({"fit": {"epochs": 5}}, ["fit.epochs=3", "seed=7"])
        {'fit': {'epochs': 3}, 'seed': 7}
    """
    changed = {k: dict(v) if isinstance(v, Mapping) else v for k, v in settings.items()}
    for change in changes:
        name, equals, text = change.partition("=")
        *sections, last = name.strip().split(".")
        if not equals or not all([*sections, last]):
            raise ArgumentError(f"expected name=value, got {change!r}", where="--set")
        place = changed
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ArgumentError(f"{section!r} is not a section", where="--set")
        place[last] = parse_yaml(text, where="--set")
    return changed


def fill(kind: type[Settings], values: Mapping[str, Any], *, where: str) -> Settings:
    """A settings dataclass filled and checked.

    Raises:
        ArgumentError: A name is unknown (the nearest one is named), or a value is of another type
            or outside of its meaning.
    """
    names = [entry.name for entry in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]  # only dataclasses come here
    check_names(values, names, where=where)
    try:
        return TypeAdapter(kind).validate_json(json.dumps(dict(values)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ArgumentError):
            raise ArgumentError(cause.problem, where=where, fix=cause.fix) from None
        name = ".".join(map(str, first["loc"]))
        message = first["msg"][:1].lower() + first["msg"][1:]
        raise ArgumentError(f"{name!r}: {message}", where=where) from None


def check_names(values: Iterable[str], known: Iterable[str], *, where: str) -> None:
    """Refuse a name that does not exist, with the nearest one that does.

    Raises:
        ArgumentError: A name is unknown.
    """
    known = list(known)
    for name in values:
        if name not in known:
            nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            fix = f"did you mean {nearest[0]!r}?" if nearest else f"choose among {', '.join(known)}"
            raise ArgumentError(f"there is no setting {name!r}", where=where, fix=fix)
