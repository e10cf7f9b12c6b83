"""Making a deployment on disk: whole or not at all, and nothing that others can read. deployment.py opens what this makes."""

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from secure_embed.access import DevelopmentIssuer
from secure_embed.audit import PosixLogStorage
from secure_embed.core import Core, open_databases
from secure_embed.custody import log_signer
from secure_embed.errors import ConfigurationError
from secure_embed.keys import Keyring, create_provider, retire_root
from secure_embed.layout import DATA, KEYS, LOG, ROOT, VERIFIER_KEY
from secure_embed.settings import SETTINGS_FILE, KeySettings, Settings

__all__ = ["create"]

TLS, SECRETS = Path("tls"), Path("secrets")
DEVELOPMENT_ISSUER = Path("development-issuer")
PASSPHRASE = SECRETS / "root.passphrase"
passphrase_bytes = 32


def policies_shipped() -> Path:
    """The default policies: in the package when installed from a wheel, beside it in a checkout."""
    inside = Path(__file__).parent / "policies"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "policies"


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
    keys: KeySettings | None = None,
) -> None:
    """Make a deployment at ``root``, whole or not at all.

    ``passphrase_file``: one that exists, mode 0600, and stays where it is; None: one is made in ``secrets/``.
    ``keys``: the key provider where it is not the passphrase; its files exist, and stay where they are.
    ``dtype``: of the model's arithmetic; None: bfloat16 where this processor has it, about three times as fast.
    ``dev``: with a development issuer and a self-signed certificate. Raises ``ConfigurationError``
    (``deployment_exists``) unless ``root`` is absent or empty, and what making the root key raises.
    """
    root = root.absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConfigurationError(f"{root} is not empty", code="deployment_exists")
    root.parent.mkdir(parents=True, exist_ok=True)
    with _private_umask(), tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as made_in:
        made = Path(made_in) / "deployment"
        for folder in (KEYS, DATA, LOG, TLS, SECRETS):
            (made / folder).mkdir(parents=True)
        keys = keys or KeySettings()
        if passphrase_file is not None:
            keys = keys.model_copy(update={"passphrase_file": passphrase_file.absolute()})
        elif keys.provider == "passphrase":
            (made / PASSPHRASE).write_text(secrets.token_urlsafe(passphrase_bytes) + "\n")
        shutil.copytree(policies_shipped(), made / "policies")
        if dev:
            DevelopmentIssuer.create(made / DEVELOPMENT_ISSUER)
            _self_signed(made / TLS)
        text = _settings_text(dev, host, port)
        text += _keys_text(keys)
        text += _encoder_text(model, model_folder, dtype or ("bfloat16" if has_bfloat16() else "float32"))
        (made / SETTINGS_FILE).write_text(text)
        for path in made.rglob("*"):  # what was copied brought its own permissions
            path.chmod(0o700 if path.is_dir() else 0o600)
        _first_keys(made)
        _sync(made, *made.rglob("*"))  # a passphrase lost in a power cut would take all with it that is sealed by then
        if root.exists():
            root.rmdir()
        made.rename(root)
        _sync(root.parent)


def _sync(*paths: Path) -> None:
    """Files and folders are on the medium on return."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _first_keys(made: Path) -> None:
    settings = Settings.load(made, dev=True)
    provider = create_provider(settings, made / ROOT)
    try:
        keyring = Keyring.create(made / KEYS / "keyring.json", provider)
        with ExitStack() as opened:
            open_databases(opened, made, keyring)
        PosixLogStorage(made / LOG, create=True).close()
        (made / VERIFIER_KEY).write_text(log_signer(keyring, keyring.deployment_id).vkey + "\n")
        keyring.close()
        with Core(settings, founding=True):  # the store's first mark
            pass
    except BaseException:
        retire_root(settings, made / ROOT)  # a token or a Vault would keep it
        raise
    finally:
        provider.close()


def _keys_text(keys: KeySettings) -> str:
    """What differs from the defaults. JSON's strings are TOML's."""
    chosen = keys.model_dump(mode="json", exclude_defaults=True)
    sections = {"keys": {name: value for name, value in chosen.items() if not isinstance(value, dict)}}
    sections |= {f"keys.{name}": value for name, value in chosen.items() if isinstance(value, dict)}
    lines: list[str] = []
    for name, members in sections.items():
        if members:
            lines += [f"[{name}]", *(f"{m} = {json.dumps(v, ensure_ascii=False)}" for m, v in members.items()), ""]
    return "\n".join(lines)


def _settings_text(dev: bool, host: str, port: int) -> str:
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
