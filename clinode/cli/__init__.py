"""The command line: text becomes a configuration, a call and a report."""

from .app import main

__all__ = ["main"]
