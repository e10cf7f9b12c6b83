"""risk/: see its protocol."""
