"""The service: a hub that programs use over HTTP, with a console page."""

from ssehub.service.app import create_app

__all__ = ["create_app"]
