"""`clinode demo`: the whole way on simulated patients whose causes are known."""

from pathlib import Path
from typing import Annotated

import typer

from clinode.cli.options import Answer


def demo(
    answer: Answer, out: Annotated[Path, typer.Argument(metavar="[OUT]")] = Path("clinode-demo")
) -> None:
    """Simulate."""
