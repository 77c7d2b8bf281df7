"""Matplotlib figures as self-contained, deterministic SVG pictures.

No date, no random identifier, no address in the file: the same numbers give the same bytes.
"""

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.figure import Figure

INK, QUIET, LINE, RAISE, LOWER = "#1b1f24", "#57606a", "#d0d7de", "#a8480a", "#1c5c9c"

_STYLE: Any = {  # names that matplotlib checks itself
    "svg.hashsalt": "clinode",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "text.color": INK,
}


@contextmanager
def styled() -> Iterator[None]:
    """The house style while a figure is drawn; the caller's settings are untouched."""
    with matplotlib.rc_context(_STYLE):
        yield


def data_uri(figure: Figure) -> str:
    """The figure as a `data:` address for an `img`, without metadata that vary by run."""
    buffer = io.StringIO()
    with styled():
        figure.savefig(
            buffer,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>", "", buffer.getvalue(), flags=re.DOTALL).strip()
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()
