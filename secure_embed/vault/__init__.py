"""The use cases: the only place that puts the steps in order.

Each begins with who calls and what policy says, goes on only with a ticket from the log, and ends with an OUTCOME in
the log before its answer leaves. A refusal takes the same way out. The steps themselves live in the rooms below.
"""

from secure_embed.audit import AuditLog
from secure_embed.embed import Encoder
from secure_embed.erasing import Erasing
from secure_embed.errors import AuditUnavailable, SecureEmbedError
from secure_embed.gate import Gate
from secure_embed.holdings import Holdings
from secure_embed.keys import CatalogueKeys, ProviderWatch
from secure_embed.risk import RiskControl
from secure_embed.trail import Call, Trails
from secure_embed.vault.collections import Collections
from secure_embed.vault.entrance import Entrance
from secure_embed.vault.erasures import Erasures
from secure_embed.vault.logbook import Logbook
from secure_embed.vault.queries import Queries
from secure_embed.vault.records import Records

__all__ = ["Call", "Vault"]


class Vault:
    """Thread safe. Everything it needs is handed in; ``deployment.py`` wires it."""

    def __init__(
        self,
        *,
        gate: Gate,
        risk: RiskControl,
        trails: Trails,
        encoder: Encoder,
        holdings: Holdings,
        erasing: Erasing,
        catalogue: CatalogueKeys,
        key_watch: ProviderWatch,
        risk_profile: str,
        rerank_k: int,
        batch_records_max: int,
    ) -> None:
        self._log: AuditLog = trails.log
        self._key_watch = key_watch
        self._way = way = Entrance(gate=gate, trails=trails, holdings=holdings)
        self.collections = Collections(way, encoder=encoder, risk_profile=risk_profile)
        self.records = Records(way, encoder=encoder, batch_records_max=batch_records_max)
        self.queries = Queries(way, encoder=encoder, risk=risk, catalogue=catalogue, rerank_k=rerank_k)
        self.erasures = Erasures(way, erasing)
        self.logbook = Logbook(way, trails.log)

    def refuse(self, call: Call, error: SecureEmbedError) -> None:
        """Log a refusal that the door made (a malformed body, say) and raise it. An unknown caller gets its 401."""
        self._way.refuse(call, error)

    def unready(self) -> str | None:
        """Why not every caller would be served now, or None. It may wait for the key provider, some seconds at most."""
        try:
            self._log.require_available()
        except AuditUnavailable as why:
            return why.code
        return self._key_watch.unready()
