"""Prometheus: the statistics of a hub as metrics. Use ``REGISTRY.register(HubCollector(hub))``.

The service serves them at ``GET /metrics``. With a shared log, each process returns the metrics of all processes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ssehub.exceptions import LogError
from ssehub.log import Process
from ssehub.wsgi.hub import Hub

_GAUGES = (
    ("connections", "connections", "Open streams."),
    ("clients", "clients", "Clients with an open stream."),
    ("taken_over_streams", "taken_over", "Open streams that the hub's own thread writes."),
    ("detached_streams", "detached", "Taken-over streams that use no thread of the server."),
    ("pending_messages", "pending", "Queued messages to single sessions."),
    ("behind_connections", "behind", "Streams with unread messages in the log."),
    ("lag_entries", "lag", "Unread entries of the log of the stream that is furthest behind."),
    ("unsent_messages", "unsent", "Messages in the outbox, because the log cannot be reached."),
    ("log_lag_entries", "log_lag", "Entries of the log that the process has not read yet."),
)
_COUNTERS = (
    ("messages", "messages", "Messages that the log has delivered to the process."),
    ("deliveries", "delivered", "Messages passed to the server or written, counted once for each stream."),
    ("sent_bytes", "sent_bytes", "Bytes passed to the server or written."),
    ("gaps", "gaps", "Gaps reported to clients: messages were lost."),
    ("opened", "opened", "Streams opened."),
    ("refused", "refused", "Streams refused, because the hub was full or closing."),
    ("hang_ups", "hang_ups", "Streams whose clients disconnected."),
    ("stalled", "stalled", "Streams closed because their clients had stopped reading."),
    ("unreadable_entries", "unreadable", "Entries of the log that were skipped, because another program wrote them."),
)
_FAILING = "1 for each background task of the process that fails and is retried."
_NOT_TAKEN = "Streams that stayed on the server's threads, by the reason why they were not taken over."
_DELAY = "Seconds from the sending of the oldest message in a write to the end of the write."


class HubCollector(Collector):
    """Exports the statistics of a hub to a Prometheus registry. Thread-safe.

    Each series has the label ``process``, ``host:pid``. With a :class:`~ssehub.RedisLog`, the series of all processes
    that serve streams are included, so that you can scrape any worker of a server. They are at most a third of the
    log's ``lease`` old. While Redis is down, only the series of this process are included.

    :param hub: the hub.
    :param zones: True for the number of streams in each zone. Each zone adds a series, so use it only with few zones.
    :param names: False for labels without host names and process ids.
    """

    def __init__(self, hub: Hub, *, zones: bool = False, names: bool = True) -> None:
        self._hub = hub
        self._zones = zones
        self._names = names

    def describe(self) -> Iterable[Metric]:
        """Describe the metrics without asking the hub, because this may be called before a server forks."""
        return self._families((), None)

    def collect(self) -> Iterable[Metric]:
        """Collect the metrics. It blocks for one round trip if the log is shared."""
        try:
            processes, zones = self._hub.processes(), self._hub.zones() if self._zones else None
        except LogError:
            stats = {**self._hub.stats(), "log_lag": None}
            return self._families([Process("", socket.gethostname(), os.getpid(), 0, stats)], None)
        return self._families(processes, zones)

    def _labelled(self, processes: Sequence[Process]) -> dict[str, Any]:
        """Return the statistics by label. Two may have the same label for a while, if a process id is reused."""
        found: dict[str, Any] = {}
        for one in processes:
            label = f"{one.host}:{one.pid}" if self._names else one.id[:8] or "this"
            found[f"{label}:{one.id[:8]}" if label in found else label] = one.stats
        return found

    def _families(self, processes: Sequence[Process], zones: dict[str, int] | None) -> Iterator[Metric]:
        everyone = list(self._labelled(processes).items())
        for name, key, meaning in _GAUGES:
            yield _filled(GaugeMetricFamily(f"ssehub_{name}", meaning, labels=("process",)), key, everyone)
        for name, key, meaning in _COUNTERS:
            yield _filled(CounterMetricFamily(f"ssehub_{name}", meaning, labels=("process",)), key, everyone)
        yield _not_taken(everyone)
        yield _failing(everyone)
        delays = HistogramMetricFamily("ssehub_send_to_write_seconds", _DELAY, labels=("process",))
        for process, stats in everyone:
            delays.add_metric((process,), _buckets(stats["delays"]), stats["delays"]["sum"])
        yield delays
        if zones is not None:
            family = GaugeMetricFamily("ssehub_zone_connections", "Open streams in a zone.", labels=("zone",))
            for zone, count in sorted(zones.items()):
                family.add_metric((zone,), count)
            yield family


def exposition(hub: Hub, accept: str | None, *, zones: bool = False, names: bool = True) -> tuple[bytes, str]:
    """Return the metrics of a hub in a text format of Prometheus.

    Specification: https://prometheus.io/docs/instrumenting/exposition_formats/

    :param accept: the header ``Accept`` of the request, which determines the format.
    :param zones: see :class:`HubCollector`; ``names`` as well.
    :returns: the text and its content type.
    """
    registry = CollectorRegistry()
    registry.register(HubCollector(hub, zones=zones, names=names))
    encode, content_type = choose_encoder(accept or "")
    return encode(registry), content_type


def _filled(family: Any, key: str, everyone: Iterable[tuple[str, Any]]) -> Metric:
    for process, stats in everyone:
        if stats.get(key) is not None:  # a process with an older version does not report everything
            family.add_metric((process,), stats[key])
    metric: Metric = family
    return metric


def _not_taken(everyone: Iterable[tuple[str, Any]]) -> Metric:
    family = CounterMetricFamily("ssehub_not_taken_streams", _NOT_TAKEN, labels=("process", "reason"))
    for process, stats in everyone:
        for reason, count in sorted(stats.get("not_taken", {}).items()):
            family.add_metric((process, reason), count)
    return family


def _failing(everyone: Iterable[tuple[str, Any]]) -> Metric:
    family = GaugeMetricFamily("ssehub_failing", _FAILING, labels=("process", "part"))
    for process, stats in everyone:
        for part in sorted(stats.get("failing", {})):
            family.add_metric((process, part), 1)
    return family


def _buckets(delays: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the buckets in Prometheus' form: each one includes the ones before it."""
    buckets, sum_so_far = [], 0
    for bound, count in zip([*delays["bounds"], "+Inf"], delays["counts"], strict=True):
        sum_so_far += count
        buckets.append((str(bound), float(sum_so_far)))
    return buckets
