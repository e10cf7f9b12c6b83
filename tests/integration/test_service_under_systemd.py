"""What the units in deploy/systemd rely on, without systemd: a socket handed over, and word of being ready and stopping."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys

import pytest

from secure_embed.cli.demo.service import free_port

pytestmark = [pytest.mark.model, pytest.mark.service]

# systemd sets LISTEN_PID to the process that it starts; here the process sets it to itself and then becomes the service.
_LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "secure_embed.cli", "serve", "--dev", "--root", sys.argv[2]])
"""


def test_a_socket_is_taken_over_and_readiness_announced(tmp_path):
    from secure_embed.founding import create

    root = tmp_path / "deployment"
    create(root, dev=True, model="all-minilm-l6-v2", port=free_port())
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices,
    ):
        notices.bind(str(tmp_path / "notify"))
        notices.settimeout(90)
        service = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(listener.fileno()), str(root)],
            pass_fds=[listener.fileno()],
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")},
            stderr=subprocess.DEVNULL,
        )
        try:
            assert notices.recv(64) == b"READY=1"
            context = ssl.create_default_context(cafile=str(root / "tls" / "certificate.pem"))
            with (
                socket.create_connection(listener.getsockname()) as connection,
                context.wrap_socket(connection, server_hostname="localhost") as tls,
            ):
                tls.sendall(b"GET /v1/collections HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert tls.recv(32).startswith(b"HTTP/1.1 401")
            service.send_signal(signal.SIGTERM)
            assert notices.recv(64) == b"STOPPING=1"
            assert service.wait(30) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                service.kill()
            service.wait()


def test_an_idle_caller_does_not_hold_up_the_end(tmp_path):
    """A connection that is open and asks nothing is dropped, so that a restart takes seconds."""
    from secure_embed.cli.demo.service import Service
    from secure_embed.founding import create

    root = tmp_path / "deployment"
    port = free_port()
    create(root, dev=True, model="all-minilm-l6-v2", port=port)
    service = Service(root, port)
    service.start()
    context = ssl.create_default_context(cafile=str(root / "tls" / "certificate.pem"))
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"GET /v1/collections HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert tls.recv(16).startswith(b"HTTP/1.1 401")
        ended = service.stop()
    assert ended == "asked"
