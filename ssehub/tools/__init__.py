"""Tools for deployments: :mod:`ssehub.tools.doctor` finds faults, :mod:`ssehub.tools.bench` measures."""
