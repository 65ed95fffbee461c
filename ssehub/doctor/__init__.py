"""The doctor: follows a stream through its real address, and says what is wrong with it and how to put it right."""

from ssehub.doctor.case import Case
from ssehub.doctor.finding import Finding
from ssehub.doctor.rounds import examine

__all__ = ["Case", "Finding", "examine"]
