"""Text becomes settings: strict YAML, `--set name=value`, and the dataclasses they fill.

YAML is read by the rules of version 1.2: `1e-3` is a number, `no` is a word, `22:30` is a text.
Tags, aliases and repeated keys are refused, and an unknown key gets the nearest real one.
"""

import dataclasses
import difflib
import json
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from clinode.errors import ArgumentError

Settings = TypeVar("Settings")
LARGEST_BYTES = 256_000


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a settings file.

    Raises:
        ArgumentError: It is missing, or is not strict YAML; the line is named, never its text.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ArgumentError(
            f"the file cannot be read ({error.strerror})", where=path.name, fix="check the path"
        ) from None
    if len(raw) > LARGEST_BYTES:
        raise ArgumentError(f"{len(raw):,} bytes are no settings file", where=path.name)
    try:
        settings = parse_yaml(raw.decode(), where=path.name)
    except UnicodeDecodeError as error:
        raise ArgumentError(f"byte {error.start} is not UTF-8", where=path.name) from None
    if not isinstance(settings, dict):
        raise ArgumentError("expected lines of the form `name: value`", where=path.name)
    return settings


def parse_yaml(text: str, *, where: str) -> Any:
    """What a text of strict YAML says.

    Raises:
        ArgumentError: It is not strict YAML.

    Example:
        >>> parse_yaml("{rate: 1e-3, at: 22:30, answer: no}", where="--set")
        {'rate': 0.001, 'at': '22:30', 'answer': 'no'}
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" at line {mark.line + 1}"
        why = error.problem if isinstance(error, _Refused) else "not valid YAML"
        raise ArgumentError(f"{why}{place}", where=where) from None
    except RecursionError:
        raise ArgumentError("it is nested too deeply", where=where) from None


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


class _Refused(yaml.constructor.ConstructorError):
    """Valid YAML that settings must not hold."""


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.2 scalars; no tags, no aliases, no repeated keys."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # so does its parent; those of 1.1 are left behind

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(problem="aliases are not allowed", problem_mark=event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise _Refused(problem="tags are not allowed", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        return float(node.value)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Refused(problem="a name must be one word", problem_mark=key.start_mark)
            if key.value in seen:
                raise _Refused(problem="a name is repeated", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _letters in (
    ("null", r"null|~|", ["n", "~", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _StrictLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _letters
    )
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _StrictLoader.construct_yaml_float)
