"""The running service, looked at from outside: by its own user, by who lists processes, by who makes it crash.

Attacks: reading /proc/PID/mem and attaching as the same user; secrets in argv and environment; a core file; what was
freed and not overwritten. Where the tests run as root, service and attacker run without any capability: a root that
has CAP_SYS_PTRACE looks into everything.
"""

import contextlib
import os
import re
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secure_embed.access import DevelopmentIssuer
from secure_embed.cli.client import Client
from secure_embed.cli.demo.service import free_port
from secure_embed.founding import create

is_root = os.geteuid() == 0
without_capabilities = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"] if is_root else []
ready_s_max = 90

pytestmark = [
    pytest.mark.model,
    pytest.mark.service,
    pytest.mark.skipif(is_root and shutil.which("setpriv") is None, reason="nothing here drops capabilities"),
]


class Running:
    def __init__(self, root, port):
        self.root = root
        self.url = f"https://localhost:{port}"
        self.cwd = root.parent / "cwd"
        self.cwd.mkdir()
        command = [
            *without_capabilities,
            sys.executable,
            "-m",
            "secure_embed.cli",
            "serve",
            "--root",
            str(root),
            "--dev",
        ]
        self.log = (root.parent / "service.log").open("wb")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            cwd=self.cwd,
        )
        self.pid = self.process.pid
        self._wait_until_ready(port + 1)

    def _wait_until_ready(self, port):
        ends = time.monotonic() + ready_s_max
        while time.monotonic() < ends and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as one:
                one.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if b" 200 " in one.recv(64):
                    return
            time.sleep(0.1)
        raise AssertionError((self.root.parent / "service.log").read_text())

    def client(self, subject, scopes, **claims):
        token = DevelopmentIssuer(self.root / "development-issuer").mint(
            subject=subject, client_id=subject, scopes=scopes, audience=self.url, lifetime_s=600, claims=claims
        )
        purpose = claims.get("purposes", [None])[0]
        return token, Client(self.url, token=token, ca=self.root / "tls" / "certificate.pem", purpose=purpose)

    def proc(self, name):
        return Path(f"/proc/{self.pid}/{name}")


@contextlib.contextmanager
def cores_allowed():
    """Children start with leave to dump: a core is written unless they see to it themselves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with cores_allowed():
        root = tmp_path_factory.mktemp("memory") / "deployment"
        port = free_port()
        create(root, dev=True, model="all-minilm-l6-v2", port=port)
        service = Running(root, port)
        yield service
        if service.process.poll() is None:
            service.process.terminate()
            service.process.wait(30)
        service.log.close()


def as_the_same_user(code):
    """Run by another process of the service's own user: what it prints."""
    ran = subprocess.run(
        [*without_capabilities, sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return ran.stdout.strip()


READ_MEMORY = """
try:
    open("/proc/{pid}/mem", "rb").close(); print("read")
except PermissionError:
    print("refused")
"""
ATTACH = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
if libc.ptrace(16, {pid}, None, None) == 0:
    os.waitpid({pid}, 0x40000000); libc.ptrace(17, {pid}, None, None); print("read")
else:
    print("refused")
"""


@pytest.mark.parametrize("attack", [READ_MEMORY, ATTACH], ids=["/proc/PID/mem", "ptrace"])
def test_its_own_user_cannot_look_into_its_memory(running, attack):
    assert as_the_same_user(attack.format(pid=running.pid)) == "refused"


def test_the_attack_reaches_a_process_that_is_not_hardened():
    """Or the test above would show the sandbox it runs in, not the service."""
    with subprocess.Popen(
        [*without_capabilities, sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE,
    ) as other:
        other.stdout.readline()
        try:
            assert as_the_same_user(READ_MEMORY.format(pid=other.pid)) == "read"
        finally:
            other.kill()


def test_the_kernel_calls_it_not_dumpable_and_without_new_privileges(running):
    """The files of a process that is not dumpable are root's (proc(5)), whoever runs it."""
    assert running.proc("mem").stat().st_uid == 0
    assert re.search(r"NoNewPrivs:\s+1", running.proc("status").read_text())
    limits = running.proc("limits").read_text()
    assert re.search(r"Max core file size\s+0\s+0", limits)
    assert re.search(r"Umask:\s+0077", running.proc("status").read_text())


def test_argv_and_environment_hold_no_secret(running):
    """Neither the passphrase, nor a key's bytes in any form, nor a token that was used."""
    token, client = running.client("svc-ingest", ["collections:admin", "records:write"])
    client.call("POST", "/v1/collections", {"name": "listed", "attributes": {}}).value()
    client.close()
    listed = running.proc("cmdline").read_bytes() + running.proc("environ").read_bytes()
    assert b"serve" in listed
    passphrase = (running.root / "secrets" / "root.passphrase").read_bytes().strip()
    key = (running.root / "tls" / "key.pem").read_bytes().splitlines()[1]
    for secret in (passphrase, token.encode(), key):
        assert secret not in listed
    # Key material is base64, hex or raw: no value is long and looks random.
    assert not re.search(rb"=[A-Za-z0-9+/_-]{43,}={0,2}\0", listed.replace(b"/", b" "))


def test_a_text_and_its_request_are_overwritten_once_answered(running):
    """An ingested text leaves no 24 bytes of it behind in the process that took it in."""
    if not is_root:
        pytest.skip("only root may look into a process that is not dumpable")
    _, client = running.client("svc-ingest", ["collections:admin", "records:write"])
    client.call("POST", "/v1/collections", {"name": "complaints", "attributes": {"sensitivity": "long"}}).value()
    texts = [f"the letter {secrets.token_hex(48)} was never sent" for _ in range(64)]
    client.call(
        "POST",
        "/v1/collections/complaints/records",
        {"records": [{"id": f"r-{n}", "text": text, "attributes": {"sensitivity": 0}} for n, text in enumerate(texts)]},
    ).value()
    client.close()
    # The connection's last buffers go with it, and others with the next request.
    _, after = running.client("svc-ingest", ["collections:read"])
    after.call("GET", "/v1/collections").value()
    after.close()
    memory = memory_of(running.pid)
    left = [text for text in texts if text[11 + 24 : 11 + 48].encode() in memory]
    assert len(left) <= 1
    assert b"secure-embed" in memory  # the look is a look


def memory_of(pid):
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end, rights = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line).groups()
            if rights.startswith("rw"):
                memory.seek(int(start, 16))
                with contextlib.suppress(OSError):
                    found.append(memory.read(int(end, 16) - int(start, 16)))
    return b"\0".join(found)


def test_an_abort_leaves_no_core(running):
    """Last, since it ends the service. The wait status says whether the kernel dumped, wherever it would have put it."""
    running.process.send_signal(signal.SIGABRT)
    _, status = os.waitpid(running.pid, 0)
    running.process.returncode = -signal.SIGABRT
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert not os.WCOREDUMP(status)
    assert list(running.cwd.iterdir()) == []


def test_a_process_that_is_not_hardened_would_have_left_one(tmp_path):
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("no process may dump here")
    with cores_allowed():
        child = subprocess.Popen(
            [sys.executable, "-c", "import os; os.abort()"], cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        _, status = os.waitpid(child.pid, 0)
        child.returncode = -signal.SIGABRT
    if not os.WCOREDUMP(status):
        pytest.skip("this host dumps nothing, so the test above shows nothing here")
    assert list(tmp_path.iterdir()) or not Path("/proc/sys/kernel/core_pattern").read_text().startswith("core")
