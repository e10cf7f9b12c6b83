"""What an answer may reveal and how often: profiles, score release, durable budgets.

Pure rules: rules.py, release.py, verdicts.py, query_text.py. IO: profile.py reads files, ledger.py writes counters.
No text, vector or identifier is stored here. Limits and figures: docs/inversion-risk.md.
"""

from secure_embed.risk.control import Answer, RiskControl
from secure_embed.risk.ledger import SqlcipherLedger
from secure_embed.risk.profile import DistinctLimits, ExposureLimits, Profile, load_profiles, parse_profile
from secure_embed.risk.protocol import Admission, Allowance, Charged, Ledger, LedgerKey, Showing, Verdict
from secure_embed.risk.query_text import normalise_query, query_identity
from secure_embed.risk.release import Released, release, shows_scores
from secure_embed.risk.rules import allowance, check_query

__all__ = [
    "Admission",
    "Allowance",
    "Answer",
    "Charged",
    "DistinctLimits",
    "ExposureLimits",
    "Ledger",
    "LedgerKey",
    "Profile",
    "Released",
    "RiskControl",
    "Showing",
    "SqlcipherLedger",
    "Verdict",
    "allowance",
    "check_query",
    "load_profiles",
    "normalise_query",
    "parse_profile",
    "query_identity",
    "release",
    "shows_scores",
]
