"""Tests of ssehub.events."""
