"""The deployment's own secrets, each wrapped by the root key in ``keyring.json``; and the root's wrapping of
collection keys, bound to their place. Format: docs/formats.md. No record, no database is known here.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from threading import Lock
from uuid import UUID, uuid4

from secure_embed.errors import Conflict, Unavailable
from secure_embed.keys.keyring_file import KeyringFile, Purpose, Secret, next_path
from secure_embed.keys.locked import Held, LockedMemory
from secure_embed.keys.protocol import KeyProvider
from secure_embed.keys.root import NewKey, Root
from secure_embed.keys.successor import LeftOver, Successor

__all__ = ["Keyring", "NewKey", "Purpose", "Secret"]


class Keyring:
    """The unlocked secrets and the root they came from. Its provider stays its owner's to close, and so does
    ``memory``, where the secrets lie and where the keys of collections are put beside them. Thread safe."""

    def __init__(self, path: Path, root: Root, unlocked: Mapping[Secret, bytes], memory: LockedMemory | None) -> None:
        self.deployment_id = root.deployment_id
        self.memory = LockedMemory() if memory is None else memory
        self._path = path
        self._root = root
        self._secrets: Mapping[Secret, Held] = {name: self.memory.hold(secret) for name, secret in unlocked.items()}
        self._successor: Successor | None = None
        self._changing = Lock()  # of root, secrets and successor together
        self._closed = False

    @classmethod
    def create(cls, path: Path, provider: KeyProvider, memory: LockedMemory | None = None) -> "Keyring":
        """Make a deployment's id and secrets and write them, whole or not at all.

        Raises ``ConfigurationError`` (``key_file_exists``).
        """
        root = Root(provider, uuid4())
        made = {name: root.new_secret(name) for name in Secret}
        root.file(Purpose.CREATE, {name: new.wrapped for name, new in made.items()}).write(path)
        return cls(path, root, {name: new.key for name, new in made.items()}, memory)

    @classmethod
    def open(cls, path: Path, provider: KeyProvider, memory: LockedMemory | None = None) -> "Keyring":
        """Raises ``ConfigurationError``: ``key_file_missing``, ``key_file_invalid``, ``root_key_mismatch`` for a
        keyring of another root; ``SealedValueUnreadable`` for a secret that was changed, swapped or wrapped elsewhere.
        """
        file = KeyringFile.read(path)
        root = Root(provider, file.deployment_id)
        return cls(path, root, root.opened(file, name=path.name), memory)

    # --- secrets and collection keys -------------------------------------------------------------------------------

    def secret(self, name: Secret) -> bytes:
        """32 bytes; the copy is the caller's to drop."""
        with self._changing:
            return self._secrets[name].copy()

    @property
    def root_key_id(self) -> str:
        """Of the root that wraps new collection keys."""
        return self._root.key_id

    def new_collection_key(self, uuid: UUID, version: int, *, root_key_id: str | None) -> NewKey:
        """Drawn where the root key lies when that place makes keys; bound to deployment, collection and version.

        ``root_key_id``: of the root that the key store names, which is the successor's already while a rotation ends;
        None: the present one. Raises ``Conflict`` as :meth:`unwrap_collection_key`.
        """
        self._refuse_closed()
        root = self._root if root_key_id is None else self._root_of(root_key_id)
        return root.new_collection_key(uuid, version)

    def unwrap_collection_key(self, wrapped: bytes, uuid: UUID, version: int, *, root_key_id: str) -> bytes:
        """Raises ``SealedValueUnreadable`` for a key of another place or version, ``Conflict`` (``root_key_stale``)
        for one of another root than the present one and its successor."""
        self._refuse_closed()
        return self._root_of(root_key_id).unwrap_collection_key(wrapped, uuid, version)

    def close(self) -> None:
        """Overwrite the secrets, as far as CPython allows. Later calls raise ``Unavailable`` (``keys_closed``)."""
        with self._changing:
            self._closed = True
            secrets, successor = self._secrets, self._successor
        for secret in secrets.values():
            secret.wipe()
        if successor is not None:
            successor.close()

    # --- successors ------------------------------------------------------------------------------------------------

    def prepare(
        self, purpose: Purpose, *, provider: KeyProvider | None = None, renew: Collection[Secret] = ()
    ) -> Successor:
        """Write ``keyring.next.json``: the same secrets, but new ones for ``renew``, wrapped by ``provider`` or else by
        the present one. Durable on return, and read again from the file. Nothing else has changed then.

        Raises ``ConfigurationError`` (``key_file_exists``) while there is one, and what the provider raises.
        """
        self._refuse_closed()
        root = self._root if provider is None else Root(provider, self.deployment_id)
        wrapped: dict[Secret, bytes] = {}
        for name in Secret:
            wrapped[name] = (
                root.new_secret(name).wrapped if name in renew else root.wrap_secret(name, self.secret(name))
            )
        root.file(purpose, wrapped).write(next_path(self._path))
        opened = root.opened(KeyringFile.read(next_path(self._path)), name=next_path(self._path).name)
        held = {name: self.memory.hold(secret) for name, secret in opened.items()}
        successor = Successor(self._path, purpose, root, held, self._ended)
        with self._changing:
            self._successor = successor
        return successor

    @staticmethod
    def pending(path: Path) -> LeftOver | None:
        """What a crash has left beside the keyring at ``path``. Settle it before :meth:`open`: see ``successor``.

        Raises ``ConfigurationError`` (``key_file_invalid``).
        """
        return LeftOver(path) if next_path(path).exists() else None

    def _ended(self, successor: Successor, committed: bool) -> None:
        with self._changing:
            self._successor = None
            if not committed:
                return
            old, self._secrets, self._root = self._secrets, successor.secrets, successor.root
        for held in old.values():
            held.wipe()

    def _root_of(self, key_id: str) -> Root:
        with self._changing:
            roots = [self._root, *([self._successor.root] if self._successor is not None else [])]
        for root in roots:
            if root.key_id == key_id:
                return root
        raise Conflict("the root key was rotated meanwhile", code="root_key_stale")

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Unavailable("the keyring is closed", code="keys_closed")
