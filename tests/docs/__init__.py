"""The README and the pages: what they show runs."""
