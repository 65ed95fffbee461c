"""Tests of single modules: they need nothing but the test extra."""
