"""Tests of single modules. They need only the test extra."""
