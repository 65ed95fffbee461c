"""Peers: programs that ssehub is compared with, each under the same load."""
