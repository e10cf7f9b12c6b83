"""A deployment, opened: :class:`Deployment` wires every part by constructor. founding.py makes one on disk.

secure-embed.toml      settings
secrets/               the root's passphrase, or what lets us in where the root key lies (elsewhere in production: a credential of the service manager)
keys/                  root.json, keyring.json, keys.db: apart from the data, with a retention of their own
data/                  data.db, risk.db
log/                   the audit log
log-verifier.key       public: whoever checks the log should have it from elsewhere than from here
policies/              Cedar schema, policies, risk profiles
tls/                   the listener's certificate and key
development-issuer/    only with --dev
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from secure_embed.access import Authenticator, Authorizer, IssuerProfile
from secure_embed.audit import AuditLog, NoteSigner, PosixLogStorage
from secure_embed.embed import Encoder, ModelManifest, embedded_model_folder, load_encoder, manifest, read_manifest
from secure_embed.erasing import Erasing
from secure_embed.errors import ConfigurationError
from secure_embed.gate import Gate
from secure_embed.holdings import Holdings
from secure_embed.host import check_files
from secure_embed.keys import (
    CatalogueKeys,
    KeyProvider,
    Keyring,
    ProviderWatch,
    Secret,
    SqlcipherKeyStore,
    open_provider,
)
from secure_embed.risk import RiskControl, SqlcipherLedger, load_profiles
from secure_embed.settings import IssuerSettings, Settings
from secure_embed.store import SqlcipherRecordStore
from secure_embed.trail import Trails
from secure_embed.vault import Vault

__all__ = [
    "DATA",
    "KEYS",
    "LOG",
    "ROOT",
    "VERIFIER_KEY",
    "Deployment",
    "chosen_model",
    "load_from",
    "log_signer",
    "named_files",
    "open_databases",
    "open_keys",
    "verifier",
]

KEYS, DATA, LOG = Path("keys"), Path("data"), Path("log")
ROOT = KEYS / "root.json"
VERIFIER_KEY = Path("log-verifier.key")
EMBEDDED_MODEL = "all-minilm-l6-v2"  # its weights come with a package


def log_signer(keyring: Keyring) -> NoteSigner:
    return NoteSigner(f"secure-embed.local/{keyring.deployment_id}", keyring.secret(Secret.LOG_SIGNING))


def verifier() -> Path:
    """The auditors' own program: beside the package in a checkout, inside it when installed from a wheel."""
    inside = Path(__file__).parent / "auditors" / "verify"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "audit" / "verify"


class Deployment:
    """An open deployment. Parts are opened in the order of their dependence and closed in the opposite one."""

    def __init__(self, settings: Settings, encoder: Encoder | None = None) -> None:
        """``encoder``: one that is loaded already; None loads what the settings name.

        Raises ``ConfigurationError``, ``IntegrityFailure`` or ``Unavailable`` and leaves nothing open.
        """
        self.settings = settings
        with ExitStack() as opened:
            os.umask(0o077)
            self._open(opened, encoder)
            self._opened = opened.pop_all()

    def _open(self, opened: ExitStack, encoder: Encoder | None) -> None:
        settings = self.settings
        check_files(settings.root, **named_files(settings))
        authenticator = self._authenticator()
        authorizer = Authorizer(settings.path(settings.policies.folder))
        provider, keyring = opened.enter_context(open_keys(settings))
        # The log comes first: one writer holds its lock, so a second service ends here.
        signer = log_signer(keyring)
        self.log = AuditLog(PosixLogStorage(settings.root / LOG), signer)
        opened.callback(self.log.close)
        key_store, store, ledger = open_databases(opened, settings.root, keyring)
        catalogue = CatalogueKeys(keyring.secret(Secret.CATALOGUE))
        opened.callback(catalogue.close)
        self.holdings = Holdings(keyring=keyring, key_store=key_store, store=store, catalogue=catalogue)
        opened.callback(self.holdings.close)
        profiles = load_profiles(settings.path(settings.policies.folder) / "risk", development=settings.dev)
        trails = Trails(self.log, keyring.secret(Secret.LOG_HMAC))
        risk = RiskControl(profiles, ledger)
        erasing = Erasing(
            deployment=keyring.deployment_id,
            store=store,
            catalogue=catalogue,
            risk=risk,
            log=self.log,
            signer=signer,
        )
        _finish_interrupted(erasing, self.holdings, trails)
        self.vault = Vault(
            gate=Gate(authenticator, authorizer),
            risk=risk,
            trails=trails,
            encoder=encoder or load_from(settings),
            holdings=self.holdings,
            erasing=erasing,
            catalogue=catalogue,
            key_watch=ProviderWatch(provider.check),
            risk_profile=settings.policies.risk_profile,
            rerank_k=settings.limits.rerank_k,
            batch_records_max=settings.limits.batch_records_max,
        )

    def _authenticator(self) -> Authenticator:
        settings = self.settings
        resource = settings.server.public_url
        return Authenticator(
            [issuer_profile(settings, issuer) for issuer in settings.issuers],
            resource_metadata=f"{resource}/.well-known/oauth-protected-resource",
            development_allowed=settings.dev,
        )

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_databases(
    opened: ExitStack, root: Path, keyring: Keyring
) -> tuple[SqlcipherKeyStore, SqlcipherRecordStore, SqlcipherLedger]:
    """The three databases of a deployment, made where they are not there yet; closed with ``opened``."""
    key_store = SqlcipherKeyStore(root / KEYS / "keys.db", keyring.secret(Secret.KEYS_STORE))
    opened.callback(key_store.close)
    store = SqlcipherRecordStore(root / DATA / "data.db", keyring.secret(Secret.DATA_STORE))
    opened.callback(store.close)
    ledger = SqlcipherLedger(root / DATA / "risk.db", keyring.secret(Secret.RISK_STORE), time.time)
    opened.callback(ledger.close)
    return key_store, store, ledger


def _finish_interrupted(erasing: Erasing, holdings: Holdings, trails: Trails) -> None:
    """Erasures that a crash cut off go on before anyone is answered."""
    if unfinished := erasing.unfinished():
        request = uuid4()
        records = sum(state.records for state in unfinished.values())
        ticket = trails.resuming(request, count=records)
        erasing.finish(unfinished, holdings, ticket)
        trails.resumed(request, ticket, results=records)


def issuer_profile(settings: Settings, issuer: IssuerSettings) -> IssuerProfile:
    if (issuer.jwks_uri is None) == (issuer.jwks_file is None):
        raise ConfigurationError("an issuer has either jwks_uri or jwks_file", code="issuer_profile_invalid")
    return IssuerProfile(
        issuer=issuer.issuer,
        audience=settings.server.public_url,
        jwks=issuer.jwks_uri or settings.path(issuer.jwks_file or Path()),
        algorithms=issuer.algorithms,
        token_type=issuer.token_type,
        client_id_claim=issuer.client_id_claim,
        purposes_claim=issuer.purposes_claim,
        attribute_claims=issuer.attribute_claims,
        attribute_types=issuer.attribute_types,
        leeway_s=issuer.leeway_s,
        lifetime_max_s=issuer.lifetime_max_s,
        development=issuer.development,
    )


@contextmanager
def open_keys(settings: Settings) -> Iterator[tuple[KeyProvider, Keyring]]:
    """The root key and the keyring; wiped and closed behind the block."""
    provider = open_provider(settings, settings.root / ROOT)
    try:
        keyring = Keyring.open(settings.root / KEYS / "keyring.json", provider)
        try:
            yield provider, keyring
        finally:
            keyring.close()
    finally:
        provider.close()


def chosen_model(settings: Settings) -> tuple[ModelManifest, Path]:
    """The model that the settings name: its manifest, and the folder of its files."""
    chosen = settings.encoder
    described = read_manifest(settings.path(chosen.manifest)) if chosen.manifest else manifest(chosen.model)
    if chosen.folder is None and described.name != EMBEDDED_MODEL:
        raise ConfigurationError(f"encoder.folder has to say where {described.name} lies", code="model_folder_missing")
    return described, settings.path(chosen.folder) if chosen.folder else embedded_model_folder()


def load_from(settings: Settings) -> Encoder:
    """Load the encoder that the settings name, its files checked against the manifest."""
    described, folder = chosen_model(settings)
    chosen = settings.encoder
    return load_encoder(described, folder, device=chosen.device, dtype=chosen.dtype, threads=chosen.threads)
