"""Campaigns: what the service has to survive, tried thousands of times. `make crash`, `make corrupt`; see README.md."""
