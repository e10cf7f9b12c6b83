"""Choosing a key provider: ``keys.provider`` of the settings, and the format of ``root.json``, which have to agree.

The libraries of a provider are loaded when it is chosen, and come with an extra of the package.
"""

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Literal

from secure_embed.errors import ConfigurationError, SecureEmbedError
from secure_embed.keys.passphrase import PassphraseProvider
from secure_embed.keys.private_files import erase_file, read_bounded, sync_folder
from secure_embed.keys.protocol import KeyProvider
from secure_embed.keys.strict_json import format_of
from secure_embed.settings import Settings, TokenSettings, TransitSettings

__all__ = ["ProviderWatch", "create_provider", "open_provider", "replace_root", "retire_root"]

Kind = Literal["passphrase", "pkcs11", "vault"]

check_again_s = 5.0
kinds_by_format: dict[str, Kind] = {
    "secure_embed/root/v1": "passphrase",
    "secure_embed/root-pkcs11/v1": "pkcs11",
    "secure_embed/root-vault/v1": "vault",
}
libraries: dict[Kind, str] = {"pkcs11": "pkcs11", "vault": "hvac"}  # what each extra brings


def create_provider(settings: Settings, path: Path, *, passphrase_file: Path | None = None) -> KeyProvider:
    """Make a root key with the provider that the settings choose, and write ``path``, which describes it.

    ``passphrase_file``: another than the settings name, for the passphrase provider. Raises what the provider's
    ``create`` raises, and ``ConfigurationError`` (``provider_not_installed``).
    """
    kind = settings.keys.provider
    if kind == "passphrase":
        return PassphraseProvider.create(path, passphrase_file or _credential(settings, settings.keys.passphrase_file))
    _ensure_installed(kind)
    if kind == "pkcs11":
        from secure_embed.keys.pkcs11 import Pkcs11Provider

        return Pkcs11Provider.create(path, *_token(settings))
    from secure_embed.keys.transit import TransitProvider

    return TransitProvider.create(path, *_transit(settings))


def open_provider(settings: Settings, path: Path, *, passphrase_file: Path | None = None) -> KeyProvider:
    """Raises ``ConfigurationError`` (``root_key_mismatch``) where ``path`` is of another kind than the settings
    choose, (``provider_not_installed``), and what the provider's ``open`` raises."""
    kind = settings.keys.provider
    found = _kind_of(path)
    if found != kind:
        raise ConfigurationError(
            f"{path.name} is of the key provider {found}, and the settings choose {kind}", code="root_key_mismatch"
        )
    if kind == "passphrase":
        return PassphraseProvider.open(path, passphrase_file or _credential(settings, settings.keys.passphrase_file))
    _ensure_installed(kind)
    if kind == "pkcs11":
        from secure_embed.keys.pkcs11 import Pkcs11Provider

        return Pkcs11Provider.open(path, *_token(settings))
    from secure_embed.keys.transit import TransitProvider

    return TransitProvider.open(path, *_transit(settings))


def retire_root(settings: Settings, path: Path) -> None:
    """Destroy the root key that ``path`` describes, of whichever kind it is, then overwrite and remove the file.

    It needs no passphrase, and no provider that is open. Again after a crash: it goes on. ``settings`` may choose another
    provider meanwhile, and must still hold the section of this one. Raises as ``open`` does, and ``ConfigurationError``
    (``root_key_not_destroyed``); then the file is still there.
    """
    if not path.exists():
        return
    kind = _kind_of(path)
    if kind == "passphrase":
        erase_file(path)
        return
    _ensure_installed(kind)
    if kind == "pkcs11":
        from secure_embed.keys.pkcs11 import Pkcs11Provider

        Pkcs11Provider.retire(path, *_token(settings))
    else:
        from secure_embed.keys.transit import TransitProvider

        TransitProvider.retire(path, *_transit(settings))


def replace_root(settings: Settings, *, current: Path, successor: Path, retired: Path) -> None:
    """Put ``successor`` in the place of ``current`` in one step, in one folder.

    ``retired`` is the old file's name from then on; :func:`retire_root` destroys the old root key there.
    """
    if retired.exists():  # a crash left it, before the old file lost its first name or after
        if retired.samefile(current):
            retired.unlink()
        else:
            retire_root(settings, retired)
    os.link(current, retired)
    successor.replace(current)
    sync_folder(current.parent)


class ProviderWatch:
    """Whether the root key can be used now, asked at most once in five seconds. Safe to call from several threads."""

    def __init__(self, check: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._check = check
        self._clock = clock
        self._lock = Lock()
        self._asked_at: float | None = None
        self._why: str | None = None

    def unready(self) -> str | None:
        """The code of what is wrong, or None. Waits as long as the provider's time limit."""
        with self._lock:
            if self._asked_at is None or self._clock() - self._asked_at >= check_again_s:
                try:
                    self._check()
                    self._why = None
                except SecureEmbedError as why:
                    self._why = why.code
                self._asked_at = self._clock()
            return self._why


def _kind_of(path: Path) -> Kind:
    found = format_of(read_bounded(path), file=path.name)
    if found not in kinds_by_format:
        raise ConfigurationError(f"{path.name} is not valid", code="key_file_invalid")
    return kinds_by_format[found]


def _ensure_installed(kind: Kind) -> None:
    if find_spec(libraries[kind]) is None:
        raise ConfigurationError(
            f"the key provider {kind} needs a library: pip install 'secure-embed[{kind}]'",
            code="provider_not_installed",
        )


def _token(settings: Settings) -> tuple[TokenSettings, Path]:
    chosen = settings.keys.pkcs11
    if chosen is None:
        raise ConfigurationError("the settings have no section keys.pkcs11", code="settings_invalid")
    return chosen, _credential(settings, chosen.pin_file)


def _transit(settings: Settings) -> tuple[TransitSettings, Path, Path | None]:
    chosen = settings.keys.vault
    if chosen is None:
        raise ConfigurationError("the settings have no section keys.vault", code="settings_invalid")
    ca_file = settings.path(chosen.ca_file) if chosen.ca_file is not None else None
    return chosen, _credential(settings, chosen.credential_file), ca_file


def _credential(settings: Settings, named: Path) -> Path:
    """A bare name is a credential of systemd when there are any (systemd.exec(5), ``$CREDENTIALS_DIRECTORY``)."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and len(named.parts) == 1:
        return Path(credentials) / named  # absent there means refused: systemd itself lets the service start
    return settings.path(named)
