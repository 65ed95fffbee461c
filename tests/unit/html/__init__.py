"""Tests of ssehub.html."""
