"""Redis: checks whether the server keeps the log, and allows the commands that ssehub uses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ssehub.tools.doctor.finding import Finding, fail, ok, skip, warn
from ssehub.tools.doctor.target import Target

#: The oldest version that has all required commands.
_OLDEST = (6, 2)
#: Seconds to wait for a connection, and for a response.
_TIMEOUT = 5.0
#: For buffers smaller than this, the average entry says little, because the next entries may be larger.
_SMALL_BUFFER = 16 << 20
#: Share of the memory limit above which memory counts as nearly full.
_NEARLY_FULL = 0.9
_SCRIPT = (
    "redis.call('XADD', KEYS[1], '*', 'd', '1'); redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1);"
    " redis.call('XRANGE', KEYS[1], '-', '+'); redis.call('TIME'); return redis.call('EXISTS', KEYS[1])"
)


def ask(target: Target) -> Iterator[Finding]:
    """Check the server's settings, permissions and log. Keys that the checks write are deleted again."""
    assert target.log is not None
    try:
        from ssehub.log.redis.link import ERRORS, Link
    except ImportError:
        yield fail("redis", "the redis package is not installed here", "pip install 'ssehub[redis]'")
        return
    server = _open(Link, target.log.replace("+cluster://", "://", 1))
    with contextlib.closing(server):
        try:
            server.ping()
            log = _open(Link, target.log)
        except ERRORS as error:
            yield fail(
                "redis", f"it cannot be reached: {error}", "is it running, and are the address and the password right?"
            )
            return
        with contextlib.closing(log):
            yield from _look(target, server, log, ERRORS)


def _open(link: Callable[[str], Any], url: str) -> Any:
    return link(url).connect(_TIMEOUT)


def _look(target: Target, server: Any, log: Any, errors: tuple[type[BaseException], ...]) -> Iterator[Finding]:
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("redis version", lambda: _version(server.info("server"), server.info("replication"))),
        ("redis memory", lambda: _memory(server.info("memory"))),
        ("redis disk", lambda: _disk(server.info("persistence"), server.config_get("save"))),
        ("redis buffers", lambda: _buffers(target, server.config_get("client-output-buffer-limit"), log)),
        ("redis timeouts", lambda: _timeouts(server.config_get("timeout"), server.config_get("tcp-keepalive"))),
        ("redis rights", lambda: _rights(target, log, errors)),
        ("redis log", lambda: _log(target, log)),
    )
    for check, judge in checks:
        try:
            yield judge()
        except errors as error:
            yield skip(check, f"not reported: {error}", "on a managed server see its console")


def _version(about: dict[str, Any], replication: dict[str, Any]) -> Finding:
    name = "Valkey" if "valkey_version" in about else "Redis"
    version = str(about.get("valkey_version") or about.get("redis_version") or "")
    parts = tuple(int(part) if part.isdigit() else 0 for part in version.split(".")[:2])
    if name == "Redis" and parts < _OLDEST:
        return fail("redis version", f"{name} {version}", "Redis 6.2 or later, or Valkey")
    if replication.get("role") in ("slave", "replica"):
        return fail(
            "redis version", f"{name} {version} is a replica, which accepts no writes", "the address of the primary"
        )
    return ok("redis version", f"{name} {version}")


def _memory(memory: dict[str, Any]) -> Finding:
    policy, limit, used = (
        str(memory.get("maxmemory_policy")),
        int(memory.get("maxmemory", 0)),
        int(memory["used_memory"]),
    )
    seen = f"maxmemory-policy {policy}, maxmemory {limit or 'unlimited'}"
    fix = "CONFIG SET maxmemory-policy noeviction, and in redis.conf; caches on a server of their own"
    if policy.startswith("allkeys"):
        if limit:
            return fail("redis memory", f"{seen}: a full server deletes the log, and all clients get a gap", fix)
        return warn("redis memory", f"{seen}: with a limit it would delete the log", fix)
    if policy.startswith("volatile") and limit:
        return warn("redis memory", f"{seen}: the log stays, but the list of connected clients may be deleted", fix)
    if limit and used > _NEARLY_FULL * limit:
        return warn(
            "redis memory",
            f"{seen}, and {used} bytes are used: soon no message can be sent",
            "more maxmemory, or a smaller log",
        )
    return ok("redis memory", seen)


def _disk(persistence: dict[str, Any], saving: dict[str, Any]) -> Finding:
    if persistence.get("aof_enabled"):
        return ok("redis disk", "append-only file")
    fix = "appendonly yes"
    if saving.get("save"):
        return warn("redis disk", "snapshots only: a crash loses minutes of the log, and clients get a gap", fix)
    return warn("redis disk", "no persistence: after a restart the log is empty, and clients get a gap", fix)


def _buffers(target: Target, setting: dict[str, Any], log: Any) -> Finding:
    from ssehub.log.redis.partition import PAGE

    words = str(setting.get("client-output-buffer-limit", "")).split()
    limits = {words[n]: (int(words[n + 1]), int(words[n + 2])) for n in range(0, len(words) - 3, 4)}
    limit = min((number for number in limits.get("normal", (0, 0)) if number), default=0)
    if not limit:
        return ok("redis buffers", "client-output-buffer-limit normal: none")
    need = PAGE * max((_entry_size(log, key) for key in _keys(target)), default=0)
    fix = 'CONFIG SET client-output-buffer-limit "normal 0 0 0", and in redis.conf'
    seen = f"client-output-buffer-limit normal: {limit} bytes"
    if need > limit:
        return fail(
            "redis buffers",
            f"{seen}; {PAGE} entries, which are read at once, take {need}: the reader is disconnected",
            fix,
        )
    if limit < _SMALL_BUFFER:
        return warn(
            "redis buffers", f"{seen}; a reader of {PAGE} larger entries at once (now {need}) is disconnected", fix
        )
    return ok("redis buffers", seen)


def _entry_size(log: Any, key: str) -> int:
    length = int(log.xlen(key))
    return int(log.memory_usage(key) or 0) // length if length else 0


def _timeouts(timeout: dict[str, Any], keepalive: dict[str, Any]) -> Finding:
    seconds, alive = int(timeout.get("timeout", 0)), int(keepalive.get("tcp-keepalive", 0))
    seen = f"timeout {seconds}, tcp-keepalive {alive}"
    if 0 < seconds < 10:
        return warn("redis timeouts", f"{seen}: senders are disconnected between messages", "CONFIG SET timeout 0")
    if not alive:
        return warn(
            "redis timeouts",
            f"{seen}: processes of a machine that vanished are not noticed",
            "CONFIG SET tcp-keepalive 300",
        )
    return ok("redis timeouts", seen)


def _rights(target: Target, log: Any, errors: tuple[type[BaseException], ...]) -> Finding:
    """Run the log's commands with keys of our own."""
    base = f"{{{target.log_name}}}:doctor"
    commands: tuple[tuple[Any, ...], ...] = (
        ("EVAL", _SCRIPT, 1, f"{base}:stream"),
        ("XREAD", "COUNT", 1, "STREAMS", f"{base}:stream", "0"),
        ("SET", f"{base}:text", "1", "PX", 60_000),
        ("SETNX", f"{base}:text", "1"),
        ("GET", f"{base}:text"),
        ("HSET", f"{base}:hash", "a", "1"),
        ("HGETALL", f"{base}:hash"),
        ("SADD", f"{base}:set", "1"),
        ("SMEMBERS", f"{base}:set"),
        *(("XLEN", key) for key in _keys(target)),
        ("DEL", f"{base}:stream", f"{base}:text", f"{base}:hash", f"{base}:set"),
    )
    refused: dict[str, str] = {}
    for command in commands:
        try:
            log.execute_command(*command)
        except errors as error:
            refused[str(command[0])] = str(error)
    if not refused:
        return ok("redis rights", "all commands that the log uses are allowed")
    keys = f"~{{{target.log_name}}}* ~{{{target.log_name}:*"
    fix = f"ACL SETUSER ... {keys} +@read +@write +@scripting +@connection +time"
    return fail("redis rights", f"refused: {', '.join(refused)} ({next(iter(refused.values()))})", fix)


def _log(target: Target, log: Any) -> Finding:
    agreed = log.get(f"{{{target.log_name}}}:partitions")
    if agreed is not None and int(agreed) != target.partitions:
        seen = f"the log {target.log_name!r} has {int(agreed)} partitions, not {target.partitions}"
        return fail("redis log", seen, f"partitions={int(agreed)} everywhere, and --partitions {int(agreed)} here")
    lengths = [int(log.xlen(key)) for key in _keys(target)]
    if not any(lengths):
        return ok("redis log", f"the log {target.log_name!r} is empty")
    if max(lengths) > target.log_size:
        seen = f"the log {target.log_name!r} holds {max(lengths)} entries, and size is {target.log_size}"
        return warn("redis log", seen, "set the same size in every process, and --size here")
    return ok("redis log", f"the log {target.log_name!r} holds {max(lengths)} entries of at most {target.log_size}")


def _keys(target: Target) -> list[str]:
    from ssehub.log.redis.stream import stream_key

    return [stream_key(target.log_name, number, target.partitions) for number in range(target.partitions)]
