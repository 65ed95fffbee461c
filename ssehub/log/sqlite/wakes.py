"""Wakes: lets the processes that share a file wake each other.

Each process that follows the log has a datagram socket in a folder beside the file. A process that has written sends a
byte to each socket. A wake may be lost, so a follower also looks by itself from time to time. If a process was killed,
its socket remains in the folder; the next process that sends to it deletes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import threading
import time

_NAME = re.compile("[0-9a-f]{16}")
#: The longest path of a socket, in bytes. Longer paths are opened through the folder's descriptor.
#: Precedent: the smallest limit, 104 on BSD and macOS.
_LONGEST = 100
#: A folder whose time of change is more recent than this is listed again, because the clock of the file system may be
#: coarse. In seconds.
_COARSE = 0.05


class Wakes:
    """The sockets of the processes that follow a log. Safe to use from any thread.

    :param folder: the folder with the sockets. It is created for its owner only.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._name = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        #: The socket of this process; None if it does not follow the log, or no socket can be made here.
        self._own: socket.socket | None = None
        self._sender: socket.socket | None = None
        #: The names of the sockets in the folder, and the folder's time of change when they were listed.
        self._names: list[str] = []
        self._listed = -1
        self._interrupted = threading.Event()

    def listen(self) -> None:
        """Create the socket of this process. If that is not possible, the follower looks more often instead."""
        with self._lock, contextlib.suppress(OSError):
            if self._own is None and not self._interrupted.is_set():
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self._folder, 0o700)
                own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                try:
                    own.bind(self._address(self._name))
                except OSError:
                    own.close()
                    raise
                self._own = own

    def send(self, own: bool) -> None:
        """Wake the other processes. Never blocks, never raises.

        :param own: whether to wake this process, too.
        """
        with contextlib.suppress(OSError):
            if self._sender is None:
                sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                sender.setblocking(False)
                self._sender = sender
            for name in self._list():
                if own or name != self._name:
                    self._send_to(name)

    def wait(self, timeout: float, without_socket: float) -> bool:
        """Wait until another process has sent. Only the follower may call this.

        :param timeout: the maximum number of seconds to wait.
        :param without_socket: the same, if this process has no socket.
        :returns: whether another process has sent.
        """
        own = self._own
        if own is None:
            self._interrupted.wait(without_socket)
            return False
        try:
            own.settimeout(timeout)
            own.recv(1)
            own.settimeout(0)
            while True:
                own.recv(1)
        except TimeoutError:
            return False
        except OSError:  # there is nothing more to receive
            return True

    def interrupt(self) -> None:
        """End the follower's wait, now and in future."""
        self._interrupted.set()
        with contextlib.suppress(OSError):
            self.send(own=True)

    def close(self) -> None:
        """Delete the socket of this process."""
        self.interrupt()
        with self._lock:
            for one in (self._own, self._sender):
                if one is not None:
                    one.close()
            if self._own is not None:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self._folder, self._name))
            self._own = self._sender = None
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _list(self) -> list[str]:
        changed = os.stat(self._folder).st_mtime_ns
        if changed != self._listed:
            self._names = [name for name in os.listdir(self._folder) if _NAME.fullmatch(name)]
            is_settled = time.time_ns() - changed > _COARSE * 1e9
            self._listed = changed if is_settled else -1
        return self._names

    def _send_to(self, name: str) -> None:
        sender = self._sender
        if sender is None:
            return
        try:
            sender.sendto(b".", self._address(name))
        except (ConnectionRefusedError, FileNotFoundError):  # the process has ended
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder, name))
        except OSError:  # its buffer is full, so it has other wakes; or it belongs to another user
            pass

    def _address(self, name: str) -> str:
        path = os.path.join(self._folder, name)
        if len(os.fsencode(path)) <= _LONGEST:
            return path
        if self._descriptor is None:
            self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._descriptor}/{name}"
