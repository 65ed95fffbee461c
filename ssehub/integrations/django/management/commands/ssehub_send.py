"""``manage.py ssehub_send``: sends a message to the clients of this site."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ssehub.exceptions import LogError
from ssehub.integrations.django.site import hub
from ssehub.integrations.settings import send_and_close


class Command(BaseCommand):
    """Sends a message to all clients, a zone or a client."""

    help = "Send a message to all clients, a zone or a client; it needs a shared log."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments."""
        parser.add_argument("text")
        parser.add_argument("--zone", help="only to this zone")
        parser.add_argument("--client-id", help="only to this client")
        parser.add_argument("--event", default="message", help="the event type")
        parser.add_argument("--id", help="the event id")

    def handle(self, *arguments: Any, **options: Any) -> None:
        """Send the message, and print its id."""
        if not hub().is_shared:
            raise CommandError("the log is in the memory of the server's process: set LOG in settings.SSEHUB")
        given = {name: options[name] for name in ("text", "zone", "client_id", "event", "id")}
        try:
            receipt = send_and_close(hub(), **given)
        except (ValueError, LogError) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(receipt.id)
