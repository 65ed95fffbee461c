"""Peers: other servers that ssehub is compared with under the same load."""
