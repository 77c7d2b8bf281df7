"""How every page is rendered: what comes from data is escaped, and what cannot be seen spelled out.

It is done here, once for all, so that no page can forget it of one name or unit.
"""

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clinode.errors import spelled_out


def page_environment() -> Environment:
    """The templates of this room; a value that a page lacks is an error."""
    return Environment(
        loader=PackageLoader("clinode.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_seen,
    )


def page_style() -> Markup:
    """The style sheet, without blanks that say nothing: our own file, no data."""
    style = page_environment().get_template("style.css").render()
    return Markup(re.sub(r"(?<=[{};:,])\s+|\s+(?=[{}])", "", style))


def _seen(value: Any) -> Any:
    """Text without a character that moves, hides or reorders others; line breaks are only blanks.

    What is markup already came through here when it was made.
    """
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "\n".join(map(spelled_out, value.split("\n")))
