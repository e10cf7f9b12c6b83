"""Who is let in, along one trail: token, principal, scope, policy; and the policy once more on what was found.

A refusal is raised, and the trail that it leaves logs it. Nothing is decided here: `access/` decides, this asks in order.
"""

from collections.abc import Mapping, Sequence

from secure_embed.access import Authenticator, Authorizer, require_scope
from secure_embed.errors import Forbidden
from secure_embed.trail import Trail
from secure_embed.types import Action, Attributes, AttributeType, Permit, Principal, Refusal

__all__ = ["Gate"]


class Gate:
    def __init__(self, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer

    def name(self, trail: Trail) -> Principal:
        """token -> principal, whatever it may do."""
        trail.principal = self._authenticator.authenticate(trail.call.authorization)
        return trail.principal

    def identify(self, trail: Trail) -> Principal:
        """token -> principal -> scope of the trail's action."""
        principal = self.name(trail)
        require_scope(principal, trail.action)
        return principal

    def permit(
        self,
        trail: Trail,
        principal: Principal,
        action: Action,
        collection: str | None,
        declared: Mapping[str, AttributeType] | None = None,
    ) -> Permit:
        """Policy's permit with its row filter. ``declared``: attributes of a collection that is to be made."""
        decision = self._authorizer.authorize(principal, action, collection, trail.call.purpose, declared)
        trail.decided(decision)
        if isinstance(decision, Refusal):
            raise decision.error
        return decision

    def permit_texts(self, trail: Trail, principal: Principal, collection: str) -> bool:
        """True, or the refusal: whether the caller may read texts at all. Which ones is decided record by record."""
        require_scope(principal, Action.RECORD_READ)
        self.permit(trail, principal, Action.RECORD_READ, collection)
        return True

    def may(self, trail: Trail, principal: Principal, action: Action, collection: str) -> bool:
        return isinstance(self._authorizer.authorize(principal, action, collection, trail.call.purpose), Permit)

    def reads_all(self, trail: Trail, principal: Principal, collection: str) -> bool:
        """Whether the principal may read the text of every record of the collection."""
        if "records:read" not in principal.scopes:
            return False
        decision = self._authorizer.authorize(principal, Action.RECORD_READ, collection, trail.call.purpose)
        return isinstance(decision, Permit) and decision.rows.unrestricted

    def erases_all_in(self, trail: Trail, principal: Principal, names: Sequence[str], *, named: bool) -> list[str]:
        """Which of the collections the caller may erase in; raises where it may not, or only some rows.

        ``named``: the caller asked for these collections, so each has to be permitted. Otherwise those that policy
        denies are left out; but a permit that reaches only some rows is refused: what it left over would still be
        the subject's.
        """
        allowed = []
        for name in dict.fromkeys(names):
            decision = self._authorizer.authorize(principal, Action.RECORD_ERASE, name, trail.call.purpose)
            trail.decided(decision)
            if isinstance(decision, Permit) and decision.rows.unrestricted:
                allowed.append(name)
            elif named or isinstance(decision, Permit):
                raise Forbidden("policy does not let you erase all of a subject's records there")
        if not allowed:
            raise Forbidden("policy does not let you erase")
        return allowed

    def recheck(
        self, trail: Trail, principal: Principal, action: Action, collection: str, found: Sequence[Attributes]
    ) -> list[bool]:
        """The whole policy on each of the records themselves."""
        return self._authorizer.recheck(principal, action, collection, trail.call.purpose, found)
