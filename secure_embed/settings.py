"""One TOML file and the environment; what is insecure is refused unless the service runs with ``--dev``.

The file is ``secure-embed.toml`` in the deployment's folder; relative paths in it count from that folder. A variable
such as ``SECURE_EMBED_SERVER__PORT=9443`` overrides one value of the file. No secret stands in either: settings name
files, and the key provider reads them.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from secure_embed.errors import ConfigurationError
from secure_embed.types import COLLECTION_NAME

__all__ = [
    "SETTINGS_FILE",
    "BackupSettings",
    "EncoderSettings",
    "IndexSettings",
    "IssuerSettings",
    "KeySettings",
    "LimitSettings",
    "PolicySettings",
    "ServerSettings",
    "Settings",
    "TokenSettings",
    "TransitSettings",
]

SETTINGS_FILE = "secure-embed.toml"
CollectionName = Annotated[str, Field(pattern=f"^{COLLECTION_NAME.pattern}".replace(r"\Z", "$"))]
Port = Annotated[int, Field(ge=1, le=65_535)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Part):
    host: str = "127.0.0.1"
    port: Port = 8443
    health_port: Port = 8444  # liveness and readiness on a listener of their own, loopback only
    tls_certificate: Path = Path("tls/certificate.pem")
    tls_key: Path = Path("tls/key.pem")
    public_url: str = "https://localhost:8443"  # our resource identifier (RFC 8707), and so the tokens' audience


Seconds = Annotated[float, Field(ge=0.1, le=60)]


class TokenSettings(_Part):
    """A token of PKCS#11: an HSM's partition, a smart card, SoftHSM."""

    library: Path  # the vendor's module, such as /usr/lib/softhsm/libsofthsm2.so
    token_label: str
    token_serial: str | None = None  # where two tokens have one label
    pin_file: Path = Path("secrets/token.pin")
    timeout_s: Seconds = 5.0


class TransitSettings(_Part):
    """A Transit engine of HashiCorp Vault or OpenBao."""

    address: str  # https://vault.example.org:8200
    mount: str = "transit"
    key_prefix: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] = "secure-embed"
    namespace: str | None = None
    ca_file: Path | None = None  # None: the certificates that come with Python's certifi
    auth: Literal["token", "approle", "kubernetes"] = "token"
    auth_mount: str | None = None  # None: the method's own name
    role: str | None = None  # AppRole's role_id, or the role of Kubernetes
    credential_file: Path = Path("secrets/vault.credential")  # the token, AppRole's secret_id, the account's JWT
    timeout_s: Seconds = 5.0

    @model_validator(mode="after")
    def _role_where_one_is_needed(self) -> Self:
        if (self.role is None) != (self.auth == "token"):
            raise ValueError("role belongs to approle and kubernetes, and both need it")
        return self


class KeySettings(_Part):
    provider: Literal["passphrase", "pkcs11", "vault"] = "passphrase"
    # A name without a folder is looked up among systemd's credentials when the service runs with them; so are
    # pin_file and credential_file below.
    passphrase_file: Path = Path("secrets/root.passphrase")
    pkcs11: TokenSettings | None = None
    vault: TransitSettings | None = None
    # For how long copies of the keys database are kept: an erasure receipt counts its date from this. None: not known.
    backup_retention_days: Annotated[int, Field(ge=0, le=3_650)] | None = None

    @model_validator(mode="after")
    def _described_when_chosen(self) -> Self:
        if self.provider != "passphrase" and getattr(self, self.provider) is None:
            raise ValueError(f"the provider {self.provider} needs its section keys.{self.provider}")
        return self


class EncoderSettings(_Part):
    model: str = "bge-m3"
    folder: Path | None = None  # None: the weights come with a package (all-minilm-l6-v2 only)
    manifest: Path | None = None  # a manifest of one's own, for a model that this project does not list
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: Annotated[int, Field(ge=1, le=256)] = 2


class IssuerSettings(_Part):
    issuer: str
    jwks_uri: str | None = None
    jwks_file: Path | None = None
    algorithms: tuple[str, ...] = ("ES256", "PS256", "EdDSA")
    token_type: Literal["at+jwt", "JWT"] = "at+jwt"  # noqa: S105 - the JOSE header's typ, not a secret
    client_id_claim: str = "client_id"
    leeway_s: Annotated[int, Field(ge=0, le=60)] = 5
    lifetime_max_s: Annotated[int, Field(ge=60, le=86_400)] = 3_600
    attribute_claims: dict[str, str] = {"department": "department", "clearance": "clearance"}
    attribute_types: dict[str, Literal["string", "long", "bool"]] = {"department": "string", "clearance": "long"}
    purposes_claim: str = "purposes"
    development: bool = False


class PolicySettings(_Part):
    folder: Path = Path("policies")
    risk_profile: Literal["open", "standard", "strict"] = "standard"


class BackupSettings(_Part):
    folders: tuple[Path, ...] = ()  # below which a backup may be written; none: no backup is taken


class UpkeepSettings(_Part):
    sweep_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300  # records past their date go
    nightly_hour_utc: Annotated[int, Field(ge=0, le=23)] = 2  # erasures in large collections come to their end


class IndexSettings(_Part):
    # Of all open collections together: codes, attributes, wrapped keys. None: half of what the machine, or the service's
    # control group, has.
    memory_mib_max: Annotated[int, Field(ge=1, le=64 * 1024 * 1024)] | None = None
    warm_up: Annotated[tuple[CollectionName, ...], Field(max_length=1_000)] = ()  # opened at start, in this order
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = 2.0  # that a query waits for codes on their way into memory


class LimitSettings(_Part):
    request_bytes_max: Annotated[int, Field(ge=1_024, le=64 * 1024 * 1024)] = 8 * 1024 * 1024
    request_seconds_max: Annotated[int, Field(ge=1, le=600)] = 120
    batch_records_max: Annotated[int, Field(ge=1, le=5_000)] = 1_000
    concurrent_calls_max: Annotated[int, Field(ge=1, le=256)] = 16
    rerank_k: Annotated[int, Field(ge=10, le=5_000)] = 200
    query_seconds_max: Annotated[float, Field(gt=0, le=600)] = 30.0


class Settings(BaseSettings):
    """Everything that can be set. ``root`` is the deployment's folder; ``dev`` comes from the command line alone."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix="SECURE_EMBED_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    root: Path
    dev: bool = False
    server: ServerSettings = ServerSettings()
    keys: KeySettings = KeySettings()
    encoder: EncoderSettings = EncoderSettings()
    issuers: tuple[IssuerSettings, ...] = ()
    policies: PolicySettings = PolicySettings()
    limits: LimitSettings = LimitSettings()
    index: IndexSettings = IndexSettings()
    backup: BackupSettings = BackupSettings()
    upkeep: UpkeepSettings = UpkeepSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file, except for what only the command line may say."""
        return (_Environment(settings_cls), init_settings)

    @classmethod
    def load(cls, root: Path, *, dev: bool) -> Self:
        """Read ``root``/secure-embed.toml. Raises ``ConfigurationError`` for what is missing, unknown or insecure."""
        path = root / SETTINGS_FILE
        try:
            values = tomllib.loads(path.read_text())
        except FileNotFoundError:
            raise ConfigurationError(
                f"{path} is missing; `secure-embed init` makes a deployment", code="deployment_missing"
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
            raise ConfigurationError(f"{path} is not TOML: {fault}", code="settings_invalid") from None
        return cls.of(values, root=root, dev=dev)

    @classmethod
    def of(cls, values: dict[str, Any], *, root: Path, dev: bool) -> Self:
        if {"root", "dev"} & values.keys():
            raise ConfigurationError("root and dev are not settings of the file", code="settings_invalid")
        try:
            settings = cls(root=root.resolve(), dev=dev, **values)
        except ValidationError as fault:
            first = fault.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(f"setting {place}: {first['msg']}", code="settings_invalid") from None
        settings.refuse_insecure()
        return settings

    def path(self, value: Path) -> Path:
        """``value``, from the deployment's folder when it is relative."""
        return value if value.is_absolute() else self.root / value

    def refuse_insecure(self) -> None:
        """Raise ``ConfigurationError`` (``insecure_setting``) for what only ``--dev`` may have."""
        if self.dev:
            return
        for wrong, what in (
            (not self.issuers, "no issuer of access tokens is named"),
            (any(i.development for i in self.issuers), "the development issuer hands out any token"),
            (any(urlsplit(i.jwks_uri or "https:").scheme != "https" for i in self.issuers), "a jwks_uri is not https"),
            (self.policies.risk_profile == "open", "the risk profile 'open' limits nothing"),
            (urlsplit(self.server.public_url).scheme != "https", "server.public_url is not https"),
            (
                self.keys.vault is not None and urlsplit(self.keys.vault.address).scheme != "https",
                "keys.vault.address is not https",
            ),
        ):
            if wrong:
                raise ConfigurationError(f"{what}: refused without --dev", code="insecure_setting")


class _Environment(EnvSettingsSource):
    """The environment cannot name another deployment, nor turn the safeguards off."""

    def __call__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__call__().items() if name not in {"root", "dev"}}
