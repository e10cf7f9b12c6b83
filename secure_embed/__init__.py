"""secure_embed: an on-premises embedding store for regulated workloads.

Nothing is read, opened or registered at import; see ``docs/architecture.md`` for the way of a query.
"""

__version__ = "0.1.0"
