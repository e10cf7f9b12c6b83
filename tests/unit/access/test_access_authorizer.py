"""Decisions are values; what is in doubt is refused; the row filter and the full decision guard a record together."""

from pathlib import Path

import pytest

from secure_embed.access import Authorizer
from secure_embed.types import (
    Action,
    And,
    Attributes,
    AttributeValue,
    Compare,
    Equals,
    Expression,
    Has,
    Not,
    OneOf,
    Or,
    Permit,
    Principal,
    Refusal,
    RowFilter,
    TruthValue,
)

POLICIES = Path(__file__).parents[3] / "policies"
NOTES = "clinical-notes"


@pytest.fixture(scope="module")
def shipped() -> Authorizer:
    return Authorizer(POLICIES)


def someone(
    *scopes: str, purposes: tuple[str, ...] = (), subject: str = "s", **attributes: AttributeValue
) -> Principal:
    return Principal(
        issuer="https://login.example.org",
        subject=subject,
        client_id="c",
        scopes=frozenset(scopes),
        token_sha256="0" * 64,
        expires_unix=0,
        attributes=attributes,
        purposes=frozenset(purposes),
    )


CLINICIAN = someone("query", purposes=("care",), department="cardiology", clearance=2)


def authorizer_of(folder: Path, *policies: str) -> Authorizer:
    """The shipped schema with policies of the test's own."""
    (folder / "schema.cedarschema").write_bytes((POLICIES / "schema.cedarschema").read_bytes())
    notes = [f'@id("p{n}") @owner("o") @rationale("r") {policy}' for n, policy in enumerate(policies)]
    (folder / "test.cedar").write_text("\n".join(notes))
    return Authorizer(folder)


def rows(folder: Path, *policies: str, principal: Principal = CLINICIAN) -> RowFilter:
    decision = authorizer_of(folder, *policies).authorize(principal, Action.QUERY, NOTES, "care")
    assert isinstance(decision, Permit)
    return decision.rows


def test_a_permit_carries_its_filter_its_policies_and_the_digest(shipped: Authorizer) -> None:
    decision = shipped.authorize(CLINICIAN, Action.QUERY, NOTES, "care")
    assert isinstance(decision, Permit)
    assert not decision.rows.unrestricted
    assert And(Has("department"), Equals("department", "cardiology")) in decision.rows.permits
    assert decision.policy_ids == (
        "clinician-low-sensitivity",
        "clinician-own-department",
        "sensitivity-above-clearance",
        "unlabelled-record",
    )
    assert decision.policy_digest == shipped.digest


def test_a_refusal_names_the_prohibition_that_decided(shipped: Authorizer) -> None:
    decision = shipped.authorize(CLINICIAN, Action.QUERY, NOTES, "research")
    assert isinstance(decision, Refusal)
    assert (decision.error.code, decision.error.status) == ("policy_denied", 403)
    assert decision.policy_ids == ("purpose-not-in-token",)
    assert decision.policy_digest == shipped.digest


@pytest.mark.parametrize("action", Action)
def test_a_principal_without_anything_may_nothing(shipped: Authorizer, action: Action) -> None:
    for collection in (NOTES, "complaints", "other", None):
        assert isinstance(shipped.authorize(someone(), action, collection, None), Refusal)


@pytest.mark.parametrize("collection", ["", "Clinical-Notes", 'x"', 'x" || true', "clinical-notes\n", "x" * 64, None])
def test_a_collection_that_cannot_be_is_refused(shipped: Authorizer, collection: str | None) -> None:
    assert isinstance(shipped.authorize(CLINICIAN, Action.QUERY, collection, "care"), Refusal)


@pytest.mark.parametrize("purpose", [None, "", "Care", "care ", "care\n", "c\ud800", "x" * 64, '"}', "quality"])
def test_a_purpose_that_the_token_does_not_carry_is_refused(shipped: Authorizer, purpose: str | None) -> None:
    assert isinstance(shipped.authorize(CLINICIAN, Action.QUERY, NOTES, purpose), Refusal)
    assert shipped.recheck(CLINICIAN, Action.QUERY, NOTES, purpose, [{"sensitivity": 0}]) == [False]


def test_any_subject_can_be_asked_about(shipped: Authorizer) -> None:
    for subject in ('"', "\\", "a\nb", "ü😀", "::", "x" * 500, 'Principal::"x"'):
        asked = someone("query", purposes=("care",), subject=subject, department="cardiology", clearance=2)
        assert isinstance(shipped.authorize(asked, Action.QUERY, NOTES, "care"), Permit)


def test_claims_cannot_pose_as_what_the_token_says_itself(tmp_path: Path) -> None:
    policy = 'permit(principal, action, resource) when { principal.scopes.contains("query") };'
    posing = someone(client="ingest", issuer="x", scopes="query")
    assert isinstance(authorizer_of(tmp_path, policy).authorize(posing, Action.QUERY, NOTES, None), Refusal)


def test_attributes_that_no_policy_can_name_are_left_out(shipped: Authorizer) -> None:
    asked = someone("query", purposes=("care",), department="cardiology", clearance=2, badge="gold")
    assert isinstance(shipped.authorize(asked, Action.QUERY, NOTES, "care"), Permit)
    assert shipped.recheck(asked, Action.QUERY, NOTES, "care", [{"sensitivity": 0, "ward": "7"}]) == [True]


def test_a_declaration_that_contradicts_the_policies_schema_is_refused(shipped: Authorizer) -> None:
    admin = someone("collections:admin")
    fitting = {"sensitivity": "long", "ward": "string"}
    assert isinstance(shipped.authorize(admin, Action.COLLECTION_CREATE, "new", None, fitting), Permit)  # type: ignore[arg-type]
    decision = shipped.authorize(admin, Action.COLLECTION_CREATE, "new", None, {"sensitivity": "string"})
    assert isinstance(decision, Refusal)
    assert decision.error.code == "attributes_contradict_policy"


# --- recheck ------------------------------------------------------------------------------------------------------


def test_recheck_decides_each_record_in_its_place(shipped: Authorizer) -> None:
    records: list[Attributes] = [
        {"department": "cardiology", "sensitivity": 2},
        {"department": "cardiology", "sensitivity": 3},
        {"department": "oncology", "sensitivity": 2},
        {"department": "oncology", "sensitivity": 1},
        {"department": "cardiology"},
        {},
        {"department": "cardiology", "sensitivity": 1, "country": "de"},
    ]
    assert shipped.recheck(CLINICIAN, Action.QUERY, NOTES, "care", records) == [
        True, False, False, True, False, False, True,
    ]  # fmt: skip


def test_recheck_of_nothing_is_nothing(shipped: Authorizer) -> None:
    assert shipped.recheck(CLINICIAN, Action.QUERY, NOTES, "care", []) == []


@pytest.mark.parametrize(
    "bad", [{"sensitivity": "0"}, {"sensitivity": True}, {"department": 1}, {"sensitivity": 0, "country": 49}], ids=str
)
def test_a_record_of_the_wrong_shape_fails_alone(shipped: Authorizer, bad: Attributes) -> None:
    good: Attributes = {"sensitivity": 0}
    assert shipped.recheck(CLINICIAN, Action.QUERY, NOTES, "care", [good, bad, good]) == [True, False, True]


def test_recheck_refuses_what_is_not_about_records(shipped: Authorizer) -> None:
    lister = someone("collections:read")
    assert shipped.recheck(lister, Action.COLLECTION_LIST, NOTES, None, [{}]) == [False]
    assert shipped.recheck(CLINICIAN, Action.QUERY, 'x"', "care", [{"sensitivity": 0}]) == [False]


def test_an_error_while_deciding_is_a_refusal_even_beside_a_permit(tmp_path: Path) -> None:
    """Cedar skips a policy that errors; a skipped forbid would fail open."""
    overflowing = "principal has clearance && principal.clearance + 9223372036854775807 > 0"
    authorizer = authorizer_of(
        tmp_path,
        "permit(principal, action, resource);",
        f"forbid(principal, action, resource) when {{ {overflowing} }};",
    )
    for action, collection in ((Action.QUERY, NOTES), (Action.COLLECTION_READ, NOTES), (Action.AUDIT_READ, None)):
        assert isinstance(authorizer.authorize(CLINICIAN, action, collection, None), Refusal)
        assert isinstance(authorizer.authorize(someone(), action, collection, None), Permit)
    assert authorizer.recheck(CLINICIAN, Action.QUERY, NOTES, None, [{}]) == [False]
    assert authorizer.recheck(someone(), Action.QUERY, NOTES, None, [{}]) == [True]


def test_an_error_that_waits_for_the_record_is_a_refusal(tmp_path: Path) -> None:
    authorizer = authorizer_of(
        tmp_path,
        "permit(principal, action, resource);",
        "forbid(principal, action, resource) when { resource has country && principal has clearance && "
        "principal.clearance + 9223372036854775807 > 0 };",
    )
    assert isinstance(authorizer.authorize(CLINICIAN, Action.QUERY, NOTES, None), Refusal)
    assert authorizer.recheck(CLINICIAN, Action.QUERY, NOTES, None, [{}, {"country": "de"}]) == [True, False]


# --- translation --------------------------------------------------------------------------------------------------

QUERY = 'permit(principal, action == Action::"query", resource)'
SENSITIVITY = "resource has sensitivity &&"
COUNTRY = "resource has country &&"
HAS_S, HAS_C = Has("sensitivity"), Has("country")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (f"{SENSITIVITY} resource.sensitivity < 3", And(HAS_S, Compare("sensitivity", "<", 3))),
        (f"{SENSITIVITY} 3 < resource.sensitivity", And(HAS_S, Compare("sensitivity", ">", 3))),
        (f"{SENSITIVITY} resource.sensitivity >= 1", And(HAS_S, Not(Compare("sensitivity", "<", 1)))),
        (f"{SENSITIVITY} 3 >= resource.sensitivity", And(HAS_S, Not(Compare("sensitivity", ">", 3)))),
        (f"{SENSITIVITY} resource.sensitivity <= principal.clearance", And(HAS_S, Compare("sensitivity", "<=", 2))),
        (f'{COUNTRY} resource.country == "de"', And(HAS_C, Equals("country", "de"))),
        (f'{COUNTRY} "de" != resource.country', And(HAS_C, Not(Equals("country", "de")))),
        (f'{COUNTRY} ["de", "at"].contains(resource.country)', And(HAS_C, OneOf("country", ("at", "de")))),
        (f"{COUNTRY} principal.purposes.contains(resource.country)", And(HAS_C, OneOf("country", ("care",)))),
        ("!(resource has country)", Not(HAS_C)),
        ("resource has country || resource has sensitivity", Or(HAS_C, HAS_S)),
        ('resource in Collection::"clinical-notes"', TruthValue(True)),
        ('resource in [Collection::"other", Collection::"clinical-notes"]', TruthValue(True)),
        ('!(resource in Collection::"other") && resource has country', HAS_C),
        ('resource in Collection::"other" || resource has country', HAS_C),
        ('context has purpose && context.purpose == "care"', TruthValue(True)),
    ],
    ids=str,
)
def test_each_operator_becomes_its_filter(tmp_path: Path, condition: str, expected: Expression) -> None:
    guarded = f"principal has clearance && {condition}" if "clearance" in condition else condition
    assert rows(tmp_path, f"{QUERY} when {{ {guarded} }};").permits == (expected,)


def test_unless_and_several_conditions_are_joined(tmp_path: Path) -> None:
    filtered = rows(tmp_path, f"{QUERY} when {{ resource has country }} unless {{ resource has sensitivity }};")
    assert filtered.permits == (And(HAS_C, Not(HAS_S)),)


def test_an_unconditional_permit_makes_the_others_needless(tmp_path: Path) -> None:
    filtered = rows(tmp_path, f"{QUERY};", f"{QUERY} when {{ resource has country }};")
    assert filtered.unrestricted


def test_a_forbid_stays_beside_an_unconditional_permit(tmp_path: Path) -> None:
    filtered = rows(tmp_path, f"{QUERY};", "forbid(principal, action, resource) when { resource has country };")
    assert filtered == RowFilter(permits=(TruthValue(True),), forbids=(HAS_C,))


def test_a_policy_about_another_collection_is_no_permit_here(tmp_path: Path) -> None:
    scoped = 'permit(principal, action == Action::"query", resource in Collection::"other");'
    authorizer = authorizer_of(tmp_path, scoped)
    assert isinstance(authorizer.authorize(CLINICIAN, Action.QUERY, NOTES, None), Refusal)
    assert isinstance(authorizer.authorize(CLINICIAN, Action.QUERY, "other", None), Permit)
