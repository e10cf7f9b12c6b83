"""Scopes open doors, one for each action, and none opens another's."""

import pytest

from secure_embed.access import SCOPES, require_scope, required_scope
from secure_embed.errors import Forbidden
from secure_embed.types import Action, Principal


def bearer(*scopes: str) -> Principal:
    return Principal(
        issuer="i", subject="s", client_id="c", scopes=frozenset(scopes), token_sha256="0" * 64, expires_unix=0
    )


@pytest.mark.parametrize("action", Action)
def test_each_action_needs_exactly_its_own_scope(action: Action) -> None:
    needed = required_scope(action)
    assert needed in SCOPES
    require_scope(bearer(needed), action)
    with pytest.raises(Forbidden) as refused:
        require_scope(bearer(*(SCOPES - {needed})), action)
    assert refused.value.code == "insufficient_scope"
    assert refused.value.status == 403
    assert refused.value.challenge == {"error": "insufficient_scope", "scope": needed}


def test_the_scopes_are_the_documented_ten() -> None:
    assert len(SCOPES) == 10
    assert required_scope(Action.VECTORS_EXPORT) == "vectors:export"


@pytest.mark.parametrize("near", ["QUERY", "query ", "quer", "query:all", "*", ""])
def test_a_scope_that_only_looks_like_it_opens_nothing(near: str) -> None:
    with pytest.raises(Forbidden):
        require_scope(bearer(near), Action.QUERY)
