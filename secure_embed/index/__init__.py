"""index/: see its protocol."""
