"""Flask: a hub as a Flask extension. Use ``SSEHub(app)``, or ``SSEHub()`` and ``init_app(app)``."""

from ssehub.integrations.flask.extension import SSEHub

__all__ = ["SSEHub"]
