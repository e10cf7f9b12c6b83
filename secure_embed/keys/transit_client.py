"""Talking to Transit through hvac: login, time limits, and what each answer means. Knows no file of ours but the credential's.

Nothing is taken from the environment (hvac and requests would read VAULT_ADDR, VAULT_TOKEN, proxies and bundles of
certificates from it), redirects are not followed, and no message of the server is passed on.
"""

import base64
import binascii
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import hvac
import hvac.exceptions
import requests

from secure_embed.errors import ConfigurationError, Unavailable
from secure_embed.keys.bounded import Bounded, TookTooLong
from secure_embed.keys.private_files import read_credential
from secure_embed.settings import TransitSettings

__all__ = ["TransitClient", "TransitRefuses"]

T = TypeVar("T")

login_again_s = 60.0  # a refused credential is not tried again before: Vault locks out who guesses
key_type = "aes256-gcm96"


class TransitRefuses(Exception):
    """400: the server is there and does not do it; what was handed to it is at fault, or the key is gone."""


class _Missing(TransitRefuses):
    """404."""


class TransitClient:
    """Safe to call from several threads; one call at a time. Every method raises ``Unavailable``
    (``key_provider_unavailable``) when the server is away, sealed or slow, and ``ConfigurationError``
    (``vault_access_refused``) when it lets us not in; those that use a key raise :class:`TransitRefuses`."""

    def __init__(self, settings: TransitSettings, credential_file: Path, ca_file: Path | None) -> None:
        """Asks nothing yet."""
        self._settings = settings
        self._credential_file = credential_file
        session = requests.Session()
        session.trust_env = False
        session.verify = str(ca_file) if ca_file is not None else True
        self._session = session
        self._client = hvac.Client(
            url=settings.address,
            token="",
            cert="",  # None would let the environment name one
            verify=session.verify,
            timeout=settings.timeout_s,
            allow_redirects=False,
            session=session,
            namespace=settings.namespace,
        )
        self._thread = Bounded(f"transit {settings.mount}")
        self._refused_at: float | None = None

    def make_key(self, mount: str, name: str) -> None:
        """Raises ``ConfigurationError`` (``root_key_extractable``) when the server made another than was asked for."""
        transit = self._client.secrets.transit
        self._ask(
            lambda: transit.create_key(
                name,
                convergent_encryption=False,
                derived=True,
                exportable=False,
                allow_plaintext_backup=False,
                key_type=key_type,
                mount_point=mount,
            )
        )
        made = _data(self._ask(lambda: transit.read_key(name, mount_point=mount)))
        asked = {"type": key_type, "derived": True, "exportable": False, "allow_plaintext_backup": False}
        if any(made.get(member) != value for member, value in asked.items()):
            raise ConfigurationError(
                "the Transit key can be exported, or is of another kind than was asked for", code="root_key_extractable"
            )

    def delete_key(self, mount: str, name: str) -> None:
        """Raises ``ConfigurationError`` (``root_key_not_destroyed``) when it is still there."""
        transit = self._client.secrets.transit
        try:
            self._ask(lambda: transit.read_key(name, mount_point=mount))
        except _Missing:
            return
        try:
            self._ask(lambda: transit.update_key_configuration(name, deletion_allowed=True, mount_point=mount))
            self._ask(lambda: transit.delete_key(name, mount_point=mount))
            self._ask(lambda: transit.read_key(name, mount_point=mount))
        except _Missing:
            return
        except (ConfigurationError, TransitRefuses):
            pass
        raise ConfigurationError("Vault did not delete the old root key", code="root_key_not_destroyed")

    def encrypt(self, mount: str, name: str, plaintext: bytes, context: bytes) -> str:
        transit = self._client.secrets.transit
        answer = self._ask(
            lambda: transit.encrypt_data(name, _encoded(plaintext), context=_encoded(context), mount_point=mount)
        )
        return _text(answer, "ciphertext")

    def decrypt(self, mount: str, name: str, ciphertext: str, context: bytes) -> bytes:
        transit = self._client.secrets.transit
        answer = self._ask(lambda: transit.decrypt_data(name, ciphertext, context=_encoded(context), mount_point=mount))
        return _decoded(_text(answer, "plaintext"))

    def data_key(self, mount: str, name: str, context: bytes) -> tuple[bytes, str]:
        """32 random bytes of the server's, and the same encrypted."""
        transit = self._client.secrets.transit
        answer = self._ask(
            lambda: transit.generate_data_key(name, "plaintext", context=_encoded(context), bits=256, mount_point=mount)
        )
        key = _decoded(_text(answer, "plaintext"))
        if len(key) != 32:
            raise _away("Vault's answer is not a data key")
        return key, _text(answer, "ciphertext")

    def close(self) -> None:
        """Forget the token. It is not revoked: others may use the file that it came from."""
        self._client.token = ""
        self._session.close()
        self._thread.end()

    def _ask(self, work: Callable[[], object]) -> object:
        """The server's answer; after one login when there was none yet, or when the token has run out."""
        try:
            return self._thread.call(lambda: self._answered(work), seconds=self._settings.timeout_s)
        except TookTooLong:
            raise _away("Vault does not answer in time") from None
        except (hvac.exceptions.Forbidden, hvac.exceptions.Unauthorized):
            raise ConfigurationError(
                "Vault refuses this: see the rights it needs", code="vault_access_refused"
            ) from None
        except hvac.exceptions.InvalidRequest:
            raise TransitRefuses from None
        except hvac.exceptions.InvalidPath:
            raise _Missing from None
        except (hvac.exceptions.VaultError, requests.RequestException):
            raise _away("Vault cannot be reached, or is sealed") from None

    def _answered(self, work: Callable[[], object]) -> object:
        if self._client.token:
            try:
                return work()
            except (hvac.exceptions.Forbidden, hvac.exceptions.Unauthorized):
                self._client.token = ""  # run out, or revoked: Vault gives one answer for that and for a missing right
        self._log_in()
        try:
            return work()
        except (hvac.exceptions.Forbidden, hvac.exceptions.Unauthorized):
            self._client.token = ""
            self._refused_at = time.monotonic()
            raise

    def _log_in(self) -> None:
        if self._refused_at is not None and time.monotonic() < self._refused_at + login_again_s:
            raise ConfigurationError("Vault refused the credential a moment ago", code="vault_access_refused")
        credential = read_credential(self._credential_file, "Vault credential")
        chosen = self._settings
        try:
            secret = credential.decode("ascii")
            if chosen.auth == "token":
                self._client.token = secret
            elif chosen.auth == "approle":
                self._client.auth.approle.login(chosen.role, secret, mount_point=chosen.auth_mount or "approle")
            else:
                self._client.auth.kubernetes.login(chosen.role, secret, mount_point=chosen.auth_mount or "kubernetes")
        except UnicodeDecodeError:
            raise ConfigurationError("the Vault credential is not ASCII", code="credential_invalid") from None
        except (KeyError, TypeError):  # hvac takes the token out of whatever came
            raise _away("Vault's answer to the login has no token") from None
        except (hvac.exceptions.InvalidRequest, hvac.exceptions.Forbidden, hvac.exceptions.Unauthorized):
            self._refused_at = time.monotonic()
            raise ConfigurationError("Vault refuses the credential", code="vault_access_refused") from None
        finally:
            credential[:] = bytes(len(credential))


def _data(answer: object) -> dict[str, object]:
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, dict):  # a redirect, a proxy's page
        raise _away("Vault's answer is not of its API")
    return data


def _text(answer: object, member: str) -> str:
    text = _data(answer).get(member)
    if not isinstance(text, str):
        raise _away("Vault's answer is not of its API")
    return text


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _away("Vault's answer is not of its API") from None


def _away(detail: str) -> Unavailable:
    return Unavailable(detail, code="key_provider_unavailable")
