"""Pages: how the sessions of a client at one process are written to the hash ``clients:<process>`` on Redis.

There are two cases:

* A client with few sessions has one field, its id. The value is its record: its metadata and its sessions.
* A client with many sessions has several pages. The first page is the record above, with only some of the sessions. The
  further pages hold only sessions, and one more field holds the number of pages. A session stays in its page. So when a
  session begins or ends, only its page and the first one are written, even if there are thousands of sessions.

Records that cannot be read, because another program has written them, are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssehub.log.presence import Here, Session
from ssehub.logger import logger

#: The maximum number of sessions in a page.
PAGE = 32
#: The separator between a client's id and a page's number in the name of a field. Ids cannot contain it.
MARK = "\n"


def record(client_id: str, sessions: Sequence[Here], metadata: Any) -> str:
    """Return a client's first page as JSON."""
    try:
        return json.dumps([metadata, *map(_session, sessions)])
    except (TypeError, ValueError) as error:  # the application has changed the metadata after it was checked
        logger.error("the metadata of client %r is not shared with other processes: %s", client_id, error)
        return json.dumps([None, *map(_session, sessions)])


class Pages:
    """The pages of one client with many sessions. Not thread-safe.

    :param sessions: the client's sessions at the beginning.
    """

    def __init__(self, client_id: str, sessions: Iterable[Here]) -> None:
        self._client_id = client_id
        self._pages: list[dict[str, Here]] = [{}]
        #: The page number of each session, and the numbers of the pages that have room.
        self._where: dict[str, int] = {}
        self._room = {0}
        for one in sessions:
            self._put(one)

    def __len__(self) -> int:
        return len(self._where)

    @property
    def sessions(self) -> list[Here]:
        """The sessions in all pages."""
        return [one for page in self._pages for one in page.values()]

    def change(self, sessions: Mapping[str, Here | None]) -> dict[str, str]:
        """Add and remove sessions, and return the fields to write.

        The first page is always returned, because the metadata in it may have changed.

        :param sessions: new sessions by id; None for a session that has ended.
        """
        changed = {self._drop(id) if one is None else self._put(one) for id, one in sessions.items()}
        return self._fields(changed - {None, 0})

    def all(self) -> dict[str, str]:
        """Return all fields."""
        return self._fields(range(1, len(self._pages)))

    def none(self) -> dict[str, str]:
        """Return the fields of all pages but the first, with empty values, which deletes them."""
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
    """Return the sessions of all clients of a process."""
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
    """Return the sessions of a client at a process.

    :param first: the first page.
    :param further: the other pages, as a JSON array.
    """
    metadata, *sessions = _array(first) or [None]
    found = _read(process, client_id, metadata, sessions)
    for page in _array(further):
        found += _read(process, client_id, metadata, page)
    return found


def read_metadata(first: bytes) -> list[Any]:
    """Return a list with the client's metadata, or an empty list if the first page cannot be read."""
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
    except Exception:  # nested too deeply, too long, or not JSON
        return []
    return found if isinstance(found, list) else []
