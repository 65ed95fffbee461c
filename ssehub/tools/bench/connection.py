"""Connection: a non-blocking connection, with or without TLS.

The transport of :mod:`ssehub.client` is a blocking one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from typing import Protocol

from ssehub.tools.bench.loop import READ, WRITE, Loop
from ssehub.tools.bench.target import Target

_READ_SIZE = 1 << 16
_LATER = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Owner(Protocol):
    """The interface of an object that uses a connection."""

    def ready(self) -> None:
        """Called when it is connected, and the TLS handshake is done."""

    def received(self, data: bytes) -> None:
        """Called with received data."""

    def lost(self, error: OSError | None) -> None:
        """Called when the connection has ended. Without an error the peer has closed it."""


class Connection:
    """Connects, and calls its owner. Everything happens in the loop's thread.

    :param receive_buffer: size of the kernel's receive buffer in bytes. A small one shows how a server handles slow
        readers.
    """

    def __init__(self, loop: Loop, target: Target, owner: Owner, receive_buffer: int | None = None) -> None:
        self._loop, self._target, self._owner = loop, target, owner
        self._socket = socket.socket(target.family)
        self._fd = self._socket.fileno()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._out = b""
        self._connected = self._ready = False
        self._reading = True
        error = self._socket.connect_ex(target.address)
        if error not in (0, errno.EINPROGRESS):
            self._socket.close()
            raise OSError(error, os.strerror(error))
        loop.watch(self._fd, WRITE, self._handle)

    def write(self, data: bytes) -> None:
        """Send data when there is room. May only be called after ``ready``."""
        self._out += data
        self._flush()

    def pause(self) -> None:
        """Stop reading."""
        if self._reading and self._fd >= 0:
            self._reading = False
            self._loop.forget(self._fd)

    def resume(self) -> None:
        """Read again."""
        if not self._reading and self._fd >= 0:
            self._reading = True
            self._loop.watch(self._fd, READ, self._handle)

    def close(self) -> None:
        """Close the connection without calling the owner. Idempotent."""
        if self._fd >= 0:
            if self._reading:
                self._loop.forget(self._fd)
            self._fd = -1
            self._socket.close()

    def _handle(self, events: int) -> None:
        try:
            if not self._ready:
                self._advance()
            elif events & READ:
                self._read()
            else:
                self._flush()
        except _LATER:
            pass
        except OSError as error:
            self.close()
            self._owner.lost(error)

    def _advance(self) -> None:
        """Take the next step of connecting."""
        if not self._connected:
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
            self._connected = True
            if self._target.tls is not None:
                self._socket = self._target.tls.wrap_socket(
                    self._socket, server_hostname=self._target.host, do_handshake_on_connect=False
                )
        if isinstance(self._socket, ssl.SSLSocket):
            try:
                self._socket.do_handshake()
            except ssl.SSLWantReadError:
                self._loop.change(self._fd, READ, self._handle)
                return
            except ssl.SSLWantWriteError:
                self._loop.change(self._fd, WRITE, self._handle)
                return
        self._ready = True
        self._loop.change(self._fd, READ, self._handle)
        self._owner.ready()

    def _read(self) -> None:
        data = b""
        with contextlib.suppress(ssl.SSLEOFError):  # the peer closed it without a TLS shutdown, which is an end as well
            data = self._socket.recv(_READ_SIZE)
        if data:
            self._owner.received(data)
        else:
            self.close()
            self._owner.lost(None)

    def _flush(self) -> None:
        with contextlib.suppress(*_LATER):
            sent = self._socket.send(self._out)
            self._out = self._out[sent:]
        if self._fd >= 0 and self._reading:
            self._loop.change(self._fd, READ | WRITE if self._out else READ, self._handle)
