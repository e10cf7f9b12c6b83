"""A deployment opened in this process and asked through its application: the same door as over TLS, without a socket."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from campaigns.encoder import WordEncoder
from campaigns.stage import headers
from campaigns.world import Answer, Ask
from secure_embed.api import create_app
from secure_embed.api.server import configure_logging, tls_context
from secure_embed.deployment import Deployment
from secure_embed.settings import Settings

__all__ = ["Inside"]


class Inside:
    """Raises what ``Deployment`` raises."""

    def __init__(self, root: Path, *, caller: Mapping[str, str] | None = None) -> None:
        """``caller``: headers of the caller; None: made with the development issuer's key in ``root``."""
        configure_logging()
        settings = Settings.load(root, dev=True)
        tls_context(settings)
        self._deployment = Deployment(settings, WordEncoder())
        issuers = tuple(issuer.issuer for issuer in settings.issuers)
        self._app = create_app(
            self._deployment.vault, settings.limits, resource=settings.server.public_url, issuers=issuers
        )
        self._caller = headers(root, settings.server.public_url) if caller is None else caller
        self._loop = asyncio.new_event_loop()

    def ask(self, ask: Ask) -> Answer:
        (answer,) = self.ask_all([ask])
        return answer

    def ask_all(self, asks: Sequence[Ask]) -> list[Answer]:
        """One after the other."""

        async def all_of_them() -> list[Answer]:  # in one task: threads that wait for work end with it
            return [await self._asked(ask, {} if ask.nobody else self._caller) for ask in asks]

        return self._loop.run_until_complete(all_of_them())

    async def _asked(self, ask: Ask, caller: Mapping[str, str]) -> Answer:
        content = b"" if ask.body is None else json.dumps(ask.body).encode()
        given = {"content-type": "application/json", "content-length": str(len(content)), **caller, **ask.headers}
        path, _, query = ask.path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": ask.method,
            "scheme": "https",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 1),
            "state": {},
        }
        said: list[dict[str, Any]] = []

        sent = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if not sent:
                await asyncio.Event().wait()  # this caller stays
            return sent.pop()

        async def send(message: Any) -> None:
            said.append(message)

        try:
            await self._app(scope, receive, send)
        except Exception:  # noqa: BLE001 - Starlette answers 500 and then raises on, for the server's log
            assert said
        return _answer(said)

    def close(self) -> None:
        self._loop.close()
        self._deployment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _answer(said: list[dict[str, Any]]) -> Answer:
    found = {name.decode().lower(): value.decode() for name, value in said[0]["headers"]}
    content = b"".join(message.get("body", b"") for message in said[1:])
    body = json.loads(content) if "json" in found.get("content-type", "") else content.decode(errors="replace")
    header = found.get("audit-receipt", "").split(" ")
    receipt = (int(header[1]), header[2]) if len(header) == 3 else None
    if receipt is None and isinstance(body, dict) and body.get("receipt"):
        receipt = (int(body["receipt"]["index"]), str(body["receipt"]["leaf_hash"]))
    return Answer(status=said[0]["status"], body=body, receipt=receipt)
