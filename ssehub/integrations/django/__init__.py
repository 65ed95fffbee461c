"""Django: a hub that is configured in the settings, views that return streams, and a command that sends messages.

Add ``"ssehub.integrations.django"`` to ``INSTALLED_APPS``, and ``path("events", views.events)`` to the URLs, with
``from ssehub.integrations.django import views``. To return a stream from a view of your own, decorate it with
``views.stream``. To send a message: ``from ssehub.integrations.django import hub``, then ``hub().broadcast(...)``. To
send it only if a transaction is committed: ``after_commit(...)``. To render a template and send it: ``render(...)``. In
templates, ``{% load ssehub %}`` brings the tag ``{% sse_source "news" kind="turbo" %}``, which opens a stream.
"""

from ssehub.integrations.django.commit import after_commit
from ssehub.integrations.django.pages import fragment, render
from ssehub.integrations.django.site import hub

__all__ = ["after_commit", "fragment", "hub", "render"]
