"""A deployment made for a campaign: real files, real keys, the development issuer, and one policy more.

The policy lets the department ``campaign`` do everything, and the risk profile is ``open``: a budget that runs out
would only stop the load. The passphrase is worth 1 MiB of Argon2id in place of 64, so that a start costs what recovery costs:
the parameters stand in root.json, and the service reads them there. All else is as `secure-embed init --dev` makes it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

from secure_embed.access import DevelopmentIssuer
from secure_embed.api.call import SCOPES
from secure_embed.founding import create
from secure_embed.keys import passphrase
from secure_embed.settings import SETTINGS_FILE

__all__ = ["ATTRIBUTES", "found", "headers"]

ATTRIBUTES = {"sensitivity": "long", "ward": "string"}
token_lifetime_s = 3_600
clearance = 3
argon2id_memory_kib = 1_024

_POLICY = """
@id("campaign")
@owner("campaign")
@rationale("The campaign's caller does everything.")
permit (principal, action, resource)
when { principal has department && principal.department == "campaign" };
"""


def found(root: Path, port: int, *, backups_to: Path | None = None, sweep_s: int = 300) -> None:
    """Make the deployment at ``root``; the service answers on ``port``, health on the next one.

    ``backups_to``: a folder below which backups may be written. ``sweep_s``: how often records past their end go.
    """
    with patch.object(passphrase, "memory_kib", argon2id_memory_kib):
        create(root, dev=True, model="all-minilm-l6-v2", dtype="float32", port=port)
    settings = root / SETTINGS_FILE
    text = settings.read_text().replace('risk_profile = "standard"', 'risk_profile = "open"')
    text += f"\n[upkeep]\nsweep_seconds = {sweep_s}\n"
    if backups_to is not None:
        text += f"\n[backup]\nfolders = ['{backups_to}']\n"
    settings.write_text(text)
    policy = root / "policies" / "campaign.cedar"
    policy.write_text(_POLICY)
    policy.chmod(0o600)
    for path in (settings, policy, policy.parent):  # `create` has seen to the rest
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def headers(root: Path, audience: str) -> Mapping[str, str]:
    """Of a caller with every scope, for an hour."""
    minted = DevelopmentIssuer(root / "development-issuer").mint(
        subject="campaign",
        client_id="campaign",
        scopes=list(SCOPES),
        audience=audience,
        lifetime_s=token_lifetime_s,
        claims={"department": "campaign", "clearance": clearance},
    )
    return {"Authorization": f"Bearer {minted}"}
