"""access/: see its protocol."""
