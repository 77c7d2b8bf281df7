"""Every error that a user can cause or meet, in one shape.

An error says where it happened, what is wrong, what to do, and what was lost. Messages name
files, rows, columns, trajectories and counts; never a patient's value, identifier or date. The
command line turns `exit_code` into its exit status.
"""

import re
import unicodedata


class ClinodeError(Exception):
    """What went wrong, told to a person.

    Args:
        problem: What was expected and what came, in one sentence.
        where: File, row, column, subject ordinal or trajectory; empty where the call itself is
            at fault.
        fix: What to do about it.
        lost: What did not survive; "nothing" is the rule.
    """

    code = "CLN-000"
    exit_code = 5

    def __init__(self, problem: str, *, where: str = "", fix: str = "", lost: str = "nothing"):
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.fix = fix
        self.lost = lost

    def __str__(self) -> str:
        text = f"{self.where}: {self.problem}" if self.where else self.problem
        if self.fix:
            text += f". Fix: {self.fix}"
        if self.lost != "nothing":
            text += f". Lost: {self.lost}"
        return printable(text)

    def to_dict(self) -> dict[str, str]:
        return {
            "code": self.code,
            "error": type(self).__name__,
            "where": self.where,
            "problem": self.problem,
            "fix": self.fix,
            "lost": self.lost,
        }


class ArgumentError(ClinodeError, ValueError):
    """A call that cannot be carried out as it was made."""

    code = "CLN-A01"
    exit_code = 2


class OutputError(ClinodeError):
    """An output folder that is read-only, or holds something else."""

    code = "CLN-A02"
    exit_code = 2


class SchemaError(ClinodeError):
    """Data that break their contract."""

    code = "CLN-D01"
    exit_code = 3


class CheckpointError(ClinodeError):
    """A stored run or checkpoint that is truncated, altered, or made for something else."""

    code = "CLN-C01"
    exit_code = 3


class SolverError(ClinodeError):
    """Numerics that failed: a solve, a search or a fit that did not arrive."""

    code = "CLN-N01"
    exit_code = 4


class ResourceError(ClinodeError):
    """Disk or memory that ran out."""

    code = "CLN-R01"
    exit_code = 6


class Interrupted(ClinodeError):
    """A run stopped by Ctrl-C or SIGTERM, which can be resumed."""

    code = "CLN-R02"
    exit_code = 75


def printable(text: object) -> str:
    r"""Text in one line, with every control and direction-changing character spelled out.

    Names of files, columns and variables come from data; they must not move a cursor, color a
    terminal, start a line of a log, or reorder one on a page. One of a megabyte is cut, in words.

    Example:
        >>> print(printable("heart\x1b[31m rate"))
        heart\u001b[31m rate
    """
    letters = str(text)
    rest = len(letters) - _LONGEST
    shown = spelled_out(letters[:_LONGEST])
    return f"{shown}… ({rest:,} more characters)" if rest > 0 else shown


def spelled_out(text: str) -> str:
    """As `printable`, however long it is."""
    return "".join(
        f"\\u{ord(letter):04x}" if unicodedata.category(letter) in _UNPRINTABLE else letter
        for letter in text
    )


def masked_text(text: str) -> str:
    """Text with what looks like an address, a date or an identifier masked.

    Example:
        >>> masked_text("labs of MRN-8675309, 2031-04-01")
        'labs of ***, ***'
    """
    return _TELLING.sub(MASK, text)


MASK = "***"
_TELLING = re.compile(
    r"[^\s/\\]+@[^\s/\\]+\.[^\s/\\]+"  # an address
    r"|(?<!\d)(\d{4}([-./])\d{1,2}\2\d{1,2}|\d{1,2}([-./])\d{1,2}\3\d{4}|\d{1,2}/\d{1,2}/\d\d)"
    r"([T ]\d{1,2}:\d{2}(:\d{2})?)?(?!\d)"  # a date, and a time of day after it
    r"|[A-Za-z]*[-_#]?(?<![\d.])\d(?:-?\d){4,}"  # five digits, with the letters before them
)
_LONGEST = 4000  # characters: no name, and most paragraphs, are longer
_UNPRINTABLE = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}  # categories of Unicode
