"""Integrations: servers and frameworks that ssehub knows by name. Nothing here is imported unless it is asked for."""
