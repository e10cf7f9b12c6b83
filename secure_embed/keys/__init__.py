"""Key providers, the key tree, sealing and opening, shredding. Knows no record but by its position."""

from secure_embed.keys.catalogue import CatalogueKeys
from secure_embed.keys.collection import CollectionKeys
from secure_embed.keys.database import SealedDatabase
from secure_embed.keys.key_store import SqlcipherKeyStore
from secure_embed.keys.keyring import Keyring, Secret
from secure_embed.keys.passphrase import PassphraseProvider
from secure_embed.keys.protocol import (
    KeyProvider,
    KeyStore,
    ProviderDescription,
    Shredded,
    WrappedCollection,
    WrappedKey,
)
from secure_embed.keys.providers import ProviderWatch, create_provider, open_provider, replace_root, retire_root
from secure_embed.keys.sealing import CatalogueValue, IndexValue
from secure_embed.keys.tags import TagKind, attribute_parts

__all__ = [
    "CatalogueKeys",
    "CatalogueValue",
    "CollectionKeys",
    "IndexValue",
    "KeyProvider",
    "KeyStore",
    "Keyring",
    "PassphraseProvider",
    "ProviderDescription",
    "ProviderWatch",
    "SealedDatabase",
    "Secret",
    "Shredded",
    "SqlcipherKeyStore",
    "TagKind",
    "WrappedCollection",
    "WrappedKey",
    "attribute_parts",
    "create_provider",
    "open_provider",
    "replace_root",
    "retire_root",
]
