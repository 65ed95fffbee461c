"""Watched: a user's session with connections that can be aborted, and without reading the bodies of redirects."""

from __future__ import annotations

import functools
import types
from http.cookiejar import CookieJar
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from ssehub.client.body import keep
from ssehub.client.cancellation import WatchedAdapter

#: Maximum number of cookies, and of bytes in one: a server may set new ones in each response. Precedent: RFC 6265 6.1
#: requires at least 50 of 4096 bytes.
_COOKIES = 100
_COOKIE_SIZE = 4096


class WatchedSession(requests.Session):
    """The methods that replace those of a user's session."""

    def get_adapter(self, url: str) -> Any:
        """Return an adapter whose connections are watched; called by ``requests``."""
        adapter = super().get_adapter(url)
        return sharing(adapter, WatchedAdapter) if isinstance(adapter, HTTPAdapter) else adapter

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return where a redirect leads to; called by ``requests``."""
        target: str | None = super().get_redirect_target(resp)
        if target is not None:
            # requests would read the body, which may be endless, before it goes on.
            keep(resp, b"")
        return target

    def resolve_redirects(self, resp: requests.Response, *args: Any, **options: Any) -> Any:
        """Follow redirects; called by ``requests``, also to work out where one leads to that is not followed."""
        if not options.get("yield_requests"):
            yield from super().resolve_redirects(resp, *args, **options)
        elif resp.is_redirect:
            keep(resp, b"")

    def __del__(self) -> None:
        """Leave open what the user's session still has."""


def watched(session: requests.Session) -> requests.Session:
    """Return a session that is the user's, except that its connections are watched (:class:`WatchedAdapter`).

    The user's session is not changed, and may be used by others meanwhile. What is set on it later counts, and what its
    own methods set is set on it. The same holds for its adapters. Closing the user's session closes the connections.
    """
    made: requests.Session = sharing(session, WatchedSession)
    return made


def sharing(original: Any, replacing: type) -> Any:
    """Make an object that shares the state of another one.

    :param replacing: the class whose methods replace those of the other's class.
    """
    kind: Any = type(original)
    made: Any = object.__new__(_kind(kind, replacing))
    made._original = original
    made.__dict__ = original.__dict__
    return made


def trim(cookies: CookieJar) -> None:
    """Drop the largest cookies, and the oldest ones if there are too many."""
    large = [one for one in cookies if len(one.name) + len(one.value or "") > _COOKIE_SIZE]
    for one in large:
        cookies.clear(one.domain, one.path, one.name)
    for one in list(cookies)[:-_COOKIES]:
        cookies.clear(one.domain, one.path, one.name)


@functools.cache
def _kind(kind: Any, replacing: Any) -> type:
    shared = {
        name: _shared(member)
        for base in reversed(kind.__mro__)
        for name, member in vars(base).items()
        if isinstance(member, types.MemberDescriptorType)  # of __slots__, which no __dict__ holds
    }
    return type(kind.__name__, (replacing, kind), {**shared, "__slots__": ("_original",)})


def _shared(member: Any) -> property:
    def _read(self: Any) -> Any:
        return member.__get__(self._original)

    def _write(self: Any, value: object) -> None:
        member.__set__(self._original, value)

    return property(_read, _write)
