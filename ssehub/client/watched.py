"""Watched: a user's session, with connections that can be cut off, and without the bodies of redirects."""

from __future__ import annotations

import types
from http.cookiejar import CookieJar
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from ssehub.client.cancellation import WatchedAdapter

#: Cookies that are kept, and bytes of one: a server may set new ones with each answer. Precedent: RFC 6265 6.1 asks for
#: 50 of 4096 bytes at least.
_COOKIES = 100
_COOKIE_SIZE = 4096


class Watched:
    """Give a session that is the user's, but for its plain adapters. It belongs to the thread that reads.

    The user's session is not changed, and may be used by others meanwhile.

    :param session: the user's. What is set on it later counts, and what its own methods set is set on it.
    :ivar session: the same, with adapters whose connections are watched.
    """

    def __init__(self, session: requests.Session) -> None:
        self._adapters: dict[HTTPAdapter, WatchedAdapter] = {}
        self.session: requests.Session = object.__new__(_kind_of(session, self._replaced))
        self.session.__dict__ = session.__dict__

    def close(self) -> None:
        """Close the adapters that are ours."""
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
    """Make this the content of a response, and end it; ``requests`` would read all of it, and undo its compression."""
    response._content = content
    response._content_consumed = True  # type: ignore[attr-defined]
    if not getattr(response.raw, "closed", True):
        response.raw.close()


def trim(cookies: CookieJar) -> None:
    """Drop the largest cookies, and those that were set first if there are too many."""
    large = [one for one in cookies if len(one.name) + len(one.value or "") > _COOKIE_SIZE]
    for one in large:
        cookies.clear(one.domain, one.path, one.name)
    for one in list(cookies)[:-_COOKIES]:
        cookies.clear(one.domain, one.path, one.name)


def _kind_of(session: requests.Session, replaced: Any) -> type[requests.Session]:
    """Make a class of sessions that share the state of one."""
    kind: Any = type(session)

    class _Sharing(kind):  # type: ignore[misc]
        def get_adapter(self, url: str) -> Any:
            return replaced(super().get_adapter(url))

        def get_redirect_target(self, resp: requests.Response) -> str | None:
            target: str | None = super().get_redirect_target(resp)
            if target is not None:
                # requests would read the body, which may be endless, before it goes on.
                keep(resp, b"")
            return target

        def __del__(self) -> None:
            """Leave open what the user's session still has."""

    for base in kind.__mro__:
        for name, member in vars(base).items():
            if isinstance(member, types.MemberDescriptorType):  # of __slots__, which no __dict__ holds
                setattr(_Sharing, name, _shared(session, member))
    return _Sharing


def _shared(session: requests.Session, member: Any) -> property:
    def _read(_: object) -> Any:
        return member.__get__(session)

    def _write(_: object, value: object) -> None:
        member.__set__(session, value)

    return property(_read, _write)
