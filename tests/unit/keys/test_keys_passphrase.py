"""The passphrase provider's own files: who may read them, what is refused, what is written."""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from secure_embed.errors import ConfigurationError, SealedValueUnreadable
from secure_embed.keys import PassphraseProvider

words = b"correct horse battery staple"


def passphrase_file(folder: Path, content: bytes = words, mode: int = 0o600) -> Path:
    path = folder / "passphrase"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    PassphraseProvider.create(folder / "root.json", passphrase_file(folder))
    return folder / "root.json"


def test_root_json_is_private_and_states_its_cost(made: Path) -> None:
    document = json.loads(made.read_text())
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert (document["memory_kib"], document["iterations"], document["lanes"]) == (65_536, 3, 4)
    assert re.fullmatch("[0-9a-f]{32}", document["key_id"])
    assert [path.name for path in made.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_modes_that_close_the_passphrase_to_others(made: Path, tmp_path: Path, mode: int) -> None:
    assert PassphraseProvider.open(made, passphrase_file(tmp_path, mode=mode)).describe().kind == "passphrase"


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o610, 0o602, 0o620, 0o666, 0o777])
def test_a_passphrase_that_others_can_reach_is_refused(made: Path, tmp_path: Path, mode: int) -> None:
    for use in (PassphraseProvider.open, PassphraseProvider.create):
        with pytest.raises(ConfigurationError) as refused:
            use(made, passphrase_file(tmp_path, mode=mode))
        assert refused.value.code == "passphrase_file_permissions"


@pytest.mark.parametrize(
    ("owner", "group", "mode", "accepted"),
    [
        (4_242, 4_242, 0o600, False),  # somebody else's
        (0, 0, 0o440, True),  # systemd's credential: the group's bit is the mask of an ACL
        (0, 0, 0o400, True),
        (0, 100, 0o440, False),  # readable by a group that is not root's
        (0, 0, 0o444, False),
        (0, 0, 0o460, False),
    ],
)
def test_whose_passphrase_file_is_read(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, group: int, mode: int, accepted: bool
) -> None:
    real = os.fstat

    def as_if(descriptor: int) -> os.stat_result:
        found = list(real(descriptor))
        found[stat.ST_MODE] = stat.S_IFREG | mode
        found[stat.ST_UID], found[stat.ST_GID] = owner, group
        return os.stat_result(found)

    path = passphrase_file(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: 1_000)
        patched.setattr("secure_embed.keys.private_files.os.fstat", as_if)
        if accepted:
            PassphraseProvider.open(made, path).close()
        else:
            with pytest.raises(ConfigurationError) as refused:
                PassphraseProvider.open(made, path)
            assert refused.value.code == "passphrase_file_permissions"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "passphrase_invalid"),
        (b"\n", "passphrase_invalid"),
        (b"fifteen bytes..", "passphrase_too_short"),
        (b"fifteen bytes..\n", "passphrase_too_short"),
        (b"x" * 5_000, "passphrase_invalid"),
    ],
)
def test_passphrases_that_make_no_root(tmp_path: Path, content: bytes, code: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        PassphraseProvider.create(tmp_path / "root.json", passphrase_file(tmp_path, content))
    assert refused.value.code == code
    assert not (tmp_path / "root.json").exists()


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_one_final_line_end_does_not_count(made: Path, tmp_path: Path, ending: bytes) -> None:
    PassphraseProvider.open(made, passphrase_file(tmp_path, words + ending)).close()


@pytest.mark.parametrize("wrong", [words[:-1], words + b"\n\n", words + b" ", words.upper()])
def test_a_wrong_passphrase_opens_nothing_and_is_not_repeated(made: Path, tmp_path: Path, wrong: bytes) -> None:
    with pytest.raises(SealedValueUnreadable) as refused:
        PassphraseProvider.open(made, passphrase_file(tmp_path, wrong))
    assert "horse" not in repr(refused.value).lower()


def test_a_root_that_exists_is_not_overwritten(made: Path, tmp_path: Path) -> None:
    before = made.read_bytes()
    with pytest.raises(ConfigurationError) as refused:
        PassphraseProvider.create(made, passphrase_file(tmp_path))
    assert refused.value.code == "key_file_exists"
    assert made.read_bytes() == before
    assert [path.name for path in made.parent.iterdir() if path.name.startswith(".")] == []


def test_missing_files_are_named_by_their_code(made: Path, tmp_path: Path) -> None:
    for path, passphrase, code in (
        (made, tmp_path / "absent", "passphrase_file_missing"),
        (tmp_path / "absent", passphrase_file(tmp_path), "key_file_missing"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            PassphraseProvider.open(path, passphrase)
        assert refused.value.code == code


def test_a_pipe_in_place_of_the_passphrase_does_not_hang(made: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigurationError) as refused:
        PassphraseProvider.open(made, tmp_path / "pipe")
    assert refused.value.code == "passphrase_file_permissions"


@pytest.mark.parametrize(
    "change",
    [
        {"memory_kib": 2**40},
        {"memory_kib": 8, "lanes": 4},
        {"memory_kib": True},
        {"memory_kib": "65536"},
        {"iterations": 0},
        {"iterations": 10**9},
        {"lanes": 0},
        {"lanes": 3.0},
        {"salt": "AAAA"},
        {"salt": "not base64"},
        {"salt": None},
        {"sealed_root": ""},
        {"format": "secure_embed/root/v2"},
        {"key_id": "é"},
        {"extra": 1},
    ],
)
def test_a_root_json_that_is_not_ours_is_refused_before_any_work(
    made: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    (tmp_path / "root.json").write_text(json.dumps(json.loads(made.read_text()) | change))
    with pytest.raises(ConfigurationError) as refused:
        PassphraseProvider.open(tmp_path / "root.json", passphrase_file(tmp_path))
    assert refused.value.code == "key_file_invalid"


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b"\xff", b'{"format": 1, "format": 1}', b"[" * 60_000, b" " * 70_000]
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "root.json").write_bytes(raw)
    with pytest.raises(ConfigurationError) as refused:
        PassphraseProvider.open(tmp_path / "root.json", passphrase_file(tmp_path))
    assert refused.value.code == "key_file_invalid"
