"""Tokens of a real authorization server that nobody here wrote: oidc-provider (npm), over loopback.

It issues RFC 9068 access tokens for a resource indicator (RFC 8707) by client credentials; we take its keys from the
URL it publishes them at, before and after it is restarted with new ones.
"""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from joserfc.jwk import ECKey

from secure_embed.access import Authenticator, IssuerProfile
from secure_embed.errors import Unauthenticated

VERSION = "9.13.3"
AUDIENCE = "https://embed.example.org"
CLIENT = ("ward-app", "a-secret-of-the-test")

SERVER = """
import { readFileSync } from 'node:fs';
import Provider from 'oidc-provider';
const [port, keys] = process.argv.slice(2);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: JSON.parse(readFileSync(keys)),
  clients: [{
    client_id: 'ward-app', client_secret: 'a-secret-of-the-test',
    grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
    id_token_signed_response_alg: 'ES256',
  }],
  scopes: ['query', 'records:read'],
  extraTokenClaims: () => ({ department: 'cardiology', clearance: 2, purposes: ['care'] }),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: 'query records:read', audience: resource, accessTokenTTL: 600,
        accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
});
provider.listen(Number(port), '127.0.0.1');
"""


@pytest.fixture(scope="module")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("node and npm are not on this machine")
    folder = tmp_path_factory.mktemp("oidc-provider")
    (folder / "server.mjs").write_text(SERVER)
    (folder / "package.json").write_text('{"private": true}')
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", f"oidc-provider@{VERSION}"]
    try:
        installed = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install oidc-provider within a minute")
    if installed.returncode:
        pytest.skip("npm could not install oidc-provider; is there a registry?")
    return folder


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(folder: Path, port: int, kid: str) -> Iterator[None]:
    """The server with one fresh signing key named ``kid``; when the block begins it answers."""
    keys = folder / f"{kid}.json"
    private = ECKey.generate_key("P-256").as_dict(private=True)
    keys.write_text(json.dumps({"keys": [{**private, "kid": kid, "use": "sig", "alg": "ES256"}]}))
    process = subprocess.Popen(
        ["node", "server.mjs", str(port), str(keys)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            try:
                httpx.get(f"http://127.0.0.1:{port}/jwks", timeout=2, trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.05)
        else:
            pytest.fail("oidc-provider did not start")
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


def token_of(port: int, resource: str = AUDIENCE) -> str:
    form = {"grant_type": "client_credentials", "scope": "query records:read", "resource": resource}
    answer = httpx.post(f"http://127.0.0.1:{port}/token", data=form, auth=CLIENT, timeout=10, trust_env=False)
    answer.raise_for_status()
    return str(answer.json()["access_token"])


def test_tokens_of_a_real_issuer_are_accepted_and_its_rotation_survived(server_folder: Path, port: int) -> None:
    now = [1_000.0]
    profile = IssuerProfile(
        issuer=f"http://127.0.0.1:{port}",
        audience=AUDIENCE,
        jwks=f"http://127.0.0.1:{port}/jwks",
        algorithms=("ES256",),
        development=True,  # for plain http on loopback
    )
    authenticator = Authenticator([profile], monotonic=lambda: now[0], development_allowed=True)

    with running(server_folder, port, "first"):
        old = token_of(port)
        principal = authenticator.authenticate([f"Bearer {old}"])
        assert principal.client_id == "ward-app"
        assert principal.scopes == {"query", "records:read"}
        assert principal.attributes == {"department": "cardiology", "clearance": 2}
        assert principal.purposes == {"care"}

        with pytest.raises(Unauthenticated) as refused:
            authenticator.authenticate([f"Bearer {token_of(port, 'https://other.example.org')}"])
        assert refused.value.code == "token_audience"

    assert authenticator.authenticate([f"Bearer {old}"]) == principal  # the issuer is down; its keys are still known

    with running(server_folder, port, "second"):
        now[0] += 5
        assert authenticator.authenticate([f"Bearer {token_of(port)}"]).client_id == "ward-app"
        with pytest.raises(Unauthenticated) as refused:
            authenticator.authenticate([f"Bearer {old}"])
        assert refused.value.code == "token_invalid"
