"""A command line that may be stored or shown: what was asked, without of whom.

A recorded call says which command, options and settings made a result. Values that pick subjects
or cells are masked, paths are cut to the name of the file, and numbers as long as an identifier,
dates and addresses are masked wherever they stand.
"""

import re
import shlex
from collections.abc import Sequence

from clinode.errors import MASK, masked_text

# their values may be an identifier or a cell of the data
PICKING = ("--subject", "--only", "--pick")
_WITH_NAME = ("--only",)  # NAME=VALUE, of which the name is a column
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_QUANTITY = re.compile(_NUMBER.pattern + r"(/\d+| ?[a-zA-Z%]{1,4})?")  # a share, or with its unit


def masked_command(argv: Sequence[str]) -> str:
    """The call in one line, fit for a record that others read.

    Args:
        argv: The words after `clinode`, as `sys.argv[1:]` has them.

    Returns:
        The line with `clinode` before it, quoted as a shell wants it, but for masks. Numbers given
        to an option stay, so that seeds, times and settings can be read; a number that stands by
        itself does not.

    Example:
        >>> masked_command(["evaluate", "/home/ann/runs/death", "--subject", "12345", "--seed=7"])
        'clinode evaluate death --subject *** --seed=7'
    """
    words, option = ["clinode"], ""
    for word in argv:
        if word.startswith("-") and _NUMBER.fullmatch(word) is None and word != "-":
            option, equals, value = word.partition("=")
            words.append(option + (f"={_shown(option, value)}" if equals else ""))
            if equals:
                option = ""
        else:
            words.append(_shown(option, word))
            option = ""
    return " ".join(words)


def without_words(text: str, given: Sequence[str]) -> str:
    """A text without what was typed of whom: values that pick subjects, and ways to files.

    Args:
        text: To be shown or logged; it may repeat what was typed.
        given: The words after `clinode`.

    Example:
        >>> without_words("no column '4711' in /ann/a.csv", ["--subject", "4711", "/ann/a.csv"])
        "no column '***' in a.csv"
    """
    option = ""
    for word in given:
        if word.startswith("-"):
            option, equals, value = word.partition("=")
            if not equals:
                continue
        else:
            value = word
        if option in PICKING:
            _, equals, cell = value.partition("=")
            picked = cell if equals and option in _WITH_NAME else value
            text = _whole(picked).sub(MASK, text)
        for part in re.split(r"[=,]", value):
            if _file_name(part) != part:
                text = text.replace(part, _file_name(part))
        option = ""
    return text


def without_values(text: str, given: Sequence[str]) -> str:
    """A text of the parser of the command line without any value that was typed.

    Example:
        >>> without_values("got unexpected extra argument (Ann)", ["check", "stays", "Ann"])
        'got unexpected extra argument (***)'
    """
    for word in given:
        value = word.partition("=")[2] if word.startswith("--") else word
        if value and not value.startswith("-"):
            text = _whole(value).sub(MASK, text)
    return text


def _whole(word: str) -> re.Pattern[str]:
    """The word where it stands by itself."""
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")


def _shown(option: str, value: str) -> str:
    """What may be shown of a value that an option, or none, was given."""
    if option in PICKING:
        name, equals, _ = value.partition("=")
        return f"{name}={MASK}" if equals and option in _WITH_NAME else MASK
    if _NUMBER.fullmatch(value) is not None and not option:
        return MASK
    parts = [_file_name(part) for part in re.split(r"([=,])", value)]
    text = "".join(parts)
    return text if MASK in text and " " not in text else shlex.quote(text)


def _file_name(text: str) -> str:
    """The last name of a path, without what in it looks like an identifier."""
    if _QUANTITY.fullmatch(text) is not None:
        return text
    names = [name for name in re.split(r"[/\\]", text) if name]
    return masked_text(names[-1] if names else text)
