"""Checks: one module each. The function ``ask`` of a check yields its findings."""
