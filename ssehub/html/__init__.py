"""HTML: events for pages without JavaScript of their own, in the formats of htmx, Turbo and Datastar.

Import a library's functions as a module: ``from ssehub.html import turbo``, then
``hub.broadcast(turbo.append("list", html))``. Each function returns a :class:`~ssehub.Message`. None of them needs the
library, or checks the HTML: take it from a template that escapes the values in it.

If the HTML is left out, most of them return a function that takes it. The integrations use this to render a template
and send it: ``sse.render("row.html", into=turbo.append("list"), zone="news", row=row)``.
"""

from ssehub.html import datastar, htmx, turbo

__all__ = ["datastar", "htmx", "turbo"]
