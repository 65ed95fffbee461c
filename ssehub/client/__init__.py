"""The client side: follows event streams, and sends messages to a hub that runs as a service."""

from ssehub.backoff import Backoff
from ssehub.client.client import Client
from ssehub.client.publish import publish
from ssehub.client.responses import StreamRefused, reason
from ssehub.client.subscription import Subscription
from ssehub.client.transport import Timeout

__all__ = ["Backoff", "Client", "StreamRefused", "Subscription", "Timeout", "publish", "reason"]
