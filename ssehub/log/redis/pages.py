"""Pages: what is written of a client's sessions at one process. One that comes or goes costs the same among thousands.

What is read may have been written by another program: then it is skipped.

Of a client with few sessions there is one record: its metadata, and its sessions. With more there are further ones, and
a field that counts them. A session stays in its page, and only that page is written anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssehub.log.presence import Here, Session
from ssehub.logger import logger

#: Sessions in a page.
PAGE = 32
#: What follows a client's id in the names of the other fields; no id has it.
MARK = "\n"


def record(client_id: str, sessions: Sequence[Here], metadata: Any) -> str:
    """Write a client's first page."""
    try:
        return json.dumps([metadata, *map(_session, sessions)])
    except (TypeError, ValueError) as error:  # the application has changed it since
        logger.error("the metadata of client %r is not told to other processes: %s", client_id, error)
        return json.dumps([None, *map(_session, sessions)])


class Pages:
    """Keep the pages of one client that has many sessions. It belongs to one thread.

    :param sessions: those that it has.
    """

    def __init__(self, client_id: str, sessions: Iterable[Here]) -> None:
        self._client_id = client_id
        self._pages: list[dict[str, Here]] = [{}]
        #: The page of each session, and pages that have room.
        self._where: dict[str, int] = {}
        self._room = {0}
        for one in sessions:
            self._put(one)

    def __len__(self) -> int:
        return len(self._where)

    @property
    def sessions(self) -> list[Here]:
        """All sessions."""
        return [one for page in self._pages for one in page.values()]

    def change(self, sessions: Mapping[str, Here | None]) -> dict[str, str]:
        """Take in sessions that have come, and let go of those that are gone (None); return the fields to write.

        The first page is always among them, for the metadata in it.
        """
        changed = {self._drop(id) if one is None else self._put(one) for id, one in sessions.items()}
        return self._fields(changed - {None, 0})

    def all(self) -> dict[str, str]:
        """Return all fields."""
        return self._fields(range(1, len(self._pages)))

    def none(self) -> dict[str, str]:
        """Return the fields that are to go with the pages, all but the first page."""
        further = [f"{self._client_id}{MARK}{number}" for number in range(1, len(self._pages))]
        return dict.fromkeys((f"{self._client_id}{MARK}", *further), "")

    def _fields(self, numbers: Iterable[int | None]) -> dict[str, str]:
        metadata = next((one.metadata for page in self._pages for one in page.values()), None)
        fields = {self._client_id: record(self._client_id, list(self._pages[0].values()), metadata)}
        fields[f"{self._client_id}{MARK}"] = str(len(self._pages))
        for number in numbers:
            assert number is not None
            page = self._pages[number]
            fields[f"{self._client_id}{MARK}{number}"] = json.dumps([*map(_session, page.values())]) if page else ""
        return fields

    def _put(self, one: Here) -> int | None:
        if one.id in self._where:
            return None
        if not self._room:
            self._room.add(len(self._pages))
            self._pages.append({})
        number = min(self._room)
        page = self._pages[number]
        page[one.id] = one
        self._where[one.id] = number
        if len(page) >= PAGE:
            self._room.remove(number)
        return number

    def _drop(self, id: str) -> int | None:
        number = self._where.pop(id, None)
        if number is not None:
            del self._pages[number][id]
            self._room.add(number)
        return number


def _session(one: Here) -> list[Any]:
    return [one.id, one.connected_at, *one.zones]


def read_everybody(process: str, fields: Mapping[bytes, bytes]) -> list[Session]:
    """Read the sessions at a process, of all its clients."""
    found = []
    for field, page in fields.items():
        name, mark, number = field.partition(MARK.encode())
        client_id = name.decode(errors="replace")
        if not mark:
            found += read_client(process, client_id, page)
        elif number:
            for metadata in read_metadata(fields.get(name, b"")):
                found += _read(process, client_id, metadata, _array(page))
    return found


def read_client(process: str, client_id: str, first: bytes, further: bytes = b"[]") -> list[Session]:
    """Read the sessions of a client at a process.

    :param further: the pages after the first, as an array.
    """
    metadata, *sessions = _array(first) or [None]
    found = _read(process, client_id, metadata, sessions)
    for page in _array(further):
        found += _read(process, client_id, metadata, page)
    return found


def read_metadata(first: bytes) -> list[Any]:
    """Read what is noted about a client: one value; none if the page cannot be read."""
    return _array(first)[:1]


def _read(process: str, client_id: str, metadata: Any, page: Any) -> list[Session]:
    try:
        return [
            Session(str(id), client_id, tuple(map(str, zones)), float(since), metadata, process)
            for id, since, *zones in page
        ]
    except Exception:
        logger.debug("sessions of process %r cannot be read", process)
        return []


def _array(text: bytes) -> list[Any]:
    try:
        found = json.loads(text)
    except Exception:  # too deep, too long, or no JSON
        return []
    return found if isinstance(found, list) else []
