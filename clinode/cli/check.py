"""`clinode check`: what is in a cohort, and what became of every row of it."""

from clinode.cli.options import Answer, Data


def check(data: Data, answer: Answer) -> None:
    """Read a cohort, account for every row, and write what it looks like."""
