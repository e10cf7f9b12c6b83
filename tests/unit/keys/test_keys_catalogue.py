"""The catalogue's keys, keyed hashes, and what the package exports."""

import os
from uuid import uuid4

import pytest

import secure_embed.keys
from secure_embed.errors import InvalidRequest, SealedValueUnreadable, Unavailable
from secure_embed.keys import CatalogueKeys, CatalogueValue, CollectionKeys, TagKind, attribute_parts


@pytest.fixture
def catalogue() -> CatalogueKeys:
    return CatalogueKeys(os.urandom(32))


def test_a_value_opens_at_its_place_alone(catalogue: CatalogueKeys) -> None:
    uuid, other = uuid4(), uuid4()
    sealed = catalogue.seal(CatalogueValue.DESCRIPTOR, uuid, b"descriptor")
    assert catalogue.open(CatalogueValue.DESCRIPTOR, uuid, sealed) == b"descriptor"
    for use in (
        lambda: catalogue.open(CatalogueValue.DESCRIPTOR, other, sealed),
        lambda: catalogue.open(CatalogueValue.ERASURE, uuid, sealed),
        lambda: CatalogueKeys(os.urandom(32)).open(CatalogueValue.DESCRIPTOR, uuid, sealed),
    ):
        with pytest.raises(SealedValueUnreadable):
            use()


def test_after_close_nothing_works(catalogue: CatalogueKeys) -> None:
    sealed = catalogue.seal(CatalogueValue.ERASURE, uuid4(), b"")
    catalogue.close()
    for use in (
        lambda: catalogue.seal(CatalogueValue.ERASURE, uuid4(), b""),
        lambda: catalogue.open(CatalogueValue.ERASURE, uuid4(), sealed),
        lambda: catalogue.tag(TagKind.COLLECTION_NAME, "notes"),
    ):
        with pytest.raises(Unavailable):
            use()


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        (TagKind.PRINCIPAL, ("one",)),
        (TagKind.RECORD_ID, ("one", "two")),
        (TagKind.ATTRIBUTE, ("a", "b")),
        (TagKind.QUERY, ()),
    ],
)
def test_a_kind_has_a_fixed_number_of_parts(catalogue: CatalogueKeys, kind: TagKind, parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="number of parts"):
        catalogue.tag(kind, *parts)


def test_attribute_values_of_different_types_stay_apart(collection: CollectionKeys) -> None:
    cases = [("level", "1"), ("level", 1), ("level", True), ("level", "true"), ("leve", "l1"), ("level", "")]
    tags = {collection.tag(TagKind.ATTRIBUTE, *attribute_parts(name, value)) for name, value in cases}
    assert len(tags) == len(cases)


@pytest.mark.parametrize("parts", [("\ud800",), ("a\udfffb",)])
def test_a_lone_surrogate_is_refused_and_not_repeated(collection: CollectionKeys, parts: tuple[str]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        collection.tag(TagKind.RECORD_ID, *parts)
    assert refused.value.code == "text_not_unicode"
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_exports_are_sorted_and_there() -> None:
    names = secure_embed.keys.__all__
    assert sorted(names, key=lambda name: (name[0].islower(), name)) == names
    assert all(hasattr(secure_embed.keys, name) for name in names)
