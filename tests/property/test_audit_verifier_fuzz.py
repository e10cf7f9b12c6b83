"""The verifier reads what an attacker wrote: it says intact, tampered or unreadable, and never falls over."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.verify.cli import main
from audit.verify.journal import read_journal
from audit.verify.notes import Key, KeyInvalid, NoteInvalid, open_checkpoint, open_statement
from secure_embed.audit import NoteVerifier, parse_tile_path
from secure_embed.audit.journal import recover
from secure_embed.errors import SecureEmbedError
from tests.audit_logs import SIGNER, call, new_log

KEY = Key.parse(SIGNER.vkey)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "log"
    log = new_log(folder)
    for i in range(130):
        call(log, f"r{i}")
    log.publish()
    call(log, "journal")
    shutil.copytree(folder, folder.with_name("live"))
    log.close()
    return folder.with_name("live")


FILES = [
    "checkpoint",
    "journal",
    "tile/0/000",
    "tile/0/001.p/5",
    "tile/1/000.p/1",
    "tile/entries/000",
    "tile/entries/001.p/5",
]
contents = (
    st.binary(max_size=400)
    | st.integers(0, 10**19).map(lambda n: f"{SIGNER.name}\n{n}\n{'A' * 43}=\n\n\u2014 x y\n".encode())
    | st.binary(max_size=60).map(lambda b: b"\xffSEJ" + b)
    | st.lists(st.binary(max_size=30), max_size=5).map(lambda es: b"".join(len(e).to_bytes(2, "big") + e for e in es))
)
changes = st.dictionaries(st.sampled_from(FILES), contents | st.none(), max_size=4)


@given(changes=changes)
@settings(max_examples=60, deadline=None)
def test_any_folder_gets_a_verdict(made: Path, changes: dict[str, bytes | None]) -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "log"
        shutil.copytree(made, folder)
        untouched = {name: (folder / name).read_bytes() for name in FILES}
        for name, content in changes.items():
            (folder / name).unlink()
            if content is not None:
                (folder / name).write_bytes(content)
        status = main([str(folder), "--key", SIGNER.vkey])
        assert status in (0, 1, 2)
        if all(content is not None and untouched[name] == content for name, content in changes.items()):
            assert status == 0
        elif set(changes) & set(FILES) - {"journal"}:
            assert status != 0


@given(st.text() | st.binary().map(lambda b: SIGNER.vkey + b.decode("latin-1")))
def test_any_key_string_is_a_key_or_refused(text: str) -> None:
    try:
        Key.parse(text)
    except KeyInvalid:
        with pytest.raises(SecureEmbedError):
            NoteVerifier.parse(text)
    else:
        assert str(NoteVerifier.parse(text)) == text


@given(st.text() | st.text().map(lambda t: SIGNER.sign(t + "\n") if t.isprintable() else t))
def test_any_note_is_a_checkpoint_or_refused(text: str) -> None:
    for read in (lambda: open_checkpoint(text, KEY), lambda: open_statement(text, KEY, "erasure-receipt")):
        with pytest.raises(NoteInvalid):
            read()


@given(st.lists(st.binary(max_size=50) | st.just(b"\xffSEJ"), max_size=6).map(b"".join))
def test_any_journal_is_read_or_refused(journal: bytes) -> None:
    read_journal(journal)
    assert recover(journal).torn_bytes == len(journal)  # no whole frame comes about by chance


@given(st.text(max_size=40) | st.from_regex(r"(entries|[0-9]{1,3})/(x?[0-9]{1,4}/){0,3}[0-9]{1,4}(\.p/[0-9]{1,4})?"))
def test_any_tile_name_is_a_place_or_not_found(path: str) -> None:
    from audit.verify.folder import place_of

    place = place_of(path)
    if place is None:
        with pytest.raises(SecureEmbedError):
            parse_tile_path(path)
    else:
        level, index, width = parse_tile_path(path)
        assert ("entries" if level is None else level, index, width) == place
