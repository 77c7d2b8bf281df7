"""Reports that can be read offline: an index of the cohort and a page a subject."""

from .write import write_report

__all__ = ["write_report"]
