"""Tests of ssehub.client."""
