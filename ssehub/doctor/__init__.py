"""The doctor: follows a stream through its real address, and says what is wrong with it and how to put it right."""

from ssehub.doctor.case import Case
from ssehub.doctor.examination import examine
from ssehub.doctor.finding import Finding

__all__ = ["Case", "Finding", "examine"]
