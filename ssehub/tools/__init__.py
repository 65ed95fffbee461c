"""Tools for deployments: the doctor and the benchmark. The library does not import them."""
