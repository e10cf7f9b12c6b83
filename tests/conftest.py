"""A real deployment in a folder of its own, and callers with real tokens. Nothing here is a mock.

The model is the embedded one (MiniLM); it is loaded once for the whole run. ``house`` is shared and only read;
``empty_house`` is made anew for each test that changes things.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from secure_embed.deployment import Deployment
    from secure_embed.embed import Encoder

ATTRIBUTES = {"department": "string", "sensitivity": "long", "country": "string"}


class House:
    """A deployment, its application in this process, and the development issuer."""

    def __init__(self, root: Path, encoder: "Encoder") -> None:
        from secure_embed.access import DevelopmentIssuer
        from secure_embed.settings import Settings

        self.root = root
        self.settings = Settings.load(root, dev=True)
        self._encoder = encoder
        self._issuer = DevelopmentIssuer(root / "development-issuer")
        self.deployment: Deployment
        self.http: TestClient
        self.open()

    def open(self) -> None:
        from starlette.testclient import TestClient

        from secure_embed.api import create_app
        from secure_embed.deployment import Deployment

        self.deployment = Deployment(self.settings, self._encoder)
        app = create_app(
            self.deployment.vault,
            self.settings.limits,
            resource=self.settings.server.public_url,
            issuers=tuple(i.issuer for i in self.settings.issuers),
        )
        self.http = TestClient(app, raise_server_exceptions=False)

    def close(self) -> None:
        self.deployment.close()

    def reopen(self) -> None:
        self.close()
        self.open()

    def token(
        self,
        subject: str,
        scopes: Sequence[str],
        *,
        purpose: str | None = None,
        audience: str | None = None,
        lifetime_s: int = 600,
        client_id: str = "tests",
        **claims: Any,
    ) -> dict[str, str]:
        """Headers of a caller."""
        if purpose is not None:
            claims["purposes"] = [purpose]
        minted = self._issuer.mint(
            subject=subject,
            client_id=client_id,
            scopes=scopes,
            audience=audience or self.settings.server.public_url,
            lifetime_s=lifetime_s,
            claims=claims,
        )
        return {"Authorization": f"Bearer {minted}"} | ({"Purpose-Of-Use": purpose} if purpose else {})

    # The cast of the default policies.
    def writer(self) -> dict[str, str]:
        return self.token("svc-ingest", ["collections:admin", "records:write"])

    def analyst(self, name: str = "analyst", clearance: int = 3, **more: Any) -> dict[str, str]:
        return self.token(name, ["query"], department="quality", clearance=clearance, purpose="quality", **more)

    def clinician(self, department: str = "cardiology", clearance: int = 2, **more: Any) -> dict[str, str]:
        return self.token(
            f"dr-{department}",
            ["query", "records:read"],
            department=department,
            clearance=clearance,
            purpose="care",
            **more,
        )

    def handler(self, name: str = "handler", clearance: int = 3) -> dict[str, str]:
        return self.token(
            name, ["query", "records:read"], department="complaints", clearance=clearance, purpose="complaint-handling"
        )

    def privacy(self) -> dict[str, str]:
        return self.token("privacy", ["records:erase"], department="privacy", purpose="erasure")

    def legal(self) -> dict[str, str]:
        return self.token("counsel", ["records:erase"], department="legal", purpose="legal-hold")

    def security(self) -> dict[str, str]:
        return self.token("security", ["keys:admin"], department="security", purpose="key-management")

    def rotate(self, kind: str, **more: Any) -> dict[str, Any]:
        """Rotate a key and wait for the end; the rotation as the service shows it then."""
        begun = self.http.post("/v1/keys/rotations", json={"kind": kind, **more}, headers=self.security())
        assert begun.status_code == 202, begun.text
        shown: dict[str, Any] = begun.json()
        while shown["state"] == "running":
            time.sleep(0.02)
            shown = self.http.get(f"/v1/keys/rotations/{shown['id']}", headers=self.security()).json()
        return shown

    def auditor(self) -> dict[str, str]:
        return self.token("auditor", ["audit:read"])

    def create_collection(self, name: str) -> None:
        answer = self.http.post("/v1/collections", json={"name": name, "attributes": ATTRIBUTES}, headers=self.writer())
        assert answer.status_code == 201, answer.text

    def ingest(self, name: str, records: list[dict[str, Any]], **headers: str) -> Any:
        return self.http.post(
            f"/v1/collections/{name}/records", json={"records": records}, headers=self.writer() | headers
        )

    def query(self, name: str, text: str, headers: dict[str, str], **more: Any) -> Any:
        return self.http.post(f"/v1/collections/{name}/query", json={"text": text, **more}, headers=headers)

    def events(self) -> list[dict[str, Any]]:
        """Everything in the log, as the auditor reads it."""
        found: list[dict[str, Any]] = []
        headers = self.auditor()
        while True:
            page = self.http.get(
                "/v1/audit/events", params={"start": len(found), "count": 500}, headers=headers
            ).json()["events"]
            found += page
            if len(page) < 500:
                return found


def as_sent(record: Any) -> dict[str, Any]:
    return {
        "id": record.id,
        "text": record.text,
        "subject": record.subject,
        "attributes": dict(record.attributes),
    }


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> "Encoder":
    from secure_embed.deployment import load_from
    from secure_embed.founding import create
    from secure_embed.settings import Settings

    root = tmp_path_factory.mktemp("encoder") / "deployment"
    create(root, dev=True, model="all-minilm-l6-v2")
    return load_from(Settings.load(root, dev=True))


@pytest.fixture
def empty_house(tmp_path: Path, encoder: "Encoder") -> Iterator[House]:
    from secure_embed.founding import create

    root = tmp_path / "deployment"
    create(root, dev=True, model="all-minilm-l6-v2")
    made = House(root, encoder)
    made.create_collection("clinical-notes")
    made.create_collection("complaints")
    yield made
    made.close()


@pytest.fixture
def open_house(tmp_path: Path, encoder: "Encoder") -> Iterator[House]:
    """Both collections, empty, under the risk profile that limits nothing; backups may go to ``tmp_path / "backups"``."""
    from secure_embed.founding import create

    root = tmp_path / "deployment"
    create(root, dev=True, model="all-minilm-l6-v2")
    settings = root / "secure-embed.toml"
    text = settings.read_text().replace('risk_profile = "standard"', 'risk_profile = "open"')
    settings.write_text(text + f"\n[backup]\nfolders = ['{tmp_path / 'backups'}']\n")
    made = House(root, encoder)
    made.create_collection("clinical-notes")
    made.create_collection("complaints")
    yield made
    made.close()


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, encoder: "Encoder") -> Iterator[House]:
    """Both demo collections, whole. Tests may query it; they must not change its records."""
    from secure_embed.cli.demo import corpus
    from secure_embed.founding import create

    root = tmp_path_factory.mktemp("house") / "deployment"
    create(root, dev=True, model="all-minilm-l6-v2")
    made = House(root, encoder)
    for name in ("clinical-notes", "complaints"):
        made.create_collection(name)
        records = [as_sent(record) for record in corpus.load(name).records]
        for start in range(0, len(records), 200):
            assert made.ingest(name, records[start : start + 200]).status_code == 201
    yield made
    made.close()


@pytest.fixture(params=["compiled", "one by one"])
def each_way_to_open(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With compiled code and without: the answers and the errors have to be the same."""
    from secure_embed import bulk

    if request.param == "one by one":
        monkeypatch.setattr("secure_embed.bulk._calls.native", None)
    elif not bulk.compiled():
        pytest.skip("secure_embed.bulk is not compiled here")
