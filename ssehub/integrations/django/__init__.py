"""Django: a hub from the settings, views that stream, a command that sends.

Add ``"ssehub.integrations.django"`` to ``INSTALLED_APPS``, and to the URLs ``path("events", views.events)`` with
``from ssehub.integrations.django import views``. ``views.stream`` makes a stream of a view of your own. To send, from
anywhere: ``from ssehub.integrations.django import hub``, then ``hub().broadcast(...)``.
"""

from ssehub.integrations.django.site import hub

__all__ = ["hub"]
