"""Choosing a provider: settings and root.json agree, libraries are named when they lack, an old root is destroyed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from secure_embed.errors import ConfigurationError, SealedValueUnreadable, Unavailable
from secure_embed.keys import KeyProvider, ProviderWatch, create_provider, open_provider, replace_root, retire_root
from secure_embed.settings import Settings

TOKEN = {"library": "/nowhere/module.so", "token_label": "here"}
TRANSIT = {"address": "https://127.0.0.1:9"}


def secret(path: Path, content: str = "correct horse battery staple") -> Path:
    path.write_text(content)
    path.chmod(0o600)
    return path


def settings(root: Path, **keys: Any) -> Settings:
    return Settings.of({"keys": keys}, root=root, dev=True)


@pytest.fixture
def passphrase(tmp_path: Path) -> Settings:
    return settings(tmp_path, passphrase_file=str(secret(tmp_path / "passphrase")))


def test_one_line_chooses_and_its_section_has_to_be_there(tmp_path: Path) -> None:
    assert settings(tmp_path).keys.provider == "passphrase"
    assert settings(tmp_path, provider="pkcs11", pkcs11=TOKEN).keys.provider == "pkcs11"
    for kind in ("pkcs11", "vault", "kmip"):
        with pytest.raises(ConfigurationError) as refused:
            settings(tmp_path, provider=kind)
        assert refused.value.code == "settings_invalid"


@pytest.mark.parametrize(
    "wrong",
    [
        TRANSIT | {"auth": "approle"},
        TRANSIT | {"role": "r"},
        TRANSIT | {"auth": "userpass"},
        TRANSIT | {"key_prefix": "a/b"},
        TRANSIT | {"timeout_s": 0},
        TRANSIT | {"token": "hvs.secret"},
    ],
)
def test_settings_of_vault_that_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        settings(tmp_path, provider="vault", vault=wrong)
    assert refused.value.code == "settings_invalid"
    assert "hvs.secret" not in str(refused.value)


def test_vault_without_tls_is_for_development_alone(tmp_path: Path) -> None:
    chosen = {"provider": "vault", "vault": {"address": "http://127.0.0.1:8200"}}
    assert settings(tmp_path, **chosen)
    issuer = {"issuer": "https://i.example", "jwks_uri": "https://i.example/certs"}
    with pytest.raises(ConfigurationError) as refused:
        Settings.of({"keys": chosen, "issuers": [issuer]}, root=tmp_path, dev=False)
    assert (refused.value.code, "keys.vault.address" in refused.value.detail) == ("insecure_setting", True)


@pytest.mark.parametrize(("kind", "section"), [("pkcs11", TOKEN), ("vault", TRANSIT)])
def test_a_root_of_another_kind_than_the_settings_choose_is_refused(
    passphrase: Settings, tmp_path: Path, kind: str, section: dict[str, str]
) -> None:
    create_provider(passphrase, tmp_path / "root.json").close()
    with pytest.raises(ConfigurationError) as refused:
        open_provider(settings(tmp_path, provider=kind, **{kind: section}), tmp_path / "root.json")
    assert refused.value.code == "root_key_mismatch"
    assert "passphrase" in refused.value.detail
    assert kind in refused.value.detail


@pytest.mark.parametrize("raw", [b"{}", b'{"format": 1}', b'{"format": "secure_embed/root/v9"}', b"[]", b""])
def test_a_root_of_no_kind_is_refused(passphrase: Settings, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "root.json").write_bytes(raw)
    for use in (open_provider, retire_root):
        with pytest.raises(ConfigurationError) as refused:
            use(passphrase, tmp_path / "root.json")
        assert refused.value.code == "key_file_invalid"


@pytest.mark.parametrize(
    "change",
    [{"key_id": "00"}, {"key_id": "G" * 32}, {"mechanism": "CKM_AES_ECB"}, {"extra": 1}, {"key_id": None}],
)
def test_a_damaged_root_of_a_token_is_refused_before_the_token_is_asked(tmp_path: Path, change: dict[str, Any]) -> None:
    file = {"format": "secure_embed/root-pkcs11/v1", "key_id": "0" * 32, "mechanism": "CKM_AES_KEY_WRAP"} | change
    (tmp_path / "root.json").write_text(json.dumps(file))
    with pytest.raises(ConfigurationError) as refused:
        open_provider(settings(tmp_path, provider="pkcs11", pkcs11=TOKEN), tmp_path / "root.json")
    assert refused.value.code == "key_file_invalid"


@pytest.mark.parametrize(
    "change", [{"key": "a/../b"}, {"key": ""}, {"sample": "AAAA"}, {"key_id": "é"}, {"mount": 1}, {"extra": 1}]
)
def test_a_damaged_root_of_vault_is_refused_before_vault_is_asked(tmp_path: Path, change: dict[str, Any]) -> None:
    good = {
        "format": "secure_embed/root-vault/v1",
        "key_id": "0" * 32,
        "mount": "transit",
        "key": "k",
        "sample": "A" * 86 + "==",
    }
    (tmp_path / "root.json").write_text(json.dumps(good | change))
    with pytest.raises(ConfigurationError) as refused:
        open_provider(settings(tmp_path, provider="vault", vault=TRANSIT), tmp_path / "root.json")
    assert refused.value.code == "key_file_invalid"


@pytest.mark.parametrize(("kind", "section", "module"), [("pkcs11", TOKEN, "pkcs11"), ("vault", TRANSIT, "hvac")])
def test_a_library_that_is_not_installed_is_named_by_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, section: dict[str, str], module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as Python marks what cannot be imported
    with pytest.raises(ConfigurationError) as refused:
        create_provider(settings(tmp_path, provider=kind, **{kind: section}), tmp_path / "root.json")
    assert refused.value.code == "provider_not_installed"
    assert f"secure-embed[{kind}]" in refused.value.detail


def test_a_bare_name_is_a_credential_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").mkdir()
    secret(tmp_path / "credentials" / "root-passphrase")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    chosen = settings(tmp_path, passphrase_file="root-passphrase")
    create_provider(chosen, tmp_path / "root.json").close()
    open_provider(chosen, tmp_path / "root.json").close()
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(ConfigurationError) as refused:
        open_provider(chosen, tmp_path / "root.json")
    assert refused.value.code == "passphrase_file_missing"


def test_the_passphrase_may_change_with_the_root(passphrase: Settings, tmp_path: Path) -> None:
    """A successor under another passphrase takes the old root's place; of the old one nothing is left."""
    root, successor = tmp_path / "root.json", tmp_path / "root.next.json"
    old: KeyProvider = create_provider(passphrase, root)
    wrapped = old.wrap(bytes(32), b"place")
    before = root.open("rb")
    other = secret(tmp_path / "other", "another horse, another battery")
    new = create_provider(passphrase, successor, passphrase_file=other)
    replace_root(passphrase, current=root, successor=successor, retired=tmp_path / "root.old.json")
    retire_root(passphrase, tmp_path / "root.old.json")
    assert sorted(path.name for path in tmp_path.glob("root*")) == ["root.json"]
    assert set(before.read()) == {0}
    with pytest.raises(SealedValueUnreadable):
        open_provider(passphrase, root)
    opened = open_provider(passphrase, root, passphrase_file=other)
    assert opened.describe() == new.describe()
    with pytest.raises(SealedValueUnreadable):
        opened.unwrap(wrapped, b"place")


def test_retiring_goes_on_where_a_crash_left_it(passphrase: Settings, tmp_path: Path) -> None:
    create_provider(passphrase, tmp_path / "root.old.json").close()
    retire_root(passphrase, tmp_path / "root.old.json")
    retire_root(passphrase, tmp_path / "root.old.json")
    assert not (tmp_path / "root.old.json").exists()


@pytest.mark.parametrize("cut_off", ["before the rename", "after the rename"])
def test_replacing_goes_on_where_a_crash_left_it(passphrase: Settings, tmp_path: Path, cut_off: str) -> None:
    """What is left under the third name is the root in use, or one that nobody destroyed yet."""
    root, successor, retired = tmp_path / "root.json", tmp_path / "root.next.json", tmp_path / "root.old.json"
    create_provider(passphrase, root).close()
    if cut_off == "before the rename":
        retired.hardlink_to(root)
    else:
        create_provider(passphrase, retired).close()
    left = retired.open("rb")
    new = create_provider(passphrase, successor).describe()
    replace_root(passphrase, current=root, successor=successor, retired=retired)
    retire_root(passphrase, retired)
    assert [path.name for path in tmp_path.glob("root*")] == ["root.json"]
    assert set(left.read()) == {0}
    assert open_provider(passphrase, root).describe() == new


def test_the_watch_asks_once_in_five_seconds_and_says_what_is_wrong() -> None:
    asked, now, away = [], [100.0], [False]

    def check() -> None:
        asked.append(now[0])
        if away[0]:
            raise Unavailable("away", code="key_provider_unavailable")

    watch = ProviderWatch(check, lambda: now[0])
    assert watch.unready() is None
    away[0] = True
    now[0] += 4.9
    assert (watch.unready(), len(asked)) == (None, 1)
    now[0] += 0.2
    assert (watch.unready(), watch.unready(), len(asked)) == ("key_provider_unavailable",) * 2 + (2,)
    away[0] = False
    now[0] += 5.1
    assert (watch.unready(), len(asked)) == (None, 3)
