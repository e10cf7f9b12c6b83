"""Where a deployment's parts lie, below its folder.

secure-embed.toml      settings
secrets/               the root's passphrase, or what lets us in where the root key lies (elsewhere in production: a credential of the service manager)
keys/                  root.json, keyring.json, keys.db: apart from the data, with a retention of their own
data/                  data.db, segments/, codes/, risk.db
log/                   the audit log
log-verifier.key       public: whoever checks the log should have it from elsewhere than from here
policies/              Cedar schema, policies, risk profiles
tls/                   the listener's certificate and key
development-issuer/    only with --dev
"""

from pathlib import Path

__all__ = ["DATA", "KEYRING", "KEYS", "LOG", "ROOT", "ROOT_NEXT", "ROOT_RETIRED", "VERIFIER_KEY"]

KEYS, DATA, LOG = Path("keys"), Path("data"), Path("log")
ROOT, KEYRING = KEYS / "root.json", KEYS / "keyring.json"
ROOT_NEXT, ROOT_RETIRED = KEYS / "root.next.json", KEYS / "root.retired.json"  # only while a root key is replaced
VERIFIER_KEY = Path("log-verifier.key")
