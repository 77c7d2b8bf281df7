"""Reports that can be read offline: of a cohort with a page a subject, of a steering study."""

from .brain import write_brain_report
from .facts import ModelFacts
from .provenance import check_provenance
from .write import write_report

__all__ = ["ModelFacts", "check_provenance", "write_brain_report", "write_report"]
