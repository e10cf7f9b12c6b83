"""The use cases: the only place that puts the steps in order.

Each begins with who calls and what policy says, goes on only with a ticket from the log, and ends with an OUTCOME in
the log before its answer leaves. A refusal takes the same way out. The steps themselves live in the rooms below.
"""

from secure_embed.core import Core
from secure_embed.embed import Encoder
from secure_embed.errors import AuditUnavailable, SecureEmbedError
from secure_embed.gate import Gate
from secure_embed.index import Effort
from secure_embed.keys import ProviderWatch
from secure_embed.trail import Call
from secure_embed.vault.collections import Collections
from secure_embed.vault.custody import Custody
from secure_embed.vault.entrance import Entrance
from secure_embed.vault.erasures import Erasures
from secure_embed.vault.holds import LegalHolds
from secure_embed.vault.logbook import Logbook
from secure_embed.vault.queries import Queries
from secure_embed.vault.records import Records
from secure_embed.vault.tunings import CollectionTunings

__all__ = ["Call", "Vault"]


class Vault:
    """Thread safe. Everything it needs is handed in; ``deployment.py`` wires it."""

    def __init__(
        self, core: Core, *, gate: Gate, encoder: Encoder, risk_profile: str, effort: Effort, batch_records_max: int
    ) -> None:
        self._log = core.log
        self._key_watch = ProviderWatch(core.check_provider)
        self._way = way = Entrance(gate=gate, trails=core.trails, holdings=core.holdings)
        self.collections = Collections(way, encoder=encoder, risk_profile=risk_profile, untuned=effort)
        self.records = Records(way, encoder=encoder, batch_records_max=batch_records_max)
        self.queries = Queries(way, encoder=encoder, risk=core.risk, catalogue=core.catalogue, untuned=effort)
        self.erasures = Erasures(way, core.erasing)
        self.holds = LegalHolds(way, core.holds)
        self.custody = Custody(way, core)
        self.tunings = CollectionTunings(way, core.tunings, encoder=encoder)
        self.logbook = Logbook(way, core.log)

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
