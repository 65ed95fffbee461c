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
#: The minimum number of seconds between two questions whether the folder has changed.
_ASK = 0.01
#: The maximum number of wakes that are received together.
_MANY = 100


class Wakes:
    """The sockets of the processes that follow a log. Safe to use from any thread.

    :param folder: the folder with the sockets. It is created for its owner only.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._name = secrets.token_hex(8)
        self._lock = threading.Lock()
        #: Descriptors of the folder. If it was replaced, the last one is the new folder's.
        self._descriptors: list[int] = []
        self._inode = 0
        #: The socket of this process; None if it does not follow the log, or no socket can be made here.
        self._own: socket.socket | None = None
        self._sender: socket.socket | None = None
        #: The names of the sockets in the folder, and the folder's time of change when they were listed.
        self._names: list[str] = []
        self._listed = -1
        #: When the folder was last asked for (``time.monotonic()``).
        self._asked = 0.0
        self._interrupted = threading.Event()

    def listen(self) -> None:
        """Create the socket of this process, unless it has one. If that fails, the follower looks more often instead.

        If the socket was deleted, it is created again.
        """
        if self._own is None or not os.path.exists(self._path(self._name)):
            with self._lock, contextlib.suppress(OSError):
                self._forget()
                if not self._interrupted.is_set():
                    self._own = self._bind()

    def send(self, own: bool) -> None:
        """Wake the other processes. Never blocks, never raises.

        :param own: whether to wake this process, too.
        """
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
            for _ in range(_MANY):
                own.recv(1)
        except TimeoutError:
            return False
        except OSError:  # there is nothing more to receive, or the socket was closed
            pass
        return True

    def interrupt(self) -> None:
        """End the follower's wait, now and in future."""
        self._interrupted.set()
        self._asked = 0.0
        self.send(own=True)

    def close(self) -> None:
        """Delete the socket of this process."""
        self.interrupt()
        with self._lock:
            self._forget()
            if self._sender is not None:
                self._sender.close()
                self._sender = None
            while self._descriptors:
                os.close(self._descriptors.pop())

    # The methods below run under the lock.

    def _bind(self) -> socket.socket:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            own.bind(self._address(self._name))
        except OSError:
            own.close()
            raise
        return own

    def _forget(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None
            with contextlib.suppress(OSError):
                os.unlink(self._path(self._name))

    # The methods below may run in several threads at once.

    def _list(self) -> list[str]:
        now = time.monotonic()
        if now - self._asked > _ASK:
            self._asked = now
            try:
                changed = os.stat(self._folder).st_mtime_ns
                if changed != self._listed:
                    self._names = [name for name in os.listdir(self._folder) if _NAME.fullmatch(name)]
                    is_settled = time.time_ns() - changed > _COARSE * 1e9
                    self._listed = changed if is_settled else -1
            except OSError:  # no process follows the log
                self._names, self._listed = [], -1
        return self._names

    def _send_to(self, name: str) -> None:
        try:
            self._open().sendto(b".", self._address(name))
        except (ConnectionRefusedError, FileNotFoundError):  # the process has ended
            self._asked = 0.0
            with contextlib.suppress(OSError):
                os.unlink(self._path(name))
        except OSError:  # its buffer is full, so it has other wakes; or it belongs to another user
            pass

    def _open(self) -> socket.socket:
        sender = self._sender
        if sender is None:
            with self._lock:
                if self._sender is None:
                    self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                    self._sender.setblocking(False)
                sender = self._sender
        return sender

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _address(self, name: str) -> str:
        path = self._path(name)
        if len(os.fsencode(path)) <= _LONGEST:
            return path
        inode = os.stat(self._folder).st_ino
        if inode != self._inode or not self._descriptors:
            self._descriptors.append(os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY))
            self._inode = inode
        return f"/proc/self/fd/{self._descriptors[-1]}/{name}"
