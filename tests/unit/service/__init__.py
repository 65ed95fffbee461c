"""Tests of ssehub.service."""
