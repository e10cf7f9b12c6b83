"""Tree, proofs, bundles, notes and canonical JSON, at sizes and with values that nobody chose; the service against the
definition, and against the auditors' verifier."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.verify import folder as theirs_folder
from audit.verify import merkle as theirs
from audit.verify.entries import EntryInvalid, read_entry
from secure_embed.audit import leaf_hash, parse_tile_path, sign_note, verify_consistency, verify_inclusion, verify_note
from secure_embed.audit.journal import Frame, recover
from secure_embed.audit.merkle import CompactRange, node_hash
from secure_embed.audit.note import Checkpoint
from secure_embed.audit.tiles import bundle_path, pack_entries, tile_path, unpack_entries
from secure_embed.audit.tree import Tree
from secure_embed.errors import IntegrityFailure
from tests.audit_logs import SIGNER, extended_head

LEAVES = [leaf_hash(b"%d" % i) for i in range(70_000)]


def made_tree(size: int) -> tuple[Tree, CompactRange]:
    tree = Tree(lambda start, count: LEAVES[start : start + count])
    grown = CompactRange()
    completed: list[tuple[int, bytes]] = []
    for leaf in LEAVES[:size]:
        grown.append(leaf, completed)
    tree.extend(size, completed)
    return tree, grown


TREE, RANGE = made_tree(len(LEAVES))


def mth(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it is written there."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


sizes = (
    st.integers(1, 600) | st.integers(1, len(LEAVES)) | st.sampled_from([1, 2, 255, 256, 257, 65_535, 65_536, 65_537])
)


@given(size=st.integers(1, 700))
def test_root_and_range_are_as_the_rfc_defines_them(size: int) -> None:
    tree, grown = made_tree(size)
    assert grown.root() == mth(LEAVES[:size]) == tree.range().root()
    other = theirs.Range()
    other.extend(LEAVES[:size])
    assert other.root() == grown.root()


@given(data=st.data(), size=sizes)
@settings(deadline=None)
def test_inclusion_proofs_hold_and_only_for_what_they_prove(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    root = root_at(size)
    proof = list(TREE.inclusion_proof(index, size))
    assert len(proof) <= (size - 1).bit_length()
    verify_inclusion(leaf=LEAVES[index], index=index, size=size, proof=proof, root=root)
    assert theirs.inclusion_holds(LEAVES[index], index, size, proof, root)
    other = data.draw(st.integers(0, size - 1))
    refused_inclusion(LEAVES[other], index, size, proof, root, unless=other == index)
    refused_inclusion(LEAVES[index], other, size, proof, root, unless=other == index)
    at = data.draw(st.integers(0, max(0, len(proof) - 1)))
    if proof:
        changed = [*proof[:at], bytes([proof[at][0] ^ 1]) + proof[at][1:], *proof[at + 1 :]]
        for wrong in (changed, proof[:-1], [*proof, proof[-1]]):
            refused_inclusion(LEAVES[index], index, size, wrong, root, unless=False)


def refused_inclusion(leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes, *, unless: bool) -> None:
    if unless:
        return
    assert not theirs.inclusion_holds(leaf, index, size, proof, root)
    with pytest.raises(IntegrityFailure):
        verify_inclusion(leaf=leaf, index=index, size=size, proof=proof, root=root)


@given(data=st.data(), size=sizes)
@settings(deadline=None)
def test_consistency_proofs_hold_and_only_for_what_they_prove(data: st.DataObject, size: int) -> None:
    old = data.draw(st.integers(1, size))
    old_root, root = root_at(old), root_at(size)
    proof = list(TREE.consistency_proof(old, size))
    verify_consistency(old_size=old, old_root=old_root, size=size, root=root, proof=proof)
    assert theirs.consistency_holds(old, old_root, size, root, proof)
    wrong = bytes([old_root[0] ^ 1]) + old_root[1:]
    for o, new in ((wrong, root), (old_root, bytes(32))):
        assert not theirs.consistency_holds(old, o, size, new, proof)
        with pytest.raises(IntegrityFailure):
            verify_consistency(old_size=old, old_root=o, size=size, root=new, proof=proof)


def root_at(size: int) -> bytes:
    """Through the tree's own subtrees, whose hashes the test above compares with the definition."""
    small = Tree(lambda start, count: LEAVES[start : start + count])
    small._levels, small.size = TREE._levels, size
    return small.range().root()


@given(st.integers(0, 63), st.integers(0, 10**15 - 1), st.integers(1, 256))
def test_tile_names_are_read_back(level: int, index: int, width: int) -> None:
    path = tile_path(level, index, width)
    assert parse_tile_path(path.removeprefix("tile/")) == (level, index, width)
    assert theirs_folder.path_of(level, index, width) == path
    assert theirs_folder.place_of(path.removeprefix("tile/")) == (level, index, width)
    bundle = bundle_path(index, width)
    assert parse_tile_path(bundle.removeprefix("tile/")) == (None, index, width)


entries = st.lists(st.binary(max_size=300), min_size=1, max_size=20)


@given(entries)
def test_bundles_are_read_back(bundle: list[bytes]) -> None:
    packed = pack_entries(bundle)
    assert unpack_entries(packed, len(bundle)) == bundle
    assert theirs_folder.unpack(packed).entries == bundle
    for wrong in (packed[:-1], packed + b"x"):
        with pytest.raises(IntegrityFailure):
            unpack_entries(wrong, len(bundle))


@given(commits=st.lists(entries, max_size=5), data=st.data())
def test_a_journal_cut_anywhere_gives_its_whole_frames(commits: list[list[bytes]], data: st.DataObject) -> None:
    grown, frames = CompactRange(), []
    for commit in commits:
        first = grown.size
        head = extended_head(grown, commit)
        frames.append(
            Frame(first=first, entries=commit, leaf_hashes=[*map(leaf_hash, commit)], checkpoint=head.checkpoint)
        )
    raw = [frame.to_bytes() for frame in frames]
    journal = b"".join(raw)
    cut = data.draw(st.integers(0, len(journal)))
    whole = sum(1 for i in range(len(raw)) if sum(map(len, raw[: i + 1])) <= cut)
    found = recover(journal[:cut])
    assert list(found.frames) == frames[:whole]
    assert found.valid_bytes == sum(map(len, raw[:whole]))
    assert found.torn_bytes == cut - found.valid_bytes


@given(st.integers(0, 10**18), st.binary(min_size=32, max_size=32))
def test_checkpoints_are_read_back(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin=SIGNER.name, size=size, root=root)
    assert Checkpoint.verified(SIGNER.sign(checkpoint.text), SIGNER.verifier) == checkpoint


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])), min_size=1, max_size=5), st.data())
def test_statements_are_read_back_and_a_changed_byte_is_noticed(lines: list[str], data: st.DataObject) -> None:
    text = "".join(f"{line}\n" for line in [*lines, "end"])
    note = sign_note(SIGNER, kind="review", text=text)
    assert verify_note(SIGNER.verifier, note, kind="review") == text
    with pytest.raises(IntegrityFailure):
        Checkpoint.verified(note, SIGNER.verifier)
    raw = bytearray(note.encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    changed = raw.decode(errors="surrogateescape")
    with pytest.raises(IntegrityFailure):
        verify_note(SIGNER.verifier, changed, kind="review")


scalars = st.text(st.characters(codec="utf-8")) | st.integers(-(2**53) + 1, 2**53 - 1) | st.booleans()
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text("ab_c", min_size=1), v, max_size=4)
)


@given(st.dictionaries(st.text("abcdefg_", min_size=1), values, max_size=6))
def test_both_programs_write_and_read_the_same_canonical_json(event: dict[str, object]) -> None:
    import orjson

    ours = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
    assert ours == json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert read_entry(ours) == event


@given(st.binary(max_size=200) | st.text().map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_an_entry_is_canonical_or_refused(entry: bytes) -> None:
    try:
        event = read_entry(entry)
    except EntryInvalid:
        return
    assert json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == entry
