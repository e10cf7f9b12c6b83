"""Manifests round trip, no byte string makes the parser fail in another way, and batches lose nothing."""

import json
import string

from hypothesis import given
from hypothesis import strategies as st

from secure_embed.embed import FileDigest, ModelManifest
from secure_embed.embed.tokens import batches
from secure_embed.errors import ConfigurationError

part = st.text(string.ascii_lowercase + string.digits + "_-", min_size=1, max_size=8).filter(lambda s: s[0] != "-")
paths = st.lists(part, min_size=1, max_size=4).map("/".join).map(lambda p: p + ".json")
digests = st.builds(
    FileDigest, length=st.integers(1, 1 << 40), sha256=st.text("0123456789abcdef", min_size=64, max_size=64)
)
label = st.text(string.ascii_letters + string.punctuation, min_size=1, max_size=20)
prefix = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
whole = st.builds(
    ModelManifest,
    name=st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=63),
    source=label,
    revision=label,
    licence=label,
    dimension=st.integers(1, 65_535),
    tokens_max=st.integers(3, 131_072),
    pooling=st.sampled_from(["mean", "cls"]),
    query_prefix=prefix,
    document_prefix=prefix,
    files=st.dictionaries(paths, digests, min_size=1, max_size=5),
)


def parse(raw: bytes) -> ModelManifest | None:
    """None: refused, in the one way there is."""
    try:
        return ModelManifest.parse(raw)
    except ConfigurationError as refused:
        if refused.code != "manifest_invalid":
            raise
        return None


@given(whole)
def test_the_canonical_form_reads_back_to_the_same_identity(m: ModelManifest) -> None:
    again = ModelManifest.parse(m.canonical())
    assert again == m
    assert again.sha256 == m.sha256
    assert again.space.digest == m.space.digest


@given(whole, st.data())
def test_one_changed_byte_is_another_identity_or_refused(m: ModelManifest, data: st.DataObject) -> None:
    raw = bytearray(m.canonical())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    other = parse(bytes(raw))
    assert other is None or other == m or other.sha256 != m.sha256


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=200) | json_values.map(lambda v: json.dumps(v).encode()))
def test_anything_else_is_refused_in_one_way(raw: bytes) -> None:
    assert parse(raw) is None


@given(st.sampled_from(sorted(ModelManifest.__dataclass_fields__)), json_values, whole)
def test_a_member_of_a_wrong_type_is_refused_or_kept(member: str, value: object, m: ModelManifest) -> None:
    members = {**json.loads(m.canonical()), member: value}
    found = parse(json.dumps(members).encode())
    assert found is None or json.loads(found.canonical())[member] == value


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 400), st.integers(1, 9))
def test_batches_hold_each_text_once_within_their_limits(lengths: list[int], tokens_max: int, texts_max: int) -> None:
    found = list(batches(lengths, tokens_max=tokens_max, texts_max=texts_max))
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    for batch in found:
        padded = max(lengths[i] for i in batch) * len(batch)
        assert 1 <= len(batch) <= texts_max
        assert padded <= tokens_max or len(batch) == 1
    flat = [lengths[i] for batch in found for i in batch]
    assert flat == sorted(flat, reverse=True)
