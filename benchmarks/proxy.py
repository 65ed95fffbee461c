"""Proxy: a proxy between clients and a server, which cuts connections in the middle of an event."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading

from tests.servers import free_port
from tests.streams import GUARD


class Proxy:
    """A proxy between clients and server that cuts connections anywhere."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self.port = free_port()
        listening = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening,))
        self._thread.start()
        listening.wait(GUARD)

    def _run(self, listening: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        listening.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        except OSError:
            writer.close()
            return
        self._open.add(writer)
        with contextlib.suppress(OSError):
            ways = [asyncio.create_task(_copy(reader, far_writer)), asyncio.create_task(_copy(far_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
        self._open.discard(writer)
        for one in (writer, far_writer):
            one.transport.abort()

    def turn_to(self, port: int) -> None:
        """Direct new connections to another server."""
        self._behind = port

    def cut(self, share: float) -> None:
        """Cut a share of the connections."""

        def abort() -> None:
            for writer in list(self._open):
                if random.random() < share:
                    writer.transport.abort()

        self._loop.call_soon_threadsafe(abort)

    def close(self) -> None:
        """Cut all connections, and stop."""
        self.cut(1.0)
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.call_later, 0.2, self._loop.stop)
        self._thread.join()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(random.choice((10, 1000, 65536))):
            writer.write(data)
            await writer.drain()
