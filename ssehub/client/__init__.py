"""The client side: following a stream, and sending to a hub that runs as a service."""

from ssehub.client.transport import follow, publish

__all__ = ["follow", "publish"]
