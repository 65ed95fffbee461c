"""A load generator: it opens many streams in one thread, sends messages at a rate, and checks that all arrive.

It has its own non-blocking HTTP (``loop``, ``connection``, ``body``, ``stream``), because one thread waits for
thousands of streams at once and notes when each piece of data arrives. :class:`~ssehub.Client` blocks a thread for each
stream, in ``requests`` and ``http.client``, and ``ssehub.testing`` runs the application in a thread for each stream.
What does not wait is shared: the decoder, the check of addresses, and the parsing of cursors.
"""

from ssehub.tools.bench.target import BenchError, Target, raise_file_limit

__all__ = ["BenchError", "Target", "raise_file_limit"]
