"""Principals, collections and records as Cedar entities, always under the schema.

Without the schema Cedar takes any attribute of any type, and a forbid that meets one errors and is skipped.
"""

import hashlib
import json
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from secure_embed.types import Attributes, AttributeType, AttributeValue, Principal

if TYPE_CHECKING:
    import cedarpy

__all__ = ["SERVICE_UID", "EntityBuilder", "collection_uid", "principal_uid", "record_uid"]

_SAMPLES: Mapping[AttributeType, AttributeValue] = {"string": "", "long": 0, "bool": False}
_TYPE_OF: Mapping[type, AttributeType] = {str: "string", int: "long", bool: "bool"}

SERVICE_UID = 'Service::"secure_embed"'


def collection_uid(name: str) -> str:
    """``name`` matches ``COLLECTION_NAME``, so that nothing needs escaping."""
    return f'Collection::"{name}"'


def record_uid(number: int) -> str:
    """Records stand under their number in the request; their ids are secret and decide nothing."""
    return f'Record::"{number}"'


def principal_uid(principal: Principal) -> str:
    """Under a hash, which any issuer and subject have and which needs no escaping; policies go by attributes."""
    return f'Principal::"{_principal_id(principal)}"'


def _principal_id(principal: Principal) -> str:
    return hashlib.sha256(json.dumps([principal.issuer, principal.subject]).encode()).hexdigest()


class EntityBuilder:
    """Builds entity sets and knows which attributes the schema declares. Safe to call from several threads."""

    def __init__(self, schema: "cedarpy.Schema") -> None:
        self._schema = schema
        self._declared: dict[tuple[str, str], AttributeType | None] = {}
        self._lock = Lock()

    def of_collection(self, principal: Principal, collection_name: str | None) -> "cedarpy.Entities":
        """Raises ``ValueError`` when the schema refuses one of them."""
        return self._build([self._principal(principal), *self._collections(collection_name)])

    def of_records(
        self, principal: Principal, collection_name: str, records: Mapping[int, Attributes]
    ) -> "cedarpy.Entities":
        """Raises ``ValueError`` when the schema refuses one of them. Undeclared attributes are left out."""
        parents = [{"type": "Collection", "id": collection_name}]
        rows = [
            {
                "uid": {"type": "Record", "id": str(number)},
                "attrs": {name: v for name, v in values.items() if self.declared("Record", name) is not None},
                "parents": parents,
            }
            for number, values in records.items()
        ]
        return self._build([self._principal(principal), *self._collections(collection_name), *rows])

    def contradicts(self, declaration: Mapping[str, AttributeType]) -> bool:
        """Whether a collection declares an attribute with another type than the policies know it by."""
        return any(self.declared("Record", name) not in (None, kind) for name, kind in declaration.items())

    def mismatches(self, values: Attributes) -> bool:
        """Whether a record carries a value of another type than the policies know its attribute by."""
        return any(self.declared("Record", name) not in (None, _TYPE_OF[type(v)]) for name, v in values.items())

    def declared(self, kind: Literal["Principal", "Record"], attribute: str) -> AttributeType | None:
        """The type under which the schema declares it, or None. Policies cannot name what is not declared."""
        with self._lock:
            if (kind, attribute) not in self._declared:
                self._declared[kind, attribute] = self._ask_schema(kind, attribute)
            return self._declared[kind, attribute]

    def _ask_schema(self, kind: str, attribute: str) -> AttributeType | None:
        """The schema's handle cannot be read, only tried: which sample value does it take?"""
        required = _required_attributes() if kind == "Principal" else {}
        for attribute_type, sample in _SAMPLES.items():
            entity = {
                "uid": {"type": kind, "id": "sample"},
                "attrs": {**required, attribute: sample},
                "parents": [],
            }
            try:
                self._build([entity])
            except ValueError:
                continue
            return attribute_type
        return None

    def _principal(self, principal: Principal) -> dict[str, Any]:
        declared = {n: v for n, v in principal.attributes.items() if self.declared("Principal", n) is not None}
        return {
            "uid": {"type": "Principal", "id": _principal_id(principal)},
            # Ours last: no claim can pose as a scope, a purpose, the client or the issuer.
            "attrs": {
                **declared,
                **_required_attributes(
                    client=principal.client_id,
                    issuer=principal.issuer,
                    scopes=principal.scopes,
                    purposes=principal.purposes,
                ),
            },
            "parents": [],
        }

    @staticmethod
    def _collections(collection_name: str | None) -> list[dict[str, Any]]:
        if collection_name is None:
            return []
        return [{"uid": {"type": "Collection", "id": collection_name}, "attrs": {}, "parents": []}]

    def _build(self, entities: list[dict[str, Any]]) -> "cedarpy.Entities":
        import cedarpy

        return cedarpy.Entities.from_json_str(json.dumps(entities), schema=self._schema)


def _required_attributes(
    *,
    client: str = "",
    issuer: str = "",
    scopes: frozenset[str] = frozenset(),
    purposes: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    return {"client": client, "issuer": issuer, "scopes": sorted(scopes), "purposes": sorted(purposes)}
