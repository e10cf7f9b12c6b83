"""embed/: see its protocol."""
