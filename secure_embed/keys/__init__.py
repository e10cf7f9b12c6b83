"""keys/: see its protocol."""
