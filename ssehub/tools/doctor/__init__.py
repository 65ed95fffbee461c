"""The doctor: follows a stream through its public address, reports problems, and suggests settings that fix them."""

from ssehub.tools.doctor.finding import Finding
from ssehub.tools.doctor.runner import examine
from ssehub.tools.doctor.target import Target

__all__ = ["Finding", "Target", "examine"]
