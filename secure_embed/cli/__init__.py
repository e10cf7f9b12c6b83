"""cli/: see its protocol."""
