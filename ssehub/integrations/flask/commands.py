"""Commands: ``flask ssehub send``."""

from __future__ import annotations

import click
from flask import current_app
from flask.cli import AppGroup

from ssehub.exceptions import LogError
from ssehub.integrations.settings import send_and_close
from ssehub.wsgi.hub import Hub

commands = AppGroup("ssehub", help="Send messages to the clients of this application.")


@commands.command("send")
@click.argument("text")
@click.option("--zone", help="Only to this zone.")
@click.option("--client-id", help="Only to this client.")
@click.option("--event", default="message", help="The event type.")
@click.option("--id", help="The event id.")
def _send(text: str, zone: str | None, client_id: str | None, event: str, id: str | None) -> None:
    """Send TEXT to all clients, a zone or a client."""
    hub: Hub = current_app.extensions["ssehub"]
    if not hub.is_shared:
        raise click.ClickException("the log is in the memory of the server's process: set SSEHUB_LOG to a shared one")
    try:
        receipt = send_and_close(hub, text, zone, client_id, event, id)
    except (ValueError, LogError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(receipt.id)
