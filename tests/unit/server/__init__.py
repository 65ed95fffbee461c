"""Tests of ssehub.server."""
