"""audit/: see its protocol."""
