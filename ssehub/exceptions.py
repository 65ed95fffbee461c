"""The error tree. A wrong argument is a ``ValueError`` or ``TypeError`` where the value is made; the rest is here."""


class SSEHubError(Exception):
    """Root of all errors of this package."""


class EventTooLarge(SSEHubError, ValueError):
    """An event being received is longer than the decoder takes."""


class HubClosed(SSEHubError, RuntimeError):
    """The hub was closed; the message was not sent."""


class UnknownClient(SSEHubError, LookupError):
    """No client of that name is connected."""


class LogError(SSEHubError):
    """The log has not accepted a message, or cannot be read."""


class Backlogged(SSEHubError):
    """A message for one session was not taken, because too many wait for it already."""


class SubscriptionClosed(SSEHubError):
    """No more messages come through a subscription: it was closed, or its client has ended."""
