"""A load generator: it opens many streams in one thread, sends messages at a rate, and checks that all arrive."""

from ssehub.tools.bench.target import BenchError, Target, raise_file_limit

__all__ = ["BenchError", "Target", "raise_file_limit"]
