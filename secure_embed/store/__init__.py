"""store/: see its protocol."""
