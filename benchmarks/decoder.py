"""The speed of decoding, compared with other decoders in Python: ``python -m benchmarks.decoder``."""

from __future__ import annotations

import argparse
import codecs
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import requests
import requests_sse
import sseclient
from httpx_sse._decoders import SSEDecoder, SSELineDecoder
from ld_eventsource.reader import _BufferedLineReader, _SSEReader

from benchmarks.table import table
from ssehub import Decoder

#: Number of bytes that each measurement decodes.
SIZE = 4 << 20

Chunks = Sequence[bytes]


def ours(chunks: Chunks, count: int) -> int:
    """Decode with ssehub."""
    feed = Decoder().feed
    return sum(len(feed(chunk)) for chunk in chunks)


def launchdarkly(chunks: Chunks, count: int) -> int:
    """Decode with launchdarkly-eventsource's line reader and event reader."""
    return sum(1 for _ in _SSEReader(_BufferedLineReader.lines_from(chunks)).events_and_comments())


def httpx_sse(chunks: Chunks, count: int) -> int:
    """Decode with httpx-sse's line splitter and decoder, after the incremental codec that httpx uses."""
    text = codecs.getincrementaldecoder("utf-8")()
    lines, decoder = SSELineDecoder(), SSEDecoder()
    found = 0
    for chunk in chunks:
        for line in lines.decode(text.decode(chunk)):
            found += decoder.decode(line) is not None
    return found


def sseclient_py(chunks: Chunks, count: int) -> int:
    """Decode with sseclient-py, which takes an iterable of chunks."""
    return sum(1 for _ in sseclient.SSEClient(iter(chunks)).events())


class _Raw:
    """The raw response that requests reads from."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def stream(self, size: int, decode_content: bool) -> Iterator[bytes]:
        """Yield the chunks unchanged."""
        return iter(self._chunks)


def requests_sse_(chunks: Chunks, count: int) -> int:
    """Decode with requests-sse, over requests' ``iter_lines``, up to the end, where it would reconnect."""
    response = requests.Response()
    response.raw, response.status_code = _Raw(chunks), 200
    source = requests_sse.EventSource("http://localhost/")
    source._response, source._data_generator, source._origin = response, response.iter_lines(), ""
    for _ in range(count):
        next(source)
    return count


CONTESTANTS: dict[str, Callable[[Chunks, int], int]] = {
    "ssehub": ours,
    "launchdarkly": launchdarkly,
    "httpx-sse": httpx_sse,
    "sseclient-py": sseclient_py,
    "requests-sse": requests_sse_,
}


def _text(size: int) -> str:
    return ("".join(chr(97 + n % 26) for n in range(26)) * (size // 26 + 1))[:size]


def shapes() -> dict[str, Callable[[int], str]]:
    """Return for each shape a function that makes the n-th event."""
    token = {"id": "chatcmpl-9xK2mQ", "object": "chat.completion.chunk", "model": "some-model", "choices": []}
    llm = json.dumps({**token, "delta": {"content": " token"}, "pad": _text(50)}, separators=(",", ":"))
    large = _text(65536)
    cursor = "dwpk3v0x2rpc.{}.1f0e3dad"
    return {
        "small (58 B of data)": lambda n: f'data: {{"n":{n:08d},"text":"{_text(26)}"}}\n\n',
        "llm (200 B of data)": lambda n: f"data: {llm}\n\n",
        "large (64 KiB of data)": lambda n: f"data: {large}\n\n",
        "id, data": lambda n: f"id: {cursor.format(n)}\ndata: {_text(60)}\n\n",
        "event, data": lambda n: f"event: score\ndata: {_text(60)}\n\n",
        "event, id, data": lambda n: f"event: score\nid: {cursor.format(n)}\ndata: {_text(60)}\n\n",
        "8 lines of data": lambda n: f"data: {_text(30)}\n" * 8 + "\n",
        "CRLF": lambda n: f"data: {_text(40)}\r\n\r\n",
    }


def cut(events: Sequence[bytes], size: int | None) -> Chunks:
    """Return a stream in chunks of the given size, or with one event in each."""
    if size is None:
        return events
    whole = b"".join(events)
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def measure(chunks: Chunks, count: int, rounds: int, contestants: Iterable[str]) -> dict[str, float]:
    """Return the median processor time of each contestant in seconds. In each round all run in turn."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, taken in times.items():
            began = time.process_time()
            found = CONTESTANTS[name](chunks, count)
            taken.append(time.process_time() - began)
            if found != count:
                raise AssertionError(f"{name} found {found} events of {count}")
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    """Run the measurement and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", help="measure shapes whose name contains this")
    options = parser.parse_args()
    rows: list[list[Any]] = []
    for shape, make in shapes().items():
        if options.only and options.only not in shape:
            continue
        count = max(32, min(50_000, SIZE // len(make(0))))
        events = [make(n).encode() for n in range(count)]
        size = sum(map(len, events))
        for name, chunk in (("4 KiB", 4096), ("64 KiB", 65536), ("one event", None)):
            taken = measure(cut(events, chunk), count, options.rounds, CONTESTANTS)
            best = min((seconds, peer) for peer, seconds in taken.items() if peer != "ssehub")
            rows.append(
                [shape, name]
                + [f"{size / taken[peer] / 1e6:,.0f} / {count / taken[peer] / 1e3:,.0f} k" for peer in CONTESTANTS]
                + [f"{best[0] / taken['ssehub']:.2f}"]
            )
    print(table([["shape", "chunk", *CONTESTANTS, "to the best"], *rows]))


if __name__ == "__main__":
    main()
