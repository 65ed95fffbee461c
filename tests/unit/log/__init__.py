"""Tests of ssehub.log."""
