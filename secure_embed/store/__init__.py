"""Records at rest. Every value arrives sealed or as a keyed hash: this room holds no key and opens nothing.

The one key it is given is that of its file. Data-subject tags lie in the keys database, not here.
"""

from secure_embed.store.protocol import (
    Appended,
    Change,
    RecordStore,
    RequestKey,
    SealedCollection,
    SealedRow,
    StateKind,
    Versions,
)
from secure_embed.store.sqlcipher import SqlcipherRecordStore

__all__ = [
    "Appended",
    "Change",
    "RecordStore",
    "RequestKey",
    "SealedCollection",
    "SealedRow",
    "SqlcipherRecordStore",
    "StateKind",
    "Versions",
]
