"""A deployment opened without its model and its doors: :class:`Core`. What works on a stopped service works on it."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from secure_embed.audit import AuditEvent, AuditLog, Phase, PosixLogStorage
from secure_embed.collection import Holdings, Pause, Tunings
from secure_embed.custody import Backups, Rollback, Rotating, Successions, log_signer, rollback_codes, settle
from secure_embed.erasure import Erasing, Holds
from secure_embed.errors import IntegrityFailure, SecureEmbedError
from secure_embed.host import check_files, memory_bytes
from secure_embed.index import Effort
from secure_embed.keys import CatalogueKeys, KeyProvider, Keyring, Secret, SqlcipherKeyStore, open_provider, rows_key
from secure_embed.layout import DATA, KEYRING, LOG, ROOT
from secure_embed.risk import RiskControl, SqlcipherLedger, load_profiles
from secure_embed.settings import Settings
from secure_embed.store import SqlcipherRecordStore
from secure_embed.trail import Trails

__all__ = ["Core", "budget_bytes", "named_files", "open_databases", "open_keys"]

CODES = Path("codes")


class Core:
    """A deployment without its model and its doors: keys, log, databases, and all that works on them.

    Parts are opened in the order of their dependence and closed in the opposite one. What a crash left half done is
    finished here, before anyone is answered.
    """

    def __init__(self, settings: Settings, *, founding: bool = False, acknowledge_rollback: bool = False) -> None:
        """Raises ``ConfigurationError``, ``IntegrityFailure`` or ``Unavailable`` and leaves nothing open.

        ``founding``: the deployment is being made, and nothing can be older than anything. ``acknowledge_rollback``: an
        older state is taken as it is, and the log says so.
        """
        self.settings = settings
        self.rolled_back: str | None = None  # the code of what was acknowledged
        with ExitStack() as opened:
            os.umask(0o077)
            self._open_stores(opened)
            if not founding:
                self._require_present(acknowledge_rollback=acknowledge_rollback)
            self.rollback.remember()
            opened.callback(self._remember)  # not sooner: a start that is refused must leave what it was refused for
            self._open_work(opened)
            self._opened = opened.pop_all()
        self.tunings.resume()
        self.rotating.resume()

    def _open_stores(self, opened: ExitStack) -> None:
        settings = self.settings
        check_files(settings.root, **named_files(settings))
        with ExitStack() as locked:
            # The log comes first: one writer holds its lock, so a second service ends here.
            storage = PosixLogStorage(settings.root / LOG)
            locked.callback(storage.close)
            settle(settings, time.time)
            self.provider, self.keyring = opened.enter_context(open_keys(settings))
            keyring = self.keyring
            self.log = AuditLog(storage, log_signer(keyring, keyring.deployment_id))
            locked.pop_all()
        opened.callback(self.log.close)
        self.key_store, self.store, self.ledger = open_databases(opened, settings.root, keyring)
        self.catalogue = CatalogueKeys(keyring.secret(Secret.CATALOGUE), keyring.memory)
        opened.callback(self.catalogue.close)
        self.rollback = Rollback(
            deployment=keyring.deployment_id,
            catalogue=self.catalogue,
            store=self.store,
            log=self.log,
            key_store=self.key_store,
            risk_generation=lambda: self.ledger.database.generation,
        )
        self.pause = Pause()
        self.holdings = Holdings(
            keyring=keyring,
            key_store=self.key_store,
            store=self.store,
            catalogue=self.catalogue,
            pause=self.pause,
            codes_folder=settings.root / DATA / CODES,
            mark=self.rollback.mark,
            budget=budget_bytes(settings),
            wait_s=settings.index.wait_seconds,
        )
        opened.callback(self.holdings.close)

    def _require_present(self, *, acknowledge_rollback: bool) -> None:
        try:
            self.rollback.require_present(self.holdings)
        except IntegrityFailure as found:
            if not acknowledge_rollback or found.code not in rollback_codes:
                raise
            self.rolled_back = found.code
            self.rollback.acknowledge(found)

    def _remember(self) -> None:
        """At the end, so that the next start reads less of the log. Without it, that start reads more."""
        with suppress(SecureEmbedError):
            self.rollback.remember()

    def _open_work(self, opened: ExitStack) -> None:
        settings, keyring, log = self.settings, self.keyring, self.log
        self.trails = Trails(log, lambda: keyring.secret(Secret.LOG_HMAC))
        profiles = load_profiles(settings.path(settings.policies.folder) / "risk", development=settings.dev)
        self.risk = RiskControl(profiles, self.ledger)
        self.holds = Holds(store=self.store, catalogue=self.catalogue, holdings=self.holdings)
        self.erasing = Erasing(
            deployment=keyring.deployment_id,
            store=self.store,
            catalogue=self.catalogue,
            risk=self.risk,
            log=log,
            holdings=self.holdings,
            holds=self.holds,
            trails=self.trails,
            backups_kept_days=settings.keys.backup_retention_days,
        )
        self.erasing.resume()
        exclusive = Lock()
        databases = {
            "keys/keys.db": self.key_store.database,
            "data/data.db": self.store.database,
            "data/risk.db": self.ledger.database,
        }
        self.successions = Successions(
            settings=settings,
            keyring=keyring,
            key_store=self.key_store,
            databases=databases,
            log=log,
            provider_replaced=self._provider_replaced,
        )
        self.rotating = Rotating(
            store=self.store,
            catalogue=self.catalogue,
            holdings=self.holdings,
            log=log,
            exclusive=exclusive,
            steps={"root": self.successions.root, "log": self.successions.log, "store": self.successions.store},
        )
        opened.callback(self.rotating.close)
        self.effort = Effort(candidates=settings.limits.rerank_k)  # of collections that were never tuned
        self.tunings = Tunings(holdings=self.holdings, trails=self.trails, untuned=self.effort)
        opened.callback(self.tunings.close)
        self.backups = Backups(
            root=settings.root,
            keyring=keyring,
            copies={name: database.copy_to for name, database in databases.items()},
            log=log,
            pause=self.pause,
            exclusive=exclusive,
            folders=tuple(settings.path(folder) for folder in settings.backup.folders),
        )

    def move_root(self, kind: str) -> dict[str, str | int | bool]:
        """The root key into a provider of ``kind``, logged. The settings have to choose it from the next start on."""
        done = self.successions.root(kind)
        self.log.system(AuditEvent(phase=Phase.SYSTEM, action="keys.rotated", details={"kind": "provider", **done}))
        return done

    def check_provider(self) -> None:
        """Raise ``Unavailable`` unless the root key can be used now."""
        self.provider.check()

    def _provider_replaced(self, provider: KeyProvider) -> None:
        """The old one closes with the rest; it has nothing left to open."""
        self.provider = provider
        self._opened.callback(provider.close)

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def budget_bytes(settings: Settings) -> int:
    """What open collections may take of memory. The other half is for the model, queries and the page cache."""
    chosen = settings.index.memory_mib_max
    return memory_bytes() // 2 if chosen is None else chosen * 1024 * 1024


def open_databases(
    opened: ExitStack, root: Path, keyring: Keyring
) -> tuple[SqlcipherKeyStore, SqlcipherRecordStore, SqlcipherLedger]:
    """The three databases of a deployment, made where they are not there yet; closed with ``opened``."""
    of_rows = rows_key(keyring.secret(Secret.CATALOGUE))
    key_store = SqlcipherKeyStore(root / "keys/keys.db", keyring.secret(Secret.KEYS_STORE), of_rows)
    opened.callback(key_store.close)
    store = SqlcipherRecordStore(root / "data/data.db", keyring.secret(Secret.DATA_STORE), of_rows)
    opened.callback(store.close)
    ledger = SqlcipherLedger(root / "data/risk.db", keyring.secret(Secret.RISK_STORE), time.time)
    opened.callback(ledger.close)
    return key_store, store, ledger


def named_files(settings: Settings) -> dict[str, list[Path]]:
    """Files that the settings name and that may lie elsewhere, as :func:`~secure_embed.host.check_files` takes them."""
    server, keys, policies = settings.server, settings.keys, settings.path(settings.policies.folder)
    secret = [server.tls_key, keys.passphrase_file]
    trusted = [server.tls_certificate, *(issuer.jwks_file for issuer in settings.issuers), policies]
    if keys.pkcs11 is not None:
        secret.append(keys.pkcs11.pin_file)
        trusted.append(keys.pkcs11.library)
    if keys.vault is not None:
        secret.append(keys.vault.credential_file)
        trusted.append(keys.vault.ca_file)
    return {
        "secret": [settings.path(path) for path in secret],
        "trusted": [*(settings.path(path) for path in trusted if path is not None), *policies.rglob("*")],
    }


@contextmanager
def open_keys(settings: Settings) -> Iterator[tuple[KeyProvider, Keyring]]:
    """The root key and the keyring; wiped and closed behind the block."""
    provider = open_provider(settings, settings.root / ROOT)
    try:
        keyring = Keyring.open(settings.root / KEYRING, provider)
        try:
            yield provider, keyring
        finally:
            keyring.close()
    finally:
        provider.close()
