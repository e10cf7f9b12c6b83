"""The pkcs11 provider on a real SoftHSM2 token, and a deployment whose root key lies there."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from secure_embed.errors import ConfigurationError, SealedValueUnreadable, Unavailable
from secure_embed.settings import KeySettings, TokenSettings
from tests.soft_token import PIN, SoftTokens

VECTORS = Path(__file__).parents[1] / "vectors" / "sealing-token-wraps.json"


@pytest.fixture(scope="module")
def soft_tokens() -> Iterator[SoftTokens]:
    made = SoftTokens()
    yield made
    made.remove()


@pytest.fixture
def tokens(soft_tokens) -> Iterator[SoftTokens]:
    yield soft_tokens
    soft_tokens.put_back()


@pytest.fixture
def pin(tmp_path) -> Path:
    path = tmp_path / "token.pin"
    path.write_text(PIN + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def token(tokens) -> TokenSettings:
    return TokenSettings(library=tokens.library, token_label=tokens.make())


def provider_class():
    from secure_embed.keys.pkcs11 import Pkcs11Provider

    return Pkcs11Provider


def session_on(token: TokenSettings):
    import pkcs11

    library = pkcs11.lib(str(token.library))
    library.reinitialize()  # it looks for new tokens then
    return library.get_token(token_label=token.token_label).open(rw=True, user_pin=PIN)


def refusal(kind, act) -> str:
    with pytest.raises(kind) as refused:
        act()
    assert PIN not in repr(refused.value)
    return refused.value.code


# --- the root key ------------------------------------------------------------------------------------------------------


def test_the_root_key_cannot_leave_its_token(token, pin, tmp_path):
    """Not its value, not wrapped by a key of the intruder's, and not after its attributes were changed."""
    import pkcs11
    from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

    provider_class().create(tmp_path / "root.json", token, pin).close()
    key_id = bytes.fromhex(json.loads((tmp_path / "root.json").read_text())["key_id"])
    session = session_on(token)
    (root,) = session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY})
    told = {a: root[a] for a in (Attribute.ID, Attribute.LOCAL, Attribute.SENSITIVE, Attribute.NEVER_EXTRACTABLE)}
    assert list(told.values()) == [key_id, True, True, True]
    assert (root[Attribute.EXTRACTABLE], root.key_length) == (False, 256)
    with pytest.raises(pkcs11.AttributeSensitive):
        root[Attribute.VALUE]
    intruder = session.generate_key(
        KeyType.AES, 256, capabilities=MechanismFlag.WRAP, template={Attribute.TOKEN: False}
    )
    with pytest.raises(pkcs11.PKCS11Error):
        intruder.wrap_key(root, mechanism=Mechanism.AES_KEY_WRAP)
    for attribute, value in ((Attribute.EXTRACTABLE, True), (Attribute.SENSITIVE, False), (Attribute.DECRYPT, True)):
        with pytest.raises(pkcs11.PKCS11Error):
            root[attribute] = value
    session.close()


def test_nothing_that_was_wrapped_stays_on_the_token(token, pin, tmp_path):
    """Nor in its session: looked for while the provider is still open, since objects of a session end with it."""
    import pkcs11
    from pkcs11 import Attribute, ObjectClass

    provider = provider_class().create(tmp_path / "root.json", token, pin)
    for number in range(5):
        provider.unwrap(provider.wrap(bytes([number]) * 32, b"place"), b"place")
    with pytest.raises(SealedValueUnreadable):
        provider.unwrap(bytes(105), b"place")
    beside = pkcs11.lib(str(token.library)).get_token(token_label=token.token_label).open()
    assert len(list(beside.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}))) == 1
    beside.close()
    provider.close()


def import_root(token: TokenSettings, value: bytes, *, extractable: bool) -> str:
    from pkcs11 import Attribute, KeyType, ObjectClass

    session = session_on(token)
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.VALUE: value,
            Attribute.ID: value[:16],
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: extractable,
            Attribute.WRAP: True,
            Attribute.UNWRAP: True,
        }
    )
    session.close()
    return json.dumps(
        {"format": "secure_embed/root-pkcs11/v1", "key_id": value[:16].hex(), "mechanism": "CKM_AES_KEY_WRAP"}
    )


def test_the_formats_vectors(token, pin, tmp_path):
    vectors = json.loads(VECTORS.read_text())["vectors"]
    assert len({v["root"] for v in vectors}) == 1
    (tmp_path / "root.json").write_text(import_root(token, bytes.fromhex(vectors[0]["root"]), extractable=False))
    provider = provider_class().open(tmp_path / "root.json", token, pin)
    for v in vectors:
        if v["expect"] == "ok":
            opened = provider.unwrap(bytes.fromhex(v["wrapped"]), bytes.fromhex(v["context"]))
            assert opened.hex() == v["key"], v["name"]
        else:
            with pytest.raises(SealedValueUnreadable):
                provider.unwrap(bytes.fromhex(v["wrapped"]), bytes.fromhex(v["context"]))
    provider.close()


def test_a_root_key_that_could_leave_the_token_is_refused(token, pin, tmp_path):
    (tmp_path / "root.json").write_text(import_root(token, bytes(range(32)), extractable=True))
    code = refusal(ConfigurationError, lambda: provider_class().open(tmp_path / "root.json", token, pin))
    assert code == "root_key_extractable"


def test_a_retired_root_is_gone_from_the_token(token, pin, tmp_path):
    from pkcs11 import Attribute, ObjectClass

    provider = provider_class().create(tmp_path / "root.json", token, pin)
    wrapped = provider.wrap(bytes(32), b"place")
    (tmp_path / "copy.json").write_bytes((tmp_path / "root.json").read_bytes())
    provider_class().retire(tmp_path / "root.json", token, pin)
    assert not (tmp_path / "root.json").exists()
    assert refusal(Unavailable, lambda: provider.unwrap(wrapped, b"place")) == "key_provider_unavailable"
    provider.close()
    code = refusal(ConfigurationError, lambda: provider_class().open(tmp_path / "copy.json", token, pin))
    assert code == "root_key_missing"
    session = session_on(token)
    assert not list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}))
    session.close()
    provider_class().retire(tmp_path / "copy.json", token, pin)  # a crash came between key and file
    assert not (tmp_path / "copy.json").exists()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", ["generate", "open"])
def test_a_crash_while_a_root_is_made_leaves_no_key_that_nothing_names(token, pin, tmp_path, monkeypatch, step):
    """Before the key is on the token and after it; what the file names is destroyed by who finds the file."""
    from pkcs11 import Attribute, ObjectClass

    from secure_embed.keys.token import RootOnToken

    def killed(*_: object) -> None:
        raise Killed

    path = tmp_path / "root.json"
    with monkeypatch.context() as patched:
        patched.setattr(RootOnToken, step, killed)
        patched.setattr(provider_class(), "retire", killed)  # a process that is gone cleans nothing up
        with pytest.raises(Killed):
            provider_class().create(path, token, pin)
    named = bytes.fromhex(json.loads(path.read_text())["key_id"])
    session = session_on(token)
    found = [key[Attribute.ID] for key in session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY})]
    session.close()
    assert found == ([named] if step == "open" else [])
    provider_class().retire(path, token, pin)
    session = session_on(token)
    assert not list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}))
    session.close()
    assert not path.exists()


def test_a_root_that_exists_is_not_made_again(token, pin, tmp_path):
    provider_class().create(tmp_path / "root.json", token, pin).close()
    code = refusal(ConfigurationError, lambda: provider_class().create(tmp_path / "root.json", token, pin))
    assert code == "key_file_exists"


# --- who gets in -------------------------------------------------------------------------------------------------------


def test_a_wrong_pin_is_asked_once_and_not_again_before_a_restart(tokens, token, pin, tmp_path):
    """A service that meets a changed PIN must not lock the token by asking on; a restart with the right one works."""
    root = tmp_path / "root.json"
    provider = provider_class().create(root, token, pin)
    wrapped = provider.wrap(bytes(32), b"place")
    tokens.take_away()
    assert refusal(Unavailable, provider.check) == "key_provider_unavailable"
    tokens.put_back()
    pin.write_text("0000")
    assert refusal(Unavailable, provider.check) == "key_provider_unavailable"
    assert refusal(ConfigurationError, lambda: provider_class().open(root, token, pin)) == "token_pin_refused"
    pin.write_text(PIN)
    assert refusal(Unavailable, lambda: provider.unwrap(wrapped, b"place")) == "key_provider_unavailable"
    provider.close()
    assert provider_class().open(root, token, pin).unwrap(wrapped, b"place") == bytes(32)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_pin_that_others_can_read_is_refused(token, pin, tmp_path, mode):
    pin.chmod(mode)
    code = refusal(ConfigurationError, lambda: provider_class().create(tmp_path / "root.json", token, pin))
    assert code == "credential_file_permissions"
    assert not (tmp_path / "root.json").exists()


def test_what_is_not_there_is_named(tokens, token, pin, tmp_path):
    create, root = provider_class().create, tmp_path / "root.json"
    stranger = token.model_copy(update={"token_label": "another token"})
    assert refusal(Unavailable, lambda: create(root, stranger, pin)) == "key_provider_unavailable"
    serial = token.model_copy(update={"token_serial": "0000000000000000"})
    assert refusal(Unavailable, lambda: create(root, serial, pin)) == "key_provider_unavailable"
    no_module = token.model_copy(update={"library": tmp_path / "token.pin"})
    assert refusal(ConfigurationError, lambda: create(root, no_module, pin)) == "token_library_unusable"
    assert refusal(ConfigurationError, lambda: create(root, token, tmp_path / "no")) == "credential_file_missing"
    assert not root.exists()


# --- a deployment ------------------------------------------------------------------------------------------------------


def note(number):
    return {
        "id": f"note-{number}",
        "text": f"Patient {number} was seen for chest pain.",
        "subject": f"person-{number}",
        "attributes": {"department": "cardiology", "sensitivity": 1, "country": "DE"},
    }


@pytest.mark.model
def test_a_deployment_whose_root_key_lies_on_a_token(tokens, token, pin, tmp_path, encoder):
    """Founded, used, restarted; away at the start: no service; away later: what is open goes on, nothing else opens."""
    from secure_embed.deployment import Deployment
    from secure_embed.founding import create
    from tests.conftest import House

    chosen = token.model_copy(update={"pin_file": pin})
    root = tmp_path / "deployment"
    create(root, dev=True, model="all-minilm-l6-v2", keys=KeySettings(provider="pkcs11", pkcs11=chosen))
    assert not list((root / "secrets").iterdir())
    house = House(root, encoder)
    for name in ("clinical-notes", "complaints"):
        house.create_collection(name)
        assert house.ingest(name, [note(n) for n in range(6)]).status_code == 201
    house.reopen()
    reader = house.clinician(clearance=3)
    path = "/v1/collections/clinical-notes/records/note-3"
    assert house.http.get(path, headers=reader).json()["text"] == note(3)["text"]
    assert house.deployment.vault.unready() is None

    tokens.take_away()
    now_and_then(house)
    assert house.http.get(path, headers=reader).json()["text"] == note(3)["text"]
    assert house.ingest("clinical-notes", [note(7)]).status_code == 201
    refused = house.ingest("complaints", [note(7)])
    assert (refused.status_code, refused.json()["code"]) == (503, "key_provider_unavailable")
    assert house.deployment.vault.unready() == "key_provider_unavailable"
    house.close()
    with pytest.raises(Unavailable) as away:
        Deployment(house.settings, encoder)
    assert (away.value.code, away.value.exit_status) == ("key_provider_unavailable", 75)

    tokens.put_back()
    house.open()
    assert house.http.get(path.replace("-3", "-7"), headers=reader).json()["text"] == note(7)["text"]
    tokens.take_away()
    tokens.put_back()  # unplugged and plugged in again, between two calls
    assert house.ingest("complaints", [note(7)]).status_code == 201
    house.close()


def now_and_then(house):
    """Five seconds pass for the watch, not for the test."""
    house.deployment.vault._key_watch._asked_at -= 5.0


def test_the_command_line_makes_such_a_deployment_and_says_what_it_lacks(tokens, token, pin, tmp_path):
    root = tmp_path / "deployment"
    options = ["--pkcs11-library", str(token.library), "--token-label", token.token_label, "--pin-file", str(pin)]
    made = run("init", "--root", root, "--dev", "--encoder", "all-minilm-l6-v2", "--key-provider", "pkcs11", *options)
    assert "pkcs11" in made.stdout
    settings = (root / "secure-embed.toml").read_text()
    assert 'provider = "pkcs11"' in settings
    assert PIN not in settings
    status = json.loads(run("keys", "status", "--root", root, "--json").stdout)
    assert (status["kind"], status["parameters"]["maker"]) == ("pkcs11", "SoftHSM project")
    found = json.loads(run("doctor", "--root", root, "--json", status=None).stdout)
    levels = [(f["level"], f["detail"]) for f in found if f["check"] == "keys"]
    assert levels[0][0] == "ok"
    assert token.token_label in levels[0][1]
    assert any(level == "lacks" and "software" in detail for level, detail in levels)

    tokens.take_away()
    found = json.loads(run("doctor", "--root", root, "--json", status=1).stdout)
    (away,) = [f for f in found if f["check"] == "keys"]
    assert (away["level"], "key_provider_unavailable" in away["detail"]) == ("wrong", True)
    served = run("serve", "--root", root, "--dev", status=75)
    assert "key_provider_unavailable" in served.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ["--key-provider", "pkcs11"],
        ["--key-provider", "vault", "--token-label", "x"],
        ["--token-label", "x"],
        ["--key-provider", "vault", "--vault-address", "https://v.example", "--passphrase-file", sys.executable],
    ],
)
def test_options_that_do_not_belong_together_are_refused(tmp_path, wrong):
    run("init", "--root", tmp_path / "d", "--dev", "--encoder", "all-minilm-l6-v2", *wrong, status=2)
    assert not (tmp_path / "d").exists()


def run(*arguments, status: int | None = 0):
    command = [sys.executable, "-m", "secure_embed.cli", *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert status is None or ran.returncode == status, ran.stderr + ran.stdout
    return ran


def test_a_deployment_moves_its_root_key_onto_a_token_and_back(open_house, token, pin, monkeypatch):
    """`keys move`: everything is wrapped anew, the old root is gone, and the settings choose the new provider then."""
    from click.testing import CliRunner

    monkeypatch.setattr("secure_embed.cli.keys.prepare_for_keys", lambda: None)  # it would start pytest anew
    from secure_embed.cli.keys import keys
    from secure_embed.settings import Settings

    house = open_house
    record = {"id": "c-1", "text": "The card was lost.", "attributes": {"department": "cards", "sensitivity": 0}}
    assert house.ingest("complaints", [record]).status_code == 201
    house.close()
    settings = house.root / "secure-embed.toml"
    section = f'\n[keys.pkcs11]\nlibrary = "{token.library}"\ntoken_label = "{token.token_label}"\npin_file = "{pin}"\n'
    settings.write_text(settings.read_text() + section)
    for kind, line in (("pkcs11", '\n[keys]\nprovider = "pkcs11"\n'), ("passphrase", "")):
        moved = CliRunner().invoke(keys, ["move", "--to", kind, "--root", str(house.root)], catch_exceptions=False)
        assert moved.exit_code == 0, moved.output
        with pytest.raises(ConfigurationError) as mismatch:
            house.open()
        assert mismatch.value.code == "root_key_mismatch"
        settings.write_text(settings.read_text().replace('\n[keys]\nprovider = "pkcs11"\n', "") + line)
        house.settings = Settings.load(house.root, dev=True)
        house.open()
        read = house.http.get("/v1/collections/complaints/records/c-1", headers=house.handler())
        assert read.json()["text"] == record["text"]
        assert house.http.get("/v1/keys", headers=house.security()).json()["provider"] == kind
        house.close()
    house.open()
