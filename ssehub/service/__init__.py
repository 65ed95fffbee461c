"""The service: a hub that others use over HTTP, with a console page."""

from ssehub.service.app import create_app

__all__ = ["create_app"]
