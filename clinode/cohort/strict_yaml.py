"""YAML as a person writes it: by the rules of version 1.2, and nothing that could surprise.

`1e-3` is a number, `no` is a word, `22:30` is a text. Tags, aliases and repeated keys are refused.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from clinode.errors import ArgumentError

LARGEST_BYTES = 256_000


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of names with values.

    Raises:
        ArgumentError: It is missing, or is not strict YAML; the line is named, never its text.
    """
    settings = parse_yaml(read_text(path), where=path.name)
    if not isinstance(settings, dict):
        raise ArgumentError("expected lines of the form `name: value`", where=path.name)
    return settings


def read_text(path: Path) -> str:
    """Read a file of settings as text.

    Raises:
        ArgumentError: It is missing, too large, or not UTF-8.
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
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ArgumentError(f"byte {error.start} is not UTF-8", where=path.name) from None


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


def key_lines(text: str, *, where: str) -> dict[tuple[str | int, ...], int]:
    r"""Line of every name and list entry in a text that `parse_yaml` accepts, by the way to it.

    Example:
        >>> key_lines("window: 24\nlabel:\n  any: [1, 2]", where="task.yaml")[("label", "any")]
        3
    """
    lines: dict[tuple[str | int, ...], int] = {(): 1}

    def walk(node: yaml.Node, way: tuple[str | int, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                place = (*way, key.value)
                lines[place] = key.start_mark.line + 1
                walk(value, place)
        if isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                lines[*way, number] = value.start_mark.line + 1
                walk(value, (*way, number))

    node = yaml.compose(text, Loader=_StrictLoader)
    if node is not None:
        walk(node, ())
    return lines


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
