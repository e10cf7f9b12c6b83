"""A backup is one when it opens: every record of the copy, with the keys of the copy."""

from pathlib import Path

from secure_embed.collection import Holdings
from secure_embed.errors import IntegrityFailure
from secure_embed.keys import CatalogueKeys, Keyring, Secret, SqlcipherKeyStore, rows_key
from secure_embed.store import SqlcipherRecordStore

__all__ = ["records_opened"]


def records_opened(data: Path, keys: Path, keyring: Keyring) -> int:
    """Open every sealed value of a copied store; how many records there are.

    Raises ``IntegrityFailure``: ``backup_damaged``, ``sealed_value_unreadable``, ``database_unreadable``,
    ``segment_damaged``.
    """
    databases = data / "data/data.db", keys / "keys/keys.db"
    of_rows = rows_key(keyring.secret(Secret.CATALOGUE))
    catalogue = CatalogueKeys(keyring.secret(Secret.CATALOGUE))
    store = SqlcipherRecordStore(databases[0], keyring.secret(Secret.DATA_STORE), of_rows)
    key_store = None
    try:
        key_store = SqlcipherKeyStore(databases[1], keyring.secret(Secret.KEYS_STORE), of_rows)
        holdings = Holdings(keyring=keyring, key_store=key_store, store=store, catalogue=catalogue, budget=0)
        total = 0
        for name in holdings.names():
            with holdings.using(name) as holding:
                opened, records = holding.open_all(), holding.records
            if opened != records:
                raise IntegrityFailure("the backup is damaged: a record has no key", code="backup_damaged")
            total += opened
        holdings.close()
        return total
    finally:
        if key_store is not None:
            key_store.close()
        store.close()
        catalogue.close()
        for database in databases:
            database.with_name(f"{database.name}.lock").unlink(missing_ok=True)
