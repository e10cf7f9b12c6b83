"""What a principal may do: Cedar decides, a row filter carries the decision into search. Fails closed.

Two steps guard a record. Before search, :meth:`Authorizer.authorize` turns what partial evaluation leaves of the
policies into a :class:`RowFilter`; partial evaluation is experimental in Cedar, so it is never the last word. After
search and before anything is opened for the caller, :meth:`Authorizer.recheck` decides each record in full, with
the schema. Cedar skips a forbid that errors; here any error is a refusal.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secure_embed.access._entities import SERVICE_UID, EntityBuilder, collection_uid, principal_uid, record_uid
from secure_embed.access._policies import RECORD_ACTIONS, load_policies
from secure_embed.access._residual import Translator, Untranslatable
from secure_embed.errors import ConfigurationError, Forbidden
from secure_embed.types import (
    COLLECTION_NAME,
    Action,
    Attributes,
    AttributeType,
    Decision,
    Expression,
    Permit,
    Principal,
    Refusal,
    RowFilter,
    TruthValue,
)

__all__ = ["PURPOSE", "Authorizer"]

PURPOSE = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")  # what a purpose of access looks like

_FALSE, _TRUE = TruthValue(False), TruthValue(True)
_SERVICE_ACTIONS = frozenset(  # about the service, not one collection
    {
        Action.COLLECTION_LIST,
        Action.AUDIT_READ,
        Action.HOLD_PLACE,
        Action.HOLD_RELEASE,
        Action.HOLD_LIST,
        Action.KEYS_READ,
        Action.KEYS_ROTATE,
        Action.BACKUP_CREATE,
    }
)
_CEDAR_FAULTS = (ValueError, TypeError, KeyError, RecursionError)


class Authorizer:
    """The policies of one folder, parsed once. Safe to call from several threads; immutable after construction."""

    def __init__(self, policy_folder: Path) -> None:
        """Raises ``ConfigurationError`` (``policies_invalid``) on any finding, however small."""
        self._policies = load_policies(policy_folder)
        self._entities = EntityBuilder(self._policies.schema)
        self._refuse_foreign_schema()

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the policy set in force; stands in every decision and so in every log entry."""
        return self._policies.digest

    def authorize(
        self,
        principal: Principal,
        action: Action,
        collection_name: str | None,
        purpose: str | None,
        attributes_schema: Mapping[str, AttributeType] | None = None,
    ) -> Decision:
        """A permit with its row filter, or a refusal (``Forbidden``, ``policy_denied``). Never raises on a request.

        ``attributes_schema``: what the collection declares. A declaration that contradicts the policies' schema is
        refused (``attributes_contradict_policy``): decisions about its records could only be errors.
        """
        if purpose is not None and not PURPOSE.match(purpose):
            return self._refusal()
        if action not in _SERVICE_ACTIONS and (collection_name is None or not COLLECTION_NAME.match(collection_name)):
            return self._refusal()
        if attributes_schema is not None and self._entities.contradicts(attributes_schema):
            return self._refusal(code="attributes_contradict_policy")
        try:
            if action in RECORD_ACTIONS:
                return self._on_records(principal, action, collection_name or "", purpose)
            return self._on_resource(principal, action, collection_name, purpose)
        except (*_CEDAR_FAULTS, Untranslatable):
            return self._refusal()

    def recheck(
        self,
        principal: Principal,
        action: Action,
        collection_name: str,
        purpose: str | None,
        attributes: Sequence[Attributes],
    ) -> list[bool]:
        """Decide each of the records in full, in their order; False where anything is in doubt.

        ``attributes``: what each record carries, after it was opened. Cost: decision 0007.
        """
        import cedarpy

        refused = [False] * len(attributes)
        if (
            not attributes
            or action not in RECORD_ACTIONS
            or not COLLECTION_NAME.match(collection_name)
            or (purpose is not None and not PURPOSE.match(purpose))
        ):
            return refused
        checkable = [n for n, values in enumerate(attributes) if not self._entities.mismatches(values)]
        try:
            entities = self._entities.of_records(principal, collection_name, {n: attributes[n] for n in checkable})
            requests = [_request(principal, action, purpose) | {"resource": record_uid(number)} for number in checkable]
            results = cedarpy.is_authorized_batch(
                requests, self._policies.handle, entities, schema=self._policies.schema
            )
        except _CEDAR_FAULTS:
            return refused
        if len(results) != len(checkable):
            return refused
        for number, result in zip(checkable, results, strict=True):
            refused[number] = result.allowed and not result.diagnostics.errors
        return refused

    def _on_resource(
        self, principal: Principal, action: Action, collection_name: str | None, purpose: str | None
    ) -> Decision:
        import cedarpy

        resource = SERVICE_UID if action in _SERVICE_ACTIONS else collection_uid(collection_name or "")
        result = cedarpy.is_authorized(
            _request(principal, action, purpose) | {"resource": resource},
            self._policies.handle,
            self._entities.of_collection(principal, collection_name),
            schema=self._policies.schema,
        )
        ids = tuple(sorted(result.diagnostics.id_annotations_by_reason.values()))
        if result.diagnostics.errors or not result.allowed:
            return self._refusal(ids)
        return Permit(rows=RowFilter(permits=(_TRUE,)), policy_ids=ids, policy_digest=self.digest)

    def _on_records(self, principal: Principal, action: Action, collection_name: str, purpose: str | None) -> Decision:
        import cedarpy

        # The resource stays out of the request: it is what partial evaluation leaves open.
        result = cedarpy.is_authorized_partial(
            _request(principal, action, purpose),
            self._policies.handle,
            self._entities.of_collection(principal, collection_name),
            schema=self._policies.schema,
        )
        if result.diagnostics.errors:
            return self._refusal()
        translator = Translator(collection_name)
        permits: dict[Expression, list[str]] = {}
        forbids: dict[Expression, list[str]] = {}
        for residual in result.residuals.values():
            expression = translator.policy(residual)
            if expression != _FALSE:
                side = permits if residual["effect"] == "permit" else forbids
                side.setdefault(expression, []).append(residual["annotations"]["id"])
        if _TRUE in forbids:
            return self._refusal(tuple(sorted(forbids[_TRUE])))
        if not permits:
            return self._refusal()
        rows = RowFilter(permits=(_TRUE,) if _TRUE in permits else tuple(permits), forbids=tuple(forbids))
        ids = sorted(name for side in (permits, forbids) for names in side.values() for name in names)
        return Permit(rows=rows, policy_ids=tuple(ids), policy_digest=self.digest)

    def _refusal(self, ids: tuple[str, ...] = (), *, code: str = "policy_denied") -> Refusal:
        error = Forbidden("policy does not permit this", code=code)
        return Refusal(error=error, policy_ids=ids, policy_digest=self.digest)

    def _refuse_foreign_schema(self) -> None:
        """Ask once about everything that will be asked later: a schema that cannot say it is no schema for us."""
        import cedarpy

        nobody = Principal(issuer="", subject="", client_id="", scopes=frozenset(), token_sha256="", expires_unix=0)
        try:
            entities = self._entities.of_records(nobody, "c", {0: {}})
            for action in Action:
                about = record_uid(0) if action in RECORD_ACTIONS else collection_uid("c")
                resource = SERVICE_UID if action in _SERVICE_ACTIONS else about
                request = _request(nobody, action, "probe") | {"resource": resource}
                result = cedarpy.is_authorized(request, self._policies.handle, entities, schema=self._policies.schema)
                if result.diagnostics.errors:
                    raise ValueError
        except _CEDAR_FAULTS:
            raise ConfigurationError(
                "the policies are refused: the schema lacks an action or a type of this service",
                code="policies_invalid",
            ) from None


def _request(principal: Principal, action: Action, purpose: str | None) -> dict[str, Any]:
    return {
        "principal": principal_uid(principal),
        "action": f'Action::"{action.value}"',
        "context": {} if purpose is None else {"purpose": purpose},
    }
