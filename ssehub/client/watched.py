"""Watched: a user's session with connections that can be aborted, and without reading the bodies of redirects."""

from __future__ import annotations

import types
from http.cookiejar import CookieJar
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from ssehub.client.cancellation import WatchedAdapter

#: Maximum number of cookies, and of bytes in one: a server may set new ones in each response. Precedent: RFC 6265 6.1
#: requires at least 50 of 4096 bytes.
_COOKIES = 100
_COOKIE_SIZE = 4096


class Watched:
    """A session that equals the user's, except for its plain adapters. It belongs to the thread that reads.

    The user's session is not changed, and may be used by other threads at the same time.

    :param session: the user's session. Later changes to it take effect, and its methods still change it.
    :ivar session: the same session, with adapters whose connections are watched.
    """

    def __init__(self, session: requests.Session) -> None:
        self._adapters: dict[HTTPAdapter, WatchedAdapter] = {}
        self.session: requests.Session = object.__new__(_kind_of(session, self._replaced))
        self.session.__dict__ = session.__dict__

    def close(self) -> None:
        """Close the adapters that belong to this object."""
        for adapter in self._adapters.values():
            adapter.close()

    def _replaced(self, adapter: Any) -> Any:
        if type(adapter) is not HTTPAdapter:
            return adapter
        ours = self._adapters.get(adapter)
        if ours is None:
            ours = self._adapters[adapter] = WatchedAdapter.instead_of(adapter)
        return ours


def keep(response: requests.Response, content: bytes) -> None:
    """Set the content of a response, and end it. ``requests`` would read the whole body and decompress it."""
    response._content = content
    response._content_consumed = True  # type: ignore[attr-defined]
    if not getattr(response.raw, "closed", True):
        response.raw.close()


def trim(cookies: CookieJar) -> None:
    """Drop the largest cookies, and the oldest ones if there are too many."""
    large = [one for one in cookies if len(one.name) + len(one.value or "") > _COOKIE_SIZE]
    for one in large:
        cookies.clear(one.domain, one.path, one.name)
    for one in list(cookies)[:-_COOKIES]:
        cookies.clear(one.domain, one.path, one.name)


def _kind_of(session: requests.Session, replaced: Any) -> type[requests.Session]:
    """Return a class of sessions that share the state of one session."""
    kind: Any = type(session)

    class _Sharing(kind):  # type: ignore[misc]
        def get_adapter(self, url: str) -> Any:
            return replaced(super().get_adapter(url))

        def get_redirect_target(self, resp: requests.Response) -> str | None:
            target: str | None = super().get_redirect_target(resp)
            if target is not None:
                # requests would read the body, which may be endless, before it follows the redirect.
                keep(resp, b"")
            return target

        def __del__(self) -> None:
            """Leave everything open that the user's session still uses."""

    for base in kind.__mro__:
        for name, member in vars(base).items():
            if isinstance(member, types.MemberDescriptorType):  # attributes in __slots__ are not in __dict__
                setattr(_Sharing, name, _shared(session, member))
    return _Sharing


def _shared(session: requests.Session, member: Any) -> property:
    def _read(_: object) -> Any:
        return member.__get__(session)

    def _write(_: object, value: object) -> None:
        member.__set__(session, value)

    return property(_read, _write)
