"""A small HTTPS server that speaks what Transit's documentation says of the paths we use. It is not Vault, and shows nothing of
Vault itself: tests/integration/test_keys_transit.py runs the same contract against a real one where an address is given.

Shapes: https://developer.hashicorp.com/vault/api-docs/secret/transit, https://openbao.org/api-docs/secret/transit.
"""

import base64
import json
import os
import re
import secrets
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secure_embed.settings import TransitSettings

ROLE, SECRET_ID, JWT = "role-of-the-service", "secret-id-of-the-service", "eyJ.account.of-the-pod"


class Refusal(Exception):
    def __init__(self, status: int, *errors: str) -> None:
        self.status, self.errors = status, errors


class TransitServer:
    """``sealed``, ``delay_s``, ``denied`` and ``answer`` are for tests to set; ``seen`` is what was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = secrets.token_urlsafe(18)
        self.tokens = {self.token}
        self.keys: dict[str, dict[str, Any]] = {}
        self.seen: list[tuple[str, str]] = []
        self.sealed = False
        self.delay_s = 0.0
        self.denied: re.Pattern[str] | None = None
        self.answer: tuple[int, bytes] | None = None
        self._certificate()
        self.port = 0
        self.start()

    def start(self) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def _serve(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                owner.seen.append((self.command, self.path))
                time.sleep(owner.delay_s)
                try:
                    status, body = owner.answered(
                        self.command, self.path, self.headers.get("X-Vault-Token"), json.loads(raw or b"{}")
                    )
                except Refusal as refusal:
                    status, body = refusal.status, json.dumps({"errors": refusal.errors}).encode()
                self.send_response(status)
                if status == 307:
                    self.send_header("Location", f"https://127.0.0.1:{owner.port}/elsewhere")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = do_PUT = _serve  # noqa: N815 - http.server prescribes the names

        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_port
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "certificate.pem", self.folder / "key.pem")
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def settings(self, **more: Any) -> TransitSettings:
        return TransitSettings(address=f"https://127.0.0.1:{self.port}", **more)

    @property
    def ca_file(self) -> Path:
        return self.folder / "certificate.pem"

    def credential(self, folder: Path, content: str | None = None) -> Path:
        path = folder / "vault.credential"
        path.write_text((self.token if content is None else content) + "\n")
        path.chmod(0o600)
        return path

    # --- the API -----------------------------------------------------------------------------------------------------

    def answered(self, method: str, path: str, token: str | None, body: dict[str, Any]) -> tuple[int, bytes]:
        if self.sealed:
            raise Refusal(503, "Vault is sealed")
        if self.answer is not None:
            return self.answer
        if (logged_in := self._login(path, body)) is not None:
            return 200, json.dumps({"auth": {"client_token": logged_in, "lease_duration": 3600}}).encode()
        if token not in self.tokens or (self.denied and self.denied.search(f"{method} {path}")):
            raise Refusal(403, "permission denied")
        data = self._transit(method, path, body)
        return (204, b"") if data is None else (200, json.dumps({"data": data}).encode())

    def _login(self, path: str, body: dict[str, Any]) -> str | None:
        if path == "/v1/auth/approle/login":
            if (body.get("role_id"), body.get("secret_id")) != (ROLE, SECRET_ID):
                raise Refusal(400, "invalid role or secret ID")
        elif path == "/v1/auth/kubernetes/login":
            if (body.get("role"), body.get("jwt")) != (ROLE, JWT):
                raise Refusal(403, "permission denied")
        else:
            return None
        self.tokens.add(made := secrets.token_urlsafe(18))
        return made

    def _transit(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        found = re.fullmatch(r"/v1/transit/(keys|encrypt|decrypt|datakey/plaintext)/([\w-]+)(/config)?", path)
        if found is None:
            raise Refusal(404, "no handler for route")
        what, name, config = found.groups()
        if what == "keys":
            return self._keys(method, name, config is not None, body)
        if name not in self.keys:
            raise Refusal(400, "encryption key not found")
        if not body.get("context"):
            raise Refusal(400, "missing 'context' for key derivation; the key was created using a derived key")
        if what == "decrypt":
            return {"plaintext": self._decrypt(name, body)}
        key = {} if what == "encrypt" else {"plaintext": base64.b64encode(os.urandom(body["bits"] // 8)).decode()}
        return key | {"ciphertext": self._encrypt(name, body | key), "key_version": len(self.keys[name]["roots"])}

    def _keys(self, method: str, name: str, config: bool, body: dict[str, Any]) -> dict[str, Any] | None:
        if method == "GET" and name not in self.keys:
            raise Refusal(404)
        if config:
            self.keys[name]["deletion_allowed"] = body["deletion_allowed"]
        elif method == "DELETE":
            if not self.keys[name]["deletion_allowed"]:
                raise Refusal(500, "deletion is not allowed for this key")
            del self.keys[name]
            return None
        elif method == "POST":
            asked = {m: body.get(m, False) for m in ("derived", "exportable", "allow_plaintext_backup")}
            self.keys.setdefault(
                name, {"name": name, "type": body["type"], "roots": [os.urandom(32)], "deletion_allowed": False} | asked
            )
        return {member: value for member, value in self.keys[name].items() if member != "roots"}

    def _derived(self, name: str, version: int, body: dict[str, Any]) -> AESGCM:
        context = base64.b64decode(body["context"])
        root = self.keys[name]["roots"][version - 1]
        return AESGCM(HKDF(hashes.SHA256(), 32, None, context).derive(root))

    def _encrypt(self, name: str, body: dict[str, Any]) -> str:
        version, nonce = len(self.keys[name]["roots"]), os.urandom(12)
        sealed = nonce + self._derived(name, version, body).encrypt(nonce, base64.b64decode(body["plaintext"]), None)
        return f"vault:v{version}:{base64.b64encode(sealed).decode()}"

    def _decrypt(self, name: str, body: dict[str, Any]) -> str:
        _, version, sealed = body["ciphertext"].split(":")
        if int(version[1:]) > len(self.keys[name]["roots"]):
            raise Refusal(400, "invalid ciphertext: version is too new")
        raw = base64.b64decode(sealed)
        try:
            plain = self._derived(name, int(version[1:]), body).decrypt(raw[:12], raw[12:], None)
        except InvalidTag:
            raise Refusal(400, "cipher: message authentication failed") from None
        return base64.b64encode(plain).decode()

    def rotate(self, name: str) -> None:
        """What an administrator, or auto_rotate_period, may do to a Transit key at any time."""
        self.keys[name]["roots"].append(os.urandom(32))

    def _certificate(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "transit of the tests")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        (self.folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
        (self.folder / "key.pem").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
