"""The contract of all logs, tested with all ways of delivery."""
