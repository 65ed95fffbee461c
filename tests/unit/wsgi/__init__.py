"""Tests of ssehub.wsgi."""
