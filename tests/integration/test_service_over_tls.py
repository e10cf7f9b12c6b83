"""The real service as a process, over TLS: started, spoken to, killed, started again, stopped."""

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
from urllib.parse import quote

import pytest

from secure_embed.cli.demo.cast import Cast
from secure_embed.cli.demo.service import Service, free_port
from secure_embed.errors import Unavailable

IDENTIFIERS = [
    *(
        "ä",
        "日本語",
        "a/b/c",
        "../../etc/passwd",
        "%2e%2e",
        "%2F",
        "a b",
        "x" * 512,
        "\u202etxt",
        "🏥",
        "a\u0000b",
        "'; --",
    ),
    *(
        "?q=1#f",
        "\u00e9",
        "e\u0301",
        " ",
        "...",
        "a//b",
        "a;b",
        "a+b",
        "line",
        "line\n",
        "line\n\n",
        "\n",
        "\ufeff",
        "\U0010ffff",
    ),
]

pytestmark = [pytest.mark.model, pytest.mark.service]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    from secure_embed.founding import create

    root = tmp_path_factory.mktemp("service") / "deployment"
    port = free_port()
    create(root, dev=True, model="all-minilm-l6-v2", port=port)
    service = Service(root, port)
    service.start()
    writer = Cast(root, f"https://localhost:{port}").ingest_service()
    writer.call("POST", "/v1/collections", {"name": "complaints", "attributes": {"sensitivity": "long"}}).value()
    writer.close()
    yield root, port, service
    service.stop()


def records(start, count):
    return [
        {"id": f"r-{n}", "text": f"complaint number {n} about a card", "attributes": {"sensitivity": 0}}
        for n in range(start, start + count)
    ]


def test_the_main_job_and_a_kill_in_the_middle_of_an_ingest(running):
    """Every acknowledged batch is there after SIGKILL; what was not acknowledged is whole or absent; the log verifies."""
    root, port, service = running
    cast = Cast(root, f"https://localhost:{port}")
    writer = cast.ingest_service()
    acknowledged, sent = [], []

    def ingest():
        for batch in range(200):
            sent.append(batch)
            try:
                path = "/v1/collections/complaints/records"
                writer.call(
                    "POST", path, {"records": records(batch * 10, 10)}, {"Idempotency-Key": f"b{batch}"}
                ).value()
            except Unavailable:
                return
            acknowledged.append(batch)

    thread = threading.Thread(target=ingest)
    thread.start()
    while len(acknowledged) < 4:
        assert thread.is_alive()
    service.kill()
    thread.join()
    service.start()
    reader = cast.complaint_handler()

    def there(batch):
        return sum(
            reader.call("GET", f"/v1/collections/complaints/records/{r['id']}").status == 200
            for r in records(batch * 10, 10)
        )

    assert [there(batch) for batch in acknowledged] == [10] * len(acknowledged)
    assert all(there(batch) in {0, 10} for batch in sent[len(acknowledged) :])
    last = sent[-1]  # the client never heard of it and sends it again
    retried = cast.ingest_service().call(
        "POST",
        "/v1/collections/complaints/records",
        {"records": records(last * 10, 10)},
        {"Idempotency-Key": f"b{last}"},
    )
    assert retried.status == 201
    assert there(last) == 10


def test_ids_of_any_unicode_come_back_as_they_were(running):
    """An id is the caller's own; it is never interpreted, normalised or cut, in a body or in a path."""
    root, port, _ = running
    cast = Cast(root, f"https://localhost:{port}")
    sent = [
        {"id": i, "text": f"one of a kind {n}", "attributes": {"sensitivity": 0}} for n, i in enumerate(IDENTIFIERS)
    ]
    answer = cast.ingest_service().call("POST", "/v1/collections/complaints/records", {"records": sent})
    assert answer.status == 201, answer.body
    reader = cast.complaint_handler()
    for record in sent:
        found = reader.call("GET", f"/v1/collections/complaints/records/{quote(record['id'], safe='')}").value()
        assert (found["id"], found["text"]) == (record["id"], record["text"])


def test_a_second_service_on_the_same_deployment_is_refused(running):
    root, _, _ = running
    command = [sys.executable, "-m", "secure_embed.cli", "serve", "--root", str(root), "--dev"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert second.returncode == 78
    assert "in_use" in second.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the old versions are the point
def test_old_tls_and_plain_http_are_refused(running):
    _, port, _ = running
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", port)) as connection, pytest.raises(ssl.SSLError):
        context.wrap_socket(connection)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(10)
        connection.sendall(b"GET /v1/collections HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert b"200" not in connection.recv(64)


def test_without_dev_the_development_issuer_is_refused(running):
    root, _, _ = running
    command = [sys.executable, "-m", "secure_embed.cli", "serve", "--root", str(root)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 78
    assert "insecure_setting" in refused.stderr


def test_health_is_on_a_listener_of_its_own(running):
    import httpx

    root, port, _ = running
    said = httpx.get(f"http://127.0.0.1:{port + 1}/readyz", trust_env=False).json()
    assert said["status"] == "ready"
    assert {"warming", "building", "memory"} < said.keys()
    assert said["memory"]["budget_mib"] > 0
    context = ssl.create_default_context(cafile=str(root / "tls" / "certificate.pem"))
    answer = httpx.get(f"https://localhost:{port}/readyz", verify=context, trust_env=False)
    assert answer.status_code == 404


def test_commands_speak_to_the_service(running, tmp_path):
    """`collection`, `ingest`, `query`, `erase`, `keys rotate` and `backup` as a person uses them."""
    root, _, _ = running
    officer = {"scopes": ["keys:admin"], "department": "security", "purpose": "key-management"}

    def run(*arguments, scopes=(), status=0, folder="--root", **claims):
        token = tmp_path / "token"
        minted = ["token", "--root", str(root), "--subject", "someone"]
        for scope in scopes:
            minted += ["--scope", scope]
        for name, value in claims.items():
            minted += [f"--{name}", str(value)]
        token.write_text(command(*minted).stdout)
        more = [folder, str(root), "--token-file", str(token)]
        if "purpose" in claims:
            more += ["--purpose", claims["purpose"]]
        return command(*arguments, *more, status=status)

    def command(*arguments, status=0):
        ran = subprocess.run(
            [sys.executable, "-m", "secure_embed.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == status, ran.stderr
        return ran

    made = run(
        "collection", "create", "clinical-notes", "--attribute", "department:string", "--attribute", "sensitivity:long",
        scopes=["collections:admin", "records:write"],
    )  # fmt: skip
    assert "384 dimensions" in made.stdout
    lines = tmp_path / "records.jsonl"
    lines.write_text(
        "".join(
            f'{{"id": "n{n}", "text": "note {n} on a knee", "subject": "p{n}", '
            f'"attributes": {{"department": "cardiology", "sensitivity": 0}}}}\n'
            for n in range(5)
        )
    )
    assert "5 records" in run("ingest", str(lines), "-C", "clinical-notes", scopes=["records:write"]).stdout
    refused = run("query", "knee", "-C", "clinical-notes", scopes=["query"], status=3)
    assert "policy_denied" in refused.stderr
    erased = run("erase", "--subject", "p3", scopes=["records:erase"], department="privacy", purpose="erasure")
    assert "1 records erased" in erased.stdout
    assert "erasure-receipt/v1" in erased.stdout
    for what in (["--root"], ["--collection", "clinical-notes", "--reseal"], ["--log"], ["--store"]):
        assert "done" in run("keys", "rotate", *what, folder="--deployment", **officer).stdout
    refused = run("keys", "rotate", "-C", "absent", folder="--deployment", status=4, **officer)
    assert "collection_not_found" in refused.stderr
    refused = run("backup", "--to", str(tmp_path / "copies"), status=2, **officer)
    assert "backup_folder_refused" in refused.stderr
    (tmp_path / "broken.jsonl").write_text('{"id": "x"\n')
    run("ingest", str(tmp_path / "broken.jsonl"), "-C", "clinical-notes", scopes=["records:write"], status=2)
