"""The words after `clinode`: options in any place, and a helpful no to those that do not exist."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clinode.errors import ArgumentError


def in_order(command: Any, given: Sequence[str], examples: Mapping[str, str]) -> list[str]:
    """The words with the command's name first, so that its options may also stand before it.

    Args:
        command: The group that typer made.
        given: The words after `clinode`.
        examples: A call that works, by name of command.

    Raises:
        ArgumentError: There is no such command, or the command has no such option; the nearest
            one is named, and a call that works.
    """
    if not given:
        return ["--help"]
    takes_value = {
        option: not parameter.is_flag
        for one in command.commands.values()
        for parameter in _options(one)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    place = _first_word(given, takes_value)
    own = {"--help", "-h", "--version"}
    if place is None:
        unknown = [word for word in _option_names(given, takes_value) if word not in own]
        if unknown and unknown[0] not in takes_value:
            raise _no_such_option(unknown[0], "clinode", own | set(takes_value), examples["demo"])
        if not unknown:
            return list(given)
        raise ArgumentError(
            f"option {unknown[0]} needs a command", fix=f"try: {next(iter(examples.values()))}"
        )
    name = given[place]
    if name not in command.commands:
        nearest = difflib.get_close_matches(name, command.commands, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        example = examples[nearest[0]] if nearest else "clinode --help"
        raise ArgumentError(f"there is no command {name!r}", fix=f"{hint}Try: {example}")
    rest = [*given[:place], *given[place + 1 :]]
    known = {
        option
        for parameter in _options(command.commands[name])
        for option in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help", "-h"}
    for option in _option_names(rest, takes_value):
        if option == "--version" or option in known:
            continue
        raise _no_such_option(option, f"clinode {name}", known, examples[name])
    return [name, *rest]


def _options(command: Any) -> list[Any]:
    return [one for one in command.params if one.param_type_name == "option"]


def _first_word(given: Sequence[str], takes_value: Mapping[str, bool]) -> int | None:
    """Position of the first word that is neither an option nor the value of one."""
    skip = False
    for place, word in enumerate(given):
        if skip:
            skip = False
        elif word.startswith("-") and word != "-":
            skip = "=" not in word and takes_value.get(word, False)
        else:
            return place
    return None


def _option_names(given: Sequence[str], takes_value: Mapping[str, bool]) -> Iterator[str]:
    skip = False
    for word in given:
        if skip:
            skip = False
        elif word == "--":
            return
        elif word.startswith("-") and word != "-":
            yield word.split("=")[0]
            skip = "=" not in word and takes_value.get(word, False)


def _no_such_option(option: str, who: str, known: set[str], example: str) -> ArgumentError:
    nearest = difflib.get_close_matches(option, sorted(known), n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return ArgumentError(f"{who} has no option {option}", fix=f"{hint}Try: {example}")
