"""Policies are refused whole on any finding; the shipped ones decide as their golden files say."""

import json
from pathlib import Path
from typing import Any

import pytest

from secure_embed.access import Authorizer
from secure_embed.errors import ConfigurationError
from secure_embed.types import Action, Permit, Principal

POLICIES = Path(__file__).parents[3] / "policies"
NOTED = '@id("p") @owner("o") @rationale("r") '
QUERY = NOTED + 'permit(principal, action == Action::"query", resource)'


def copied(folder: Path) -> Path:
    for path in (POLICIES / "schema.cedarschema", *POLICIES.glob("*.cedar")):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def refuse(folder: Path) -> str:
    with pytest.raises(ConfigurationError) as refused:
        Authorizer(folder)
    assert refused.value.code == "policies_invalid"
    return refused.value.detail


@pytest.mark.parametrize(
    "policy",
    [
        "permit(",
        "",
        "\xff",
        QUERY + ' when { resource.departement == "x" };',
        QUERY + ' when { resource.department == "x" };',
        QUERY + " when { resource has department && resource.department == 3 };",
        NOTED + 'permit(principal, action == Action::"qurey", resource);',
        NOTED + 'permit(principal, action, resource == Colection::"x");',
        NOTED + 'permit(principal == ?principal, action == Action::"query", resource);',
        'permit(principal, action == Action::"query", resource);',
        '@id("p") permit(principal, action == Action::"query", resource);',
        '@id("p") @owner("o") @rationale("") permit(principal, action == Action::"query", resource);',
        '@id("P 1") @owner("o") @rationale("r") permit(principal, action == Action::"query", resource);',
        QUERY + "; " + QUERY + ";",
        QUERY + ' when { resource has country && resource.country like "d*" };',
        QUERY + " when { resource has country && resource has department && resource.country == resource.department };",
        QUERY + " when { resource has sensitivity && resource.sensitivity + 1 < 3 };",
        QUERY + " when { if resource has country then true else false };",
        QUERY + " when { resource is Record };",
        QUERY + ' when { resource == Record::"1" };',
        NOTED + 'permit(principal, action, resource == Record::"1");',
        NOTED + "permit(principal, action, resource is Record);",
        QUERY + " when { [resource has country].contains(true) };",
    ],
    ids=lambda policy: policy.removeprefix(NOTED)[-70:],
)
def test_a_policy_with_a_finding_stops_the_start(tmp_path: Path, policy: str) -> None:
    (tmp_path / "schema.cedarschema").write_bytes((POLICIES / "schema.cedarschema").read_bytes())
    (tmp_path / "p.cedar").write_bytes(policy.encode("latin-1"))
    refuse(tmp_path)


def test_one_bad_policy_among_good_ones_is_named(tmp_path: Path) -> None:
    (copied(tmp_path) / "extra.cedar").write_text(
        '@id("loose-end") @owner("o") permit(principal, action == Action::"query", resource);'
    )
    assert "loose-end" in refuse(tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("clearance?: Long", "clearance?: String"),
        ('"audit.read",', '"audit.write",'),
        ("client: String,", ""),
        ("entity Service;", "entity Servant;"),
        ("sensitivity?: Long,", "sensitivity: Long,"),
        ("purpose?: String", "purpose: Long"),
    ],
)
def test_a_schema_that_does_not_fit_the_service_stops_the_start(tmp_path: Path, before: str, after: str) -> None:
    schema = (POLICIES / "schema.cedarschema").read_text()
    assert before in schema
    (tmp_path / "schema.cedarschema").write_text(schema.replace(before, after))
    (tmp_path / "p.cedar").write_text(
        QUERY + " when { principal has clearance && principal.clearance > 1 };"
        if "clearance" in before
        else QUERY + ";"
    )
    refuse(tmp_path)


@pytest.mark.parametrize("missing", ["schema.cedarschema", "*.cedar"])
def test_a_folder_that_lacks_a_part_stops_the_start(tmp_path: Path, missing: str) -> None:
    for path in copied(tmp_path).glob(missing):
        path.unlink()
    refuse(tmp_path)


def test_too_much_policy_is_not_read(tmp_path: Path) -> None:
    (copied(tmp_path) / "big.cedar").write_text("//" + "x" * 1024 * 1024)
    assert "1 MiB" in refuse(tmp_path)


def test_the_digest_covers_every_byte_and_name_of_the_set(tmp_path: Path) -> None:
    digest = Authorizer(copied(tmp_path)).digest
    assert digest == Authorizer(POLICIES).digest
    (tmp_path / "README.md").write_text("no policy")
    assert Authorizer(tmp_path).digest == digest
    path = tmp_path / "complaints.cedar"
    path.write_bytes(path.read_bytes() + b"\n")
    changed = Authorizer(tmp_path).digest
    path.rename(tmp_path / "gripes.cedar")
    assert len({digest, changed, Authorizer(tmp_path).digest}) == 3


# --- golden decisions ---------------------------------------------------------------------------------------------


def goldens() -> list[Any]:
    files = sorted((POLICIES / "tests").glob("*.json"))
    return [
        pytest.param(case, id=f"{path.stem}: {case['name']}") for path in files for case in json.loads(path.read_text())
    ]


@pytest.fixture(scope="module")
def shipped() -> Authorizer:
    return Authorizer(POLICIES)


@pytest.mark.parametrize("case", goldens())
def test_golden_decision(shipped: Authorizer, case: dict[str, Any]) -> None:
    said = case["principal"]
    principal = Principal(
        issuer="https://login.example.org",
        subject="golden",
        client_id=said.get("client", "app"),
        scopes=frozenset(said.get("scopes", [])),
        token_sha256="0" * 64,
        expires_unix=0,
        attributes=said.get("attributes", {}),
        purposes=frozenset(said.get("purposes", [])),
    )
    named: set[str] = set()
    for name in case["actions"]:
        for collection in case["collections"]:
            decision = shipped.authorize(principal, Action(name), collection, case.get("purpose"))
            assert isinstance(decision, Permit) == (case["decision"] == "permit"), (name, collection)
            named |= set(decision.policy_ids)
            records = case.get("records", [])
            decided = shipped.recheck(
                principal, Action(name), collection or "none", case.get("purpose"), [r["attributes"] for r in records]
            )
            assert decided == [r["allowed"] for r in records], (name, collection)
    assert sorted(named) == case["policies"]


def test_every_shipped_policy_decides_a_golden_case(shipped: Authorizer) -> None:
    """A policy that no golden case reaches is a policy that nobody has tried."""
    reached: set[str] = set()
    for case in (parameter.values[0] for parameter in goldens()):
        reached |= set(case["policies"])
    text = "".join(path.read_text() for path in POLICIES.glob("*.cedar"))
    written = {line.split('"')[1] for line in text.splitlines() if line.startswith("@id(")}
    assert reached == written
