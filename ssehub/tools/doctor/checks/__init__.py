"""Questions: what the doctor asks, a module for each; its ``ask`` looks, and yields what it has found."""
