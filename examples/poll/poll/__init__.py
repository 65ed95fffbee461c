"""A poll whose results are live."""
