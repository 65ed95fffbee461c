"""A fleet of SSE subscribers in a process of its own: it counts what arrives and checks the order on every stream.

One epoll loop over raw sockets. As long as bytes wait in the kernel the fleet only reads and stamps them; it parses
when nothing is left to read, so its parsing delays no arrival time, and the fleet is not what a benchmark measures. A
message is expected to carry ``<sequence number> <time.monotonic() of sending>`` in front of its padding, which is
comparable across the processes of one machine. Lines end in LF. Needs epoll (Linux), and nothing of the library it
tests.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import select
import socket
import subprocess
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypedDict
from urllib.parse import urlsplit

CONNECTING_AT_ONCE = 64  # gthread starts a thread per stream: more at once only lengthens its accept queue
RETRY_AFTER = 0.1
READ_SIZE = 1 << 16
PARSE_FOR = 0.001  # seconds of parsing between two looks at the sockets
BACKLOG_LIMIT = 1 << 28  # bytes read but not parsed: beyond this, exact arrival times are given up for memory
SAMPLES = 20  # faults told in words
GAPS = 1000  # gaps told with what the hub said
NUMBERED = re.compile(rb"^data: ?(\d+) (\d+\.\d+)", re.MULTILINE)
GAP = re.compile(rb"^event: ?ssehub\.gap$", re.MULTILINE)
OWN = re.compile(rb"^event: ?ssehub\.", re.MULTILINE)


class Gap(TypedDict):
    """A gap that the hub reported: the stream, the number it was due next, and what the event said."""

    stream: int
    next: int | None
    data: str


class Report(TypedDict):
    """What the fleet has seen since its last reset; times are of ``time.monotonic()``, latencies are in seconds."""

    complete: bool  # what was waited for came in time
    connected: int  # streams whose first bytes of body came, ever
    open: int
    ended: int  # by the server or by an error, after they were connected
    refused: int  # answered with anything but 200, or ended before the first byte of body
    paused: int
    received: int  # without doubles
    least: int  # received by the open, reading stream that has the fewest
    missing: int  # numbers that were skipped and have not come later; what is still due at the end is not known here
    doubles: int
    out_of_order: int
    gaps: int
    gap_events: list[Gap]  # the first few
    faults: list[str]  # the first few, in words
    first_arrival: float | None
    last_arrival: float | None
    latency: dict[str, float]  # p50, p90, p99, p99.9, max
    cpu: float  # seconds of processor the fleet itself took


class FleetError(Exception):
    """The fleet's process died, did not answer, or was given a command that it cannot carry out."""


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, for this process and those it starts; return it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Body:
    """Takes the HTTP/1.1 head and the chunk framing off; without chunks the body lasts until the connection closes."""

    __slots__ = ("_chunked", "_rest", "ended", "status")

    def __init__(self) -> None:
        self.status = 0
        self.ended = False
        self._chunked = False
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they came; return those of the body that are whole."""
        data, self._rest = self._rest + data, b""
        if not self.status:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return b""
            self.status = int(head.split(None, 2)[1])
            self._chunked = b"\r\ntransfer-encoding: chunked" in head.lower()
        return self._whole_chunks(data) if self._chunked else data

    def _whole_chunks(self, data: bytes) -> bytes:
        chunks = []
        at = 0
        while not self.ended:
            line = data.find(b"\r\n", at)
            if line < 0:
                break
            size = int(data[at:line].partition(b";")[0], 16)
            end = line + 2 + size
            if len(data) < end + 2:
                break
            chunks.append(data[line + 2 : end])
            self.ended = size == 0
            at = end + 2
        self._rest = data[at:]
        return b"".join(chunks)


class Order:
    """Checks that the numbers of one stream rise by one, and says what is wrong where they do not."""

    __slots__ = ("doubles", "late", "missing", "next", "received")

    def __init__(self, first: int | None) -> None:
        self.next = first
        self.missing: set[int] = set()
        self.reset()

    def reset(self) -> None:
        """Count from zero; what is due next stays."""
        self.missing.clear()
        self.received = self.doubles = self.late = 0

    def take(self, numbers: list[int]) -> str:
        """Take the numbers of some messages in the order they came; return the fault in words, or nothing."""
        if self.next is None:
            self.next = numbers[0]
        due = self.next
        if numbers == list(range(due, due + len(numbers))):
            self.next = due + len(numbers)
            self.received += len(numbers)
            return ""
        for number in numbers:
            self._take_one(number)
        wrong = next(i for i, number in enumerate(numbers) if number != due + i)
        return f"{numbers[wrong]} where {due + wrong} was due"

    def _take_one(self, number: int) -> None:
        assert self.next is not None
        if number >= self.next:
            self.missing.update(range(self.next, number))
            self.next = number + 1
        elif number in self.missing:
            self.missing.remove(number)
            self.late += 1
        else:
            self.doubles += 1
            return
        self.received += 1


class Stream:
    """One subscriber: its socket, the bytes read and not parsed yet, and what its messages said so far."""

    __slots__ = ("body", "connected", "ended", "number", "order", "paused", "socket", "tail", "target", "unparsed")

    def __init__(self, number: int, target: Target, paused: bool) -> None:
        self.number = number
        self.target = target
        self.paused = paused
        self.order = Order(target.first)
        self.connected = self.ended = False
        self.begin()

    def begin(self) -> None:
        """Forget a connection that did not come about."""
        self.socket: socket.socket | None = None
        self.body = Body()
        self.tail = b""
        self.unparsed: list[tuple[float, bytes]] = []

    @property
    def reading(self) -> bool:
        """Whether messages are expected of it."""
        return self.connected and not self.ended and not self.paused

    def whole_events(self, body: bytes) -> bytes:
        """Take a piece of the body; return the events that it completes."""
        events, found, self.tail = (self.tail + body).rpartition(b"\n\n")
        return events + found


class Target:
    """What a group of streams asks for, and whom."""

    def __init__(self, url: str, first: int | None, headers: Mapping[str, str], receive_buffer: int | None) -> None:
        parts = urlsplit(url)
        self.address = (socket.gethostbyname(parts.hostname or "127.0.0.1"), parts.port or 80)
        self.first = first
        self.receive_buffer = receive_buffer
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"GET {path} HTTP/1.1", f"Host: {parts.netloc}", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.request = "\r\n".join([*lines, "", ""]).encode()

    def open_socket(self, paused: bool) -> socket.socket:
        """Begin to connect."""
        sock = socket.socket()
        sock.setblocking(False)
        if paused and self.receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        error = sock.connect_ex(self.address)
        if error not in (0, errno.EINPROGRESS):
            sock.close()
            raise OSError(error, os.strerror(error))
        return sock


class Tally:
    """What all streams together have received since the last reset."""

    def __init__(self) -> None:
        self.latencies = array("d")
        self.first_arrival: float | None = None
        self.last_arrival: float | None = None
        self.gaps = 0
        self.gap_events: list[Gap] = []
        self.faults: list[str] = []
        self._cpu = time.process_time()

    def take(self, stream: Stream, arrival: float, events: bytes) -> None:
        """Count the whole events of one read."""
        if b"ssehub." in events:
            events = self._take_own(stream, events)
        found = NUMBERED.findall(events)
        if not found:
            return
        if self.first_arrival is None:
            self.first_arrival = arrival
        self.last_arrival = max(arrival, self.last_arrival or arrival)
        self.latencies.extend([arrival - float(stamp) for _, stamp in found])
        fault = stream.order.take([int(number) for number, _ in found])
        if fault and len(self.faults) < SAMPLES:
            self.faults.append(f"stream {stream.number}: {fault}")

    def _take_own(self, stream: Stream, events: bytes) -> bytes:
        """Count the gaps among the hub's own events; return the events without those."""
        others = []
        numbers = 0
        for block in events.split(b"\n\n"):
            if not OWN.search(block):
                others.append(block)
                numbers += len(NUMBERED.findall(block))
            elif GAP.search(block):
                due = stream.order.next
                self._take_gap(stream, block, None if due is None else due + numbers)
        return b"\n\n".join(others)

    def _take_gap(self, stream: Stream, block: bytes, due: int | None) -> None:
        self.gaps += 1
        if len(self.gap_events) < GAPS:
            data = b"\n".join(re.findall(rb"^data: ?(.*)$", block, re.MULTILINE)).decode()
            self.gap_events.append({"stream": stream.number, "next": due, "data": data})

    def percentiles(self) -> dict[str, float]:
        """Return the latencies by rank; nothing where nothing came."""
        ranked = sorted(self.latencies)
        if not ranked:
            return {}
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
        return {name: ranked[min(int(len(ranked) * share), len(ranked) - 1)] for name, share in shares.items()}

    @property
    def cpu(self) -> float:
        """Seconds of processor since the reset."""
        return time.process_time() - self._cpu


class Wait:
    """The one command that has not been answered yet."""

    def __init__(self, over: Callable[[], bool], complete: Callable[[], bool], timeout: float) -> None:
        self.over = over
        self.complete = complete
        self.deadline = time.monotonic() + timeout


class Loop:
    """The fleet's process: commands and streams in one epoll loop, one thread."""

    def __init__(self, commands: int, replies: int) -> None:
        self._commands, self._replies = commands, replies
        self._command_line = b""
        self._running = True
        self._wait: Wait | None = None
        self._epoll = select.epoll()
        self._epoll.register(commands, select.EPOLLIN)
        self._streams: list[Stream] = []
        self._by_fd: dict[int, Stream] = {}
        self._to_connect: deque[tuple[float, Stream]] = deque()
        self._connecting: set[Stream] = set()
        self._unparsed: deque[Stream] = deque()
        self._backlog = 0
        self._tally = Tally()

    def run(self) -> None:
        """Serve until told to close, or until whoever gives the commands is gone."""
        while self._running:
            self._connect_more()
            ready = self._epoll.poll(0 if self._unparsed else 0.01)
            for fd, mask in ready:
                self._handle(fd, mask)
            if not ready or self._backlog > BACKLOG_LIMIT:
                self._parse_some()
            self._answer_wait()

    # Commands

    def _read_commands(self) -> None:
        data = os.read(self._commands, READ_SIZE)
        self._running = bool(data)
        *lines, self._command_line = (self._command_line + data).split(b"\n")
        for line in lines:
            command = json.loads(line)
            getattr(self, "_on_" + command.pop("command"))(**command)

    def _reply(self, report: Report) -> None:
        os.set_blocking(self._replies, True)
        os.write(self._replies, json.dumps(report).encode() + b"\n")

    def _answer_wait(self) -> None:
        if self._wait is None or (self._unparsed and time.monotonic() < self._wait.deadline):
            return
        if self._wait.over() or time.monotonic() >= self._wait.deadline:
            complete, self._wait = self._wait.complete(), None
            self._reply(self._report(complete))

    def _on_start(
        self, *, url: str, n: int, paused: int, first: int | None, headers: dict[str, str], receive_buffer: int | None
    ) -> None:
        target = Target(url, first, headers, receive_buffer)
        before = len(self._streams)
        self._streams += [Stream(before + i, target, paused=i < paused) for i in range(n)]
        self._to_connect += [(0.0, stream) for stream in self._streams[before:]]
        self._reply(self._report(True))

    def _on_wait_connected(self, timeout: float) -> None:
        def condition() -> bool:
            return not self._to_connect and not self._connecting and all(s.connected for s in self._streams)

        self._wait = Wait(condition, condition, timeout)

    def _on_expect(self, count: int, timeout: float) -> None:
        def over() -> bool:
            return all(s.order.received >= count for s in self._streams if s.reading)

        def complete() -> bool:
            return all(s.order.received >= count for s in self._streams if not s.paused)

        self._wait = Wait(over, complete, timeout)

    def _on_reach(self, number: int, timeout: float) -> None:
        def reached(stream: Stream) -> bool:
            return stream.order.next is not None and stream.order.next > number

        def over() -> bool:
            return all(reached(s) for s in self._streams if s.reading)

        def complete() -> bool:
            return all(reached(s) for s in self._streams if not s.paused)

        self._wait = Wait(over, complete, timeout)

    def _on_wait_ended(self, timeout: float) -> None:
        def condition() -> bool:
            return all(s.ended for s in self._streams)

        self._wait = Wait(condition, condition, timeout)

    def _on_report(self) -> None:
        while self._unparsed:
            self._parse_some()
        self._reply(self._report(True))

    def _on_reset(self) -> None:
        while self._unparsed:
            self._parse_some()
        self._tally = Tally()
        for stream in self._streams:
            stream.order.reset()
        self._reply(self._report(True))

    def _on_pause(self, n: int) -> None:
        for stream in [s for s in self._streams if s.reading][:n]:
            stream.paused = True
            self._epoll.unregister(stream.socket or -1)
        self._reply(self._report(True))

    def _on_resume_paused(self) -> None:
        for stream in self._streams:
            if stream.paused and stream.connected and not stream.ended and stream.socket:
                self._epoll.register(stream.socket, select.EPOLLIN)
            stream.paused = False
        self._reply(self._report(True))

    def _report(self, complete: bool) -> Report:
        streams, tally = self._streams, self._tally
        orders = [stream.order for stream in streams]
        return {
            "complete": complete,
            "connected": sum(s.connected for s in streams),
            "open": sum(s.connected and not s.ended for s in streams),
            "ended": sum(s.connected and s.ended for s in streams),
            "refused": sum(s.ended and not s.connected for s in streams),
            "paused": sum(s.paused for s in streams),
            "received": sum(o.received for o in orders),
            "least": min((s.order.received for s in streams if s.reading), default=0),
            "missing": sum(len(o.missing) for o in orders),
            "doubles": sum(o.doubles for o in orders),
            "out_of_order": sum(o.late for o in orders),
            "gaps": tally.gaps,
            "gap_events": tally.gap_events,
            "faults": tally.faults,
            "first_arrival": tally.first_arrival,
            "last_arrival": tally.last_arrival,
            "latency": tally.percentiles(),
            "cpu": tally.cpu,
        }

    # Streams

    def _connect_more(self) -> None:
        while self._to_connect and len(self._connecting) < CONNECTING_AT_ONCE:
            not_before, stream = self._to_connect[0]
            if time.monotonic() < not_before:
                return
            self._to_connect.popleft()
            try:
                stream.socket = stream.target.open_socket(stream.paused)
            except OSError:
                self._try_again(stream)
                continue
            self._connecting.add(stream)
            self._by_fd[stream.socket.fileno()] = stream
            self._epoll.register(stream.socket, select.EPOLLOUT)

    def _try_again(self, stream: Stream) -> None:
        self._release(stream)
        stream.begin()
        self._to_connect.append((time.monotonic() + RETRY_AFTER, stream))

    def _handle(self, fd: int, mask: int) -> None:
        if fd == self._commands:
            self._read_commands()
            return
        stream = self._by_fd.get(fd)
        if stream is None or stream.socket is None:
            return
        if mask & select.EPOLLOUT:
            self._ask(stream, stream.socket)
        else:
            self._read(stream, stream.socket)

    def _ask(self, stream: Stream, sock: socket.socket) -> None:
        try:
            sock.send(stream.target.request)
        except OSError:  # refused: the server is not there yet, or its accept queue is full
            self._try_again(stream)
        else:
            self._epoll.modify(sock, select.EPOLLIN)

    def _read(self, stream: Stream, sock: socket.socket) -> None:
        try:
            data = sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not stream.unparsed:
            self._unparsed.append(stream)
        stream.unparsed.append((time.monotonic(), data))
        self._backlog += len(data)
        if not data:
            self._release(stream)

    def _release(self, stream: Stream) -> None:
        self._connecting.discard(stream)
        if stream.socket is not None:
            self._by_fd.pop(stream.socket.fileno(), None)
            stream.socket.close()
            stream.socket = None

    def _parse_some(self) -> None:
        until = time.monotonic() + PARSE_FOR
        while self._unparsed and time.monotonic() < until:
            stream = self._unparsed.popleft()
            pieces, stream.unparsed = stream.unparsed, []
            for arrival, data in pieces:
                self._backlog -= len(data)
                self._parse(stream, arrival, data)

    def _parse(self, stream: Stream, arrival: float, data: bytes) -> None:
        body = stream.body.feed(data)
        if body:
            if not stream.connected:
                self._mark_connected(stream)
            self._tally.take(stream, arrival, stream.whole_events(body))
        if not data or stream.body.ended or stream.body.status not in (0, 200):
            stream.ended = True
            self._release(stream)

    def _mark_connected(self, stream: Stream) -> None:
        stream.connected = stream.body.status == 200
        self._connecting.discard(stream)
        if stream.paused and stream.socket is not None:
            self._epoll.unregister(stream.socket)


class Fleet:
    """A fleet in a subprocess, seen from the test or benchmark that commands it. Not thread-safe; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", os.path.abspath(__file__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._replies = b""

    def start(
        self,
        url: str,
        n: int,
        *,
        paused: int = 0,
        first: int | None = None,
        headers: Mapping[str, str] | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        """Begin to connect n more streams, and return at once.

        :param url: an http URL, the same for these n
        :param paused: how many of them stop reading once they are connected (about the first bytes of the body)
        :param first: the sequence number that is due first; None: whatever comes first
        :param headers: further request headers
        :param receive_buffer: size in bytes of the kernel's receive buffer of the paused ones, so that they stall soon
        """
        self._ask(
            10.0,
            command="start",
            url=url,
            n=n,
            paused=paused,
            first=first,
            headers=dict(headers or {}),
            receive_buffer=receive_buffer,
        )

    def wait_connected(self, timeout: float = 30.0) -> Report:
        """Wait until every stream has received the first bytes of its body: then it is subscribed."""
        return self._ask(timeout, command="wait_connected", timeout=timeout)

    def expect(self, count: int, timeout: float) -> Report:
        """Wait until every open stream that reads has received count messages since the last reset.

        It is complete if those that have ended meanwhile, or were refused, have them too.
        """
        return self._ask(timeout, command="expect", count=count, timeout=timeout)

    def reach(self, number: int, timeout: float) -> Report:
        """Wait until every open stream that reads has received this sequence number, or a later one; gaps may be.

        It is complete if those that have ended meanwhile, or were refused, have it too.
        """
        return self._ask(timeout, command="reach", number=number, timeout=timeout)

    def wait_ended(self, timeout: float) -> Report:
        """Wait until the server has ended every stream; a paused one does not notice."""
        return self._ask(timeout, command="wait_ended", timeout=timeout)

    def report(self) -> Report:
        """Return what has arrived so far."""
        return self._ask(10.0, command="report")

    def reset(self) -> None:
        """Count from zero; the streams stay, and what is due next on each."""
        self._ask(10.0, command="reset")

    def pause(self, n: int) -> None:
        """Stop reading n of the streams that read now."""
        self._ask(10.0, command="pause", n=n)

    def resume_paused(self) -> None:
        """Let the paused streams read on."""
        self._ask(10.0, command="resume_paused")

    def close(self) -> None:
        """Close every stream and end the process; idempotent."""
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, patience: float, /, **command: Any) -> Report:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
        except OSError as error:
            raise FleetError("the fleet's process is gone") from error
        # A busy fleet sorts its latencies before it answers: the answer may come some seconds after the deadline.
        return self._next_reply(time.monotonic() + patience + 30.0)

    def _next_reply(self, deadline: float) -> Report:
        assert self._process.stdout is not None
        while b"\n" not in self._replies:
            if not select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise FleetError("the fleet did not answer in time")
            data = os.read(self._process.stdout.fileno(), READ_SIZE)
            if not data:
                raise FleetError(f"the fleet's process ended with {self._process.wait()}")
            self._replies += data
        line, _, self._replies = self._replies.partition(b"\n")
        report: Report = json.loads(line)
        return report


if __name__ == "__main__":
    raise_file_limit()
    Loop(sys.stdin.fileno(), sys.stdout.fileno()).run()
