"""The exceptions of this package. Wrong arguments raise ``ValueError`` or ``TypeError`` instead."""


class SSEHubError(Exception):
    """The base class of all exceptions of this package."""


class EventTooLarge(SSEHubError, ValueError):
    """A received event is larger than the decoder's ``max_event_size``."""


class HubClosed(SSEHubError, RuntimeError):
    """The hub was closed; the message was not sent."""


class UnknownClient(SSEHubError, LookupError):
    """No client with this id is connected."""


class LogError(SSEHubError):
    """The log did not accept a message, or cannot be read."""


class ProductionError(SSEHubError):
    """Raise it in the generator of a production to end it with the reason ``error``. Readers can see the text."""


class Backlogged(SSEHubError):
    """A message for one session was not accepted, because too many messages are queued for this session."""


class SubscriptionClosed(SSEHubError):
    """A subscription gives no more messages, because it was closed or its client has ended."""
