"""The process: one TLS listener for the service, one loopback listener for health, both in one event loop.

Liveness says that the process runs; readiness says whether a caller would be served. Neither takes part in the log.
"""

import asyncio
import logging
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
import uvloop
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from secure_embed.errors import ConfigurationError
from secure_embed.readiness import Readiness
from secure_embed.settings import Settings

__all__ = ["configure_logging", "serve"]

backlog_max = 256
keep_alive_s = 15
shutdown_s = 30
goodbye_s = 0.5  # for peers that close their side when asked to
first_passed_socket = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)


class _QuietFormatter(logging.Formatter):
    """Names an exception's class and place, never its text: that may carry what a caller sent."""

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        kind, _, trace = ei if isinstance(ei, tuple) else (None, None, None)
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "?"
        return f"{getattr(kind, '__name__', '?')} at {place}"


def configure_logging() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_QuietFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("secure_embed.progress").setLevel(logging.INFO)  # codes on their way into memory


def health_app(readiness: Readiness) -> Starlette:
    async def alive(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    def ready(_: Request) -> Response:  # in a thread: a key provider may take seconds to say nothing
        fine, said = readiness.say()
        return JSONResponse(said, 200 if fine else 503)

    return Starlette(routes=[Route("/healthz", alive), Route("/readyz", ready)])


class _Companion(uvicorn.Server):
    """A second server in the same process: the first one listens to signals and ends both."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Announcing(uvicorn.Server):
    """Says when it is ready, and ends without waiting for callers that are connected and ask nothing."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        idle = asyncio.create_task(self._drop_idle())
        try:
            await super().shutdown(sockets)
        finally:
            idle.cancel()

    async def _drop_idle(self) -> None:
        """Once the last answer is out: a peer that does not read would hold up its TLS connection's end for 30 s."""
        while self.server_state.tasks:
            await asyncio.sleep(0.05)
        await asyncio.sleep(goodbye_s)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            notify("READY=1")


def serve(app: FastAPI, readiness: Readiness, settings: Settings) -> None:
    """Answer until a signal says to end, then finish what has begun. Returns when both listeners are closed."""
    server = settings.server
    main = _Announcing(
        uvicorn.Config(
            app,
            host=server.host,
            port=server.port,
            ssl_context_factory=lambda *_: tls_context(settings),
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,  # the audit log has every call, without paths that name records
            log_config=None,
            server_header=False,
            backlog=backlog_max,
            timeout_keep_alive=keep_alive_s,
            timeout_graceful_shutdown=shutdown_s,
            proxy_headers=False,
        )
    )
    health = _Companion(
        uvicorn.Config(
            health_app(readiness),
            host="127.0.0.1",
            port=server.health_port,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
        )
    )
    passed = os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1"
    sockets = [socket.socket(fileno=first_passed_socket)] if passed else None
    # uvicorn raises the signal that ended it once more; the caller still has a vault to close.
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: None)

    async def both() -> None:
        beside = asyncio.create_task(health.serve())
        try:
            await main.serve(sockets)
        finally:
            notify("STOPPING=1")
            health.should_exit = True
            await beside

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(both())


def tls_context(settings: Settings) -> ssl.SSLContext:
    """TLS 1.2 with forward secrecy and authenticated ciphers, or 1.3. Raises ``ConfigurationError``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")  # for TLS 1.2; TLS 1.3 has its own list
    try:
        context.load_cert_chain(settings.path(settings.server.tls_certificate), settings.path(settings.server.tls_key))
    except (OSError, ssl.SSLError):
        raise ConfigurationError("the TLS certificate or its key cannot be read", code="tls_unreadable") from None
    return context


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)), when it asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.sendall(state.encode())
