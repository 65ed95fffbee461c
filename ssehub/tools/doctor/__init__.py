"""The doctor: follows a stream through its real address, and says what is wrong with it and how to put it right."""

from ssehub.tools.doctor.finding import Finding
from ssehub.tools.doctor.runner import examine
from ssehub.tools.doctor.target import Target

__all__ = ["Finding", "Target", "examine"]
