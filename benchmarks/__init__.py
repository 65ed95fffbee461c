"""Benchmarks of ssehub, and the fleet of subscribers that they and the load tests use."""
