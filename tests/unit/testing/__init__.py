"""Tests of ssehub.testing."""
