"""Sealed values for any content and any damage; keyed hashes for any parts; key files for any bytes."""

from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from secure_embed.errors import ConfigurationError, InvalidRequest, SealedValueUnreadable
from secure_embed.keys import TagKind
from secure_embed.keys.sealing import Place, open_bound, seal_bound, sealed_overhead_bytes
from secure_embed.keys.strict_json import StrictObject
from secure_embed.keys.tags import tag
from secure_embed.types import Field

keys = st.binary(min_size=32, max_size=32)
places = st.tuples(st.uuids(), st.integers(0, 2**63 - 1), st.sampled_from(Field), st.binary(min_size=32, max_size=32))
Where = tuple[UUID, int, Field, bytes]


def additional(where: Where) -> bytes:
    uuid, position, field, space = where
    return Place(uuid).record(position, field, space)


@given(key=keys, where=places, plaintext=st.binary(max_size=300))
def test_a_sealed_value_opens_and_has_its_stated_length(key: bytes, where: Where, plaintext: bytes) -> None:
    sealed = seal_bound(key, plaintext, additional(where))
    assert len(sealed) == len(plaintext) + sealed_overhead_bytes
    assert open_bound(key, sealed, additional(where), where="here") == plaintext


@given(key=keys, where=places, plaintext=st.binary(max_size=60), flip=st.integers(1, 255))
def test_no_byte_of_a_sealed_value_can_be_changed(key: bytes, where: Where, plaintext: bytes, flip: int) -> None:
    sealed = seal_bound(key, plaintext, additional(where))
    for at in range(len(sealed)):
        changed = sealed[:at] + bytes([sealed[at] ^ flip]) + sealed[at + 1 :]
        with pytest.raises(SealedValueUnreadable):
            open_bound(key, changed, additional(where), where="here")


@given(key=keys, where=places, plaintext=st.binary(max_size=60), data=st.data())
def test_no_sealed_value_can_be_cut_or_lengthened(
    key: bytes, where: Where, plaintext: bytes, data: st.DataObject
) -> None:
    sealed = seal_bound(key, plaintext, additional(where))
    cut = data.draw(st.integers(0, len(sealed) - 1))
    for changed in (sealed[:cut], sealed[cut + 1 :], sealed + data.draw(st.binary(min_size=1, max_size=40))):
        with pytest.raises(SealedValueUnreadable):
            open_bound(key, changed, additional(where), where="here")


@given(key=keys, raw=st.binary(max_size=120))
@example(key=bytes(32), raw=b"\x01\x00\x00\x00\x01" + bytes(28))
def test_bytes_that_nobody_sealed_do_not_open(key: bytes, raw: bytes) -> None:
    with pytest.raises(SealedValueUnreadable) as refused:
        open_bound(key, raw, additional((UUID(int=1), 0, Field.TEXT, bytes(32))), where="here")
    assert refused.value.detail == "a sealed value could not be opened (here)"


@given(one=places, two=places)
def test_additional_data_is_the_same_for_the_same_place_alone(one: Where, two: Where) -> None:
    def place(where: Where) -> Where:
        uuid, position, field, space = where
        return uuid, position, field, space if field is Field.VECTOR else b""

    assert (additional(one) == additional(two)) == (place(one) == place(two))
    assert len(additional(one)) == 82


parts_of = {
    1: [TagKind.RECORD_ID, TagKind.SUBJECT, TagKind.REQUEST],
    2: [TagKind.PRINCIPAL, TagKind.CLIENT],
    3: [TagKind.ATTRIBUTE],
}
text = st.text(alphabet=st.sampled_from("ab\x00\x01é"), max_size=6)


@st.composite
def tagged(draw: st.DrawFn) -> tuple[TagKind, tuple[str, ...]]:
    count = draw(st.sampled_from(sorted(parts_of)))
    return draw(st.sampled_from(parts_of[count])), tuple(draw(text) for _ in range(count))


@given(one=tagged(), two=tagged())
@example(one=(TagKind.PRINCIPAL, ("ab", "c")), two=(TagKind.PRINCIPAL, ("a", "bc")))
@example(one=(TagKind.ATTRIBUTE, ("a", "", "b")), two=(TagKind.ATTRIBUTE, ("a", "b", "")))
def test_tags_are_equal_for_the_same_kind_and_parts_alone(
    one: tuple[TagKind, tuple[str, ...]], two: tuple[TagKind, tuple[str, ...]]
) -> None:
    assert (tag(bytes(32), one[0], *one[1]) == tag(bytes(32), two[0], *two[1])) == (one == two)


@given(value=st.text(alphabet=st.characters() | st.characters(categories=["Cs"]), max_size=20))
def test_any_text_has_a_tag_unless_it_holds_a_lone_surrogate(value: str) -> None:
    refused = None
    try:
        assert len(tag(bytes(32), TagKind.RECORD_ID, value)) == 32
    except InvalidRequest as error:
        refused = error.code
    has_surrogate = any(0xD800 <= ord(character) <= 0xDFFF for character in value)
    assert refused == ("text_not_unicode" if has_surrogate else None)


@given(raw=st.binary(max_size=200) | st.text(alphabet='{}[]",:ab1.e-\\u', max_size=60).map(str.encode))
@example(raw=b'{"a": NaN}')
@example(raw=b'{"a": 1' + b"0" * 5_000 + b"}")
@example(raw=b'{"a": "\\ud800"}')
def test_any_bytes_are_a_key_file_or_refused(raw: bytes) -> None:
    try:
        found = StrictObject(raw, file="root.json", members=("a",)).data("a")
        outcome = "" if isinstance(found, bytes) else "not bytes"
    except ConfigurationError as error:
        outcome = f"{error.code}: {error.detail}"
    assert outcome in {"", "key_file_invalid: root.json is not valid"}
