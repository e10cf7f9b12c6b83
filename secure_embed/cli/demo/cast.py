"""Who takes part in the demo, and with which tokens. The development issuer stands in for the hospital's own."""

from collections.abc import Sequence
from pathlib import Path

from secure_embed.access import DevelopmentIssuer
from secure_embed.cli.client import Client

__all__ = ["Cast"]


class Cast:
    """Makes clients that hold a token of the right kind, or of a wrong one."""

    def __init__(self, root: Path, url: str) -> None:
        self._issuer = DevelopmentIssuer(root / "development-issuer")
        self._ca = root / "tls" / "certificate.pem"
        self._url = url

    def client(
        self,
        subject: str,
        scopes: Sequence[str],
        *,
        department: str | None = None,
        clearance: int | None = None,
        purpose: str | None = None,
        audience: str | None = None,
        lifetime_s: int = 900,
    ) -> Client:
        claims: dict[str, str | int | list[str]] = {}
        if department is not None:
            claims["department"] = department
        if clearance is not None:
            claims["clearance"] = clearance
        if purpose is not None:
            claims["purposes"] = [purpose]
        token = self._issuer.mint(
            subject=subject,
            client_id="demo",
            scopes=scopes,
            audience=audience or self._url,
            lifetime_s=lifetime_s,
            claims=claims,
        )
        return Client(self._url, token=token, ca=self._ca, purpose=purpose)

    def nobody(self) -> Client:
        return Client(self._url, token=None, ca=self._ca)

    def ingest_service(self) -> Client:
        return self.client("svc-ingest", ["collections:admin", "records:write"])

    def analyst(self, number: int) -> Client:
        return self.client(f"analyst-{number}", ["query"], department="quality", clearance=3, purpose="quality")

    def clinician(self, department: str, clearance: int, *scopes: str) -> Client:
        return self.client(
            f"dr-{department}",
            ["query", "records:read", *scopes],
            department=department,
            clearance=clearance,
            purpose="care",
        )

    def complaint_handler(self) -> Client:
        return self.client(
            "handler-1", ["query", "records:read"], department="complaints", clearance=3, purpose="complaint-handling"
        )

    def privacy_officer(self) -> Client:
        return self.client("privacy-officer", ["records:erase"], department="privacy", purpose="erasure")
