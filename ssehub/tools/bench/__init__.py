"""A load generator: many streams in one thread, messages at a rate, and what became of each of them."""

from ssehub.tools.bench.target import BenchError, Target, raise_file_limit

__all__ = ["BenchError", "Target", "raise_file_limit"]
