"""A poll with live results."""
