"""api/: see its protocol."""
