"""Key providers, the key tree, sealing and opening, shredding. Knows no record but by its position."""

from secure_embed.keys.blocks import BlockTable, block_positions, by_block
from secure_embed.keys.catalogue import CatalogueKeys, rows_key
from secure_embed.keys.collection import CollectionKeys
from secure_embed.keys.database import SealedDatabase
from secure_embed.keys.key_store import SqlcipherKeyStore
from secure_embed.keys.keyring import Keyring, Purpose, Secret
from secure_embed.keys.locked import LockedMemory
from secure_embed.keys.passphrase import PassphraseProvider
from secure_embed.keys.protocol import (
    KeyBatch,
    KeyBlock,
    KeyProvider,
    KeyStore,
    ProviderDescription,
    Shredded,
    WrappedCollection,
    WrappedKey,
)
from secure_embed.keys.providers import ProviderWatch, create_provider, open_provider, replace_root, retire_root
from secure_embed.keys.sealed_table import SealedTable, SealedTables
from secure_embed.keys.sealing import CatalogueValue, IndexValue
from secure_embed.keys.successor import LeftOver, Successor
from secure_embed.keys.tags import TagKind, attribute_parts

__all__ = [
    "BlockTable",
    "CatalogueKeys",
    "CatalogueValue",
    "CollectionKeys",
    "IndexValue",
    "KeyBatch",
    "KeyBlock",
    "KeyProvider",
    "KeyStore",
    "Keyring",
    "LeftOver",
    "LockedMemory",
    "PassphraseProvider",
    "ProviderDescription",
    "ProviderWatch",
    "Purpose",
    "SealedDatabase",
    "SealedTable",
    "SealedTables",
    "Secret",
    "Shredded",
    "SqlcipherKeyStore",
    "Successor",
    "TagKind",
    "WrappedCollection",
    "WrappedKey",
    "attribute_parts",
    "block_positions",
    "by_block",
    "create_provider",
    "open_provider",
    "replace_root",
    "retire_root",
    "rows_key",
]
