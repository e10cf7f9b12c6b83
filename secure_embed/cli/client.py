"""The HTTP client of the commands: TLS against the deployment's own certificate, a bearer token from a file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from secure_embed.errors import (
    ConfigurationError,
    Conflict,
    Exhausted,
    Forbidden,
    IntegrityFailure,
    InvalidRequest,
    NotFound,
    SecureEmbedError,
    Unauthenticated,
    Unavailable,
)

__all__ = ["Client", "Reply", "client_options", "client_options_beside"]

F = TypeVar("F", bound=Callable[..., Any])

timeout_s = 120.0

_BY_STATUS: Mapping[int, type[SecureEmbedError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: Exhausted,
    500: IntegrityFailure,
    503: Unavailable,
    507: Unavailable,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int
    body: Any

    def value(self) -> Any:
        """The answer's body. Raises the error of our taxonomy that the problem details name."""
        if self.status < 400:
            return self.body
        problem = self.body if isinstance(self.body, dict) else {}
        known = {"type", "title", "status", "detail", "code"}
        raise _BY_STATUS.get(self.status, InvalidRequest)(
            str(problem.get("detail", "the service refused")),
            code=str(problem.get("code", "refused")),
            members={name: value for name, value in problem.items() if name not in known},
            http_status=self.status,
        )


class Client:
    """One connection to a service. ``ca``: PEM file that its certificate is checked against; None: the system's."""

    def __init__(self, url: str, *, token: str | None, ca: Path | None, purpose: str | None = None) -> None:
        import ssl

        import httpx

        context = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if purpose:
            headers["Purpose-Of-Use"] = purpose
        self._http = httpx.Client(base_url=url, verify=context, headers=headers, trust_env=False)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = timeout_s,
    ) -> Reply:
        """Raises ``Unavailable`` (``service_unreachable``) when there is no answer. ``timeout_s``: None waits for ever."""
        import httpx

        try:
            answer = self._http.request(method, path, json=body, headers=headers, timeout=timeout_s)
        except httpx.HTTPError as fault:
            raise Unavailable(
                f"the service does not answer ({type(fault).__name__})", code="service_unreachable"
            ) from None
        kind = answer.headers.get("content-type", "")
        return Reply(status=answer.status_code, body=answer.json() if "json" in kind else answer.text)

    def close(self) -> None:
        self._http.close()


def client_options(function: F) -> F:
    """Options of every command that speaks to a service; they reach the function as ``client: Client``."""
    return client_options_beside("--root")(function)


def client_options_beside(folder: str) -> Callable[[F], F]:
    """The same, where the deployment's folder is named by ``folder``: `keys rotate --root` means the root key."""
    from functools import wraps

    from secure_embed.cli.output import deployment_option

    def decorated(function: F) -> F:
        @deployment_option(folder)
        @click.option("--url", help="The service; default: the one that the deployment's settings name.")
        @click.option(
            "--ca", type=click.Path(path_type=Path, exists=True), help="PEM file to check its certificate with."
        )
        @click.option(
            "--token-file",
            type=click.File("r"),
            help="File with the access token ('-': standard input). Tokens never stand in the command line.",
        )
        @click.option("--purpose", help="Purpose of use, as policy names it.")
        @wraps(function)
        def command(
            root: Path, url: str | None, ca: Path | None, token_file: Any, purpose: str | None, **given: Any
        ) -> Any:
            if url is None:
                url, ca = _of_deployment(root, ca)
            token = token_file.read().strip() if token_file is not None else None
            client = Client(url, token=token, ca=ca, purpose=purpose)
            try:
                return function(client=client, **given)
            finally:
                client.close()

        return command  # type: ignore[return-value]  # click's options change the signature

    return decorated


def _of_deployment(root: Path, ca: Path | None) -> tuple[str, Path | None]:
    from secure_embed.settings import Settings

    try:
        settings = Settings.load(root, dev=True)  # only read here: address and certificate
    except ConfigurationError as missing:
        raise click.UsageError(f"{missing.detail}; or name the service with --url") from None
    certificate = settings.path(settings.server.tls_certificate)
    own = any(issuer.development for issuer in settings.issuers)
    return f"https://localhost:{settings.server.port}", ca or (certificate if own else None)
