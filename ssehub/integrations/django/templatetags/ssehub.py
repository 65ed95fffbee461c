"""Tags of templates: ``{% load ssehub %}``, then ``{% sse_source "news" kind="turbo" %}``."""

from __future__ import annotations

from typing import Any

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.utils.safestring import SafeString

from ssehub.integrations.django import pages

register = template.Library()


@register.simple_tag(takes_context=True)
def sse_source(context: Any, *zones: str, kind: Any = "turbo", cursor: str = "", url: str = "") -> SafeString:
    """Return what opens a stream of these zones; see :func:`ssehub.integrations.django.pages.source`."""
    return pages.source(_request(context), zones or "default", kind, cursor=cursor or None, url=url or None)


@register.simple_tag(takes_context=True)
def sse_url(context: Any, *zones: str, cursor: str = "", url: str = "") -> str:
    """Return the address of a stream of these zones; see :func:`ssehub.integrations.django.pages.address`."""
    return pages.address(_request(context), zones or "default", cursor=cursor or None, url=url or None)


def _request(context: Any) -> HttpRequest:
    request = getattr(context, "request", None) or context.get("request")
    if request is None:
        raise ImproperlyConfigured("sse_source and sse_url need the request: use django.shortcuts.render(request, ...)")
    return request
