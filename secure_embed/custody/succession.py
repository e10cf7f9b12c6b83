"""New secrets in the place of old ones, for the deployment as a whole: root key, log key, database keys.

Each begins with a successor of the keyring, durable beside it (``keys.successor``), and ends when that takes its place.
:func:`settle` ends what a crash has cut off, before anything else is opened; what had happened says which keyring counts.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from uuid import UUID

from secure_embed.audit import AuditLog, LogFull, NoteSigner, end_key
from secure_embed.errors import ConfigurationError, Conflict, IntegrityFailure, SecureEmbedError
from secure_embed.keys import (
    KeyProvider,
    Keyring,
    LeftOver,
    Purpose,
    SealedDatabase,
    Secret,
    SqlcipherKeyStore,
    Successor,
    create_provider,
    open_provider,
    replace_root,
    retire_root,
    rows_key,
)
from secure_embed.layout import KEYRING, LOG, ROOT, ROOT_NEXT, ROOT_RETIRED, VERIFIER_KEY
from secure_embed.risk import SqlcipherLedger
from secure_embed.settings import Settings
from secure_embed.store import SqlcipherRecordStore

__all__ = ["DATABASE_SECRETS", "Successions", "log_signer", "open_database", "settle", "with_provider"]

Database = SqlcipherKeyStore | SqlcipherRecordStore | SqlcipherLedger
_logger = logging.getLogger(__name__)

DATABASE_SECRETS: Mapping[str, Secret] = {
    "keys/keys.db": Secret.KEYS_STORE,
    "data/data.db": Secret.DATA_STORE,
    "data/risk.db": Secret.RISK_STORE,
}


def log_signer(secrets: Keyring | Successor, deployment: UUID) -> NoteSigner:
    return NoteSigner(f"secure-embed.local/{deployment}", secrets.secret(Secret.LOG_SIGNING))


def with_provider(settings: Settings, kind: str) -> Settings:
    """The same settings, choosing another provider; its own section has to be there already."""
    keys = settings.keys.model_copy(update={"provider": kind})
    if kind != "passphrase" and getattr(keys, kind, None) is None:
        raise ConfigurationError(f"the settings have no section keys.{kind}", code="settings_invalid")
    return settings.model_copy(update={"keys": keys})


class Successions:
    """The kinds of rotation that concern no collection. One at a time: their caller sees to it."""

    def __init__(
        self,
        *,
        settings: Settings,
        keyring: Keyring,
        key_store: SqlcipherKeyStore,
        databases: Mapping[str, SealedDatabase],
        log: AuditLog,
        provider_replaced: Callable[[KeyProvider], None],
    ) -> None:
        """``databases``: by the names of ``DATABASE_SECRETS``. ``provider_replaced`` owns the new provider from then."""
        self._settings = settings
        self._keyring = keyring
        self._key_store = key_store
        self._databases = databases
        self._log = log
        self._provider_replaced = provider_replaced

    def root(self, kind: str | None = None) -> dict[str, str | int | bool]:
        """A new root key, of the same provider or of ``kind``; everything below is wrapped anew, and the old one is
        destroyed. Raises what the provider raises."""
        settings, root = self._settings, self._settings.root
        chosen = with_provider(settings, kind or settings.keys.provider)
        for earlier in (root / ROOT_RETIRED, root / ROOT_NEXT):
            retire_root(settings, earlier)  # of an attempt that was cut off; refused where it cannot be destroyed
        with ExitStack() as failed:
            provider = create_provider(chosen, root / ROOT_NEXT)
            failed.callback(provider.close)
            failed.callback(retire_root, chosen, root / ROOT_NEXT)
            successor = self._keyring.prepare(Purpose.ROOT, provider=provider)
            failed.callback(successor.abandon)
            key_id = provider.describe().key_id
            undo = failed.pop_all()
        try:
            self._key_store.rewrap_root(key_id, self._rewrapped(successor))
        except SecureEmbedError:
            # It may have failed after its commit. Where the store cannot say, nothing is undone: the next start asks it.
            if self._key_store.root_key_id() != key_id:
                undo.close()
                raise
            self._key_store.database.empty_write_ahead_log()  # the old root's wraps go before the old root does
        replace_root(settings, current=root / ROOT, successor=root / ROOT_NEXT, retired=root / ROOT_RETIRED)
        successor.commit()
        self._provider_replaced(provider)
        destroyed = _retired(settings, root / ROOT_RETIRED)
        return {"provider": chosen.keys.provider, "key_id": key_id, "old_root_destroyed": destroyed}

    def _rewrapped(self, successor: Successor) -> Callable[[UUID, int, bytes], bytes]:
        before = self._keyring.root_key_id

        def rewrap(uuid: UUID, version: int, wrapped: bytes) -> bytes:
            key = self._keyring.unwrap_collection_key(wrapped, uuid, version, root_key_id=before)
            return successor.wrap_collection_key(key, uuid, version)

        return rewrap

    def log(self) -> dict[str, str | int | bool]:
        """A new signing key; the old one signs it into the log."""
        successor = self._keyring.prepare(Purpose.LOG, renew=(Secret.LOG_SIGNING,))
        signer = log_signer(successor, self._keyring.deployment_id)
        try:
            self._log.rotate(signer)
        except (LogFull, Conflict, ConfigurationError):  # nothing was written
            successor.abandon()
            raise
        # Any other fault may have left the hand-over on the disk: the next start asks the log which key it ends with.
        _add_verifier(self._settings.root / VERIFIER_KEY, signer)
        successor.commit()
        return {"key_id": signer.verifier.key_id}

    def store(self) -> dict[str, str | int | bool]:
        """New keys of the three databases, one after the other."""
        successor = self._keyring.prepare(Purpose.STORE, renew=tuple(DATABASE_SECRETS.values()))
        for name, secret in DATABASE_SECRETS.items():
            self._databases[name].rekey(successor.secret(secret))  # a failure is ended by settle(): forwards
        successor.commit()
        return {"databases": len(DATABASE_SECRETS)}


def open_database(name: str, root: Path, secrets: Keyring | Successor, clock: Callable[[], float]) -> Database:
    """One of ``DATABASE_SECRETS``."""
    path, key = root / name, secrets.secret(DATABASE_SECRETS[name])
    of_rows = rows_key(secrets.secret(Secret.CATALOGUE))
    if name == "keys/keys.db":
        return SqlcipherKeyStore(path, key, of_rows)
    if name == "data/data.db":
        return SqlcipherRecordStore(path, key, of_rows)
    return SqlcipherLedger(path, key, clock)


def settle(settings: Settings, clock: Callable[[], float]) -> None:
    """End what a crash cut off. The caller holds the log's lock, so nobody else is at it. Raises what opening raises."""
    root = settings.root
    left = Keyring.pending(root / KEYRING)
    if left is not None:
        if left.purpose not in _SETTLING:
            raise ConfigurationError("the keyring's successor has no purpose that is known", code="key_file_invalid")
        _SETTLING[left.purpose](settings, left, clock)
    _retire_leftovers(settings)


def _retire_leftovers(settings: Settings) -> None:
    """Root keys that nothing is wrapped by any more, or not yet."""
    root = settings.root
    retired, following = root / ROOT_RETIRED, root / ROOT_NEXT
    if retired.exists():
        if retired.samefile(root / ROOT):
            retired.unlink()  # a second name of what is in use still
        else:
            _retired(settings, retired)
    if following.exists():
        _retired(settings, following)


def _retired(settings: Settings, path: Path) -> bool:
    """Whether the root key that ``path`` describes is destroyed. Nothing is wrapped by it: what cannot be destroyed now
    stays named in its file, the log and the next start say so, and the service goes on."""
    try:
        retire_root(settings, path)
    except SecureEmbedError as refused:
        _logger.warning("the root key of %s is not destroyed: %s", path.name, refused.code)
        return False
    return True


def _settle_root(settings: Settings, left: LeftOver, clock: Callable[[], float]) -> None:
    root = settings.root
    chosen = with_provider(settings, left.provider)
    for path in (root / ROOT_NEXT, root / ROOT):
        if not path.exists():
            continue
        with ExitStack() as opened:
            try:
                provider = open_provider(chosen, path)
            except ConfigurationError as other:
                if other.code == "root_key_mismatch":
                    continue
                raise
            opened.callback(provider.close)
            if provider.describe().key_id != left.key_id:
                continue
            successor = left.open(provider)
            opened.callback(successor.close)
            with closing(open_database("keys/keys.db", root, successor, clock)) as key_store:
                assert isinstance(key_store, SqlcipherKeyStore)
                counts = key_store.root_key_id() == left.key_id
            if not counts:
                break
            if path == root / ROOT_NEXT:
                replace_root(settings, current=root / ROOT, successor=path, retired=root / ROOT_RETIRED)
            successor.commit()
            return
    left.abandon()


@contextmanager
def _opened(settings: Settings, left: LeftOver) -> Iterator[tuple[Keyring, Successor]]:
    """Both keyrings, where one root wraps both; wiped behind the block."""
    with (
        closing(open_provider(settings, settings.root / ROOT)) as provider,
        closing(Keyring.open(settings.root / KEYRING, provider)) as keyring,
        closing(left.open(provider)) as successor,
    ):
        yield keyring, successor


def _settle_log(settings: Settings, left: LeftOver, _clock: Callable[[], float]) -> None:
    with _opened(settings, left) as (keyring, successor):
        old, new = (log_signer(each, keyring.deployment_id) for each in (keyring, successor))
        if end_key(settings.root / LOG, [old.verifier, new.verifier]) == new.verifier:
            _add_verifier(settings.root / VERIFIER_KEY, new)
            successor.commit()
        else:
            successor.abandon()


def _settle_store(settings: Settings, left: LeftOver, clock: Callable[[], float]) -> None:
    """Forwards: each database opens with the one key or the other, and the new ones are durable."""
    with _opened(settings, left) as (keyring, successor):
        for name, secret in DATABASE_SECRETS.items():
            try:
                open_database(name, settings.root, successor, clock).close()
            except IntegrityFailure as unreadable:
                if unreadable.code != "database_unreadable":
                    raise
                with closing(open_database(name, settings.root, keyring, clock)) as database:
                    database.database.rekey(successor.secret(secret))
        successor.commit()


_SETTLING: Mapping[Purpose, Callable[[Settings, LeftOver, Callable[[], float]], None]] = {
    Purpose.ROOT: _settle_root,
    Purpose.LOG: _settle_log,
    Purpose.STORE: _settle_store,
}


def _add_verifier(path: Path, signer: NoteSigner) -> None:
    """One line for each key, oldest first; the first is the one that auditors were given."""
    known = path.read_text().splitlines()
    if signer.vkey not in known:
        with path.open("a") as file:
            file.write(signer.vkey + "\n")
            file.flush()
            os.fsync(file.fileno())
