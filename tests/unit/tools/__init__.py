"""Tests of ssehub.tools."""
