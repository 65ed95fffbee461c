"""Integrations with servers and frameworks. None of these modules is imported unless you import it."""
