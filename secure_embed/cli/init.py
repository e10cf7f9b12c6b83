"""`secure-embed init`: make a deployment."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from secure_embed.cli.environment import prepare_for_keys
from secure_embed.cli.output import as_json, emit, root_option

if TYPE_CHECKING:
    from secure_embed.settings import KeySettings

__all__ = ["init"]

existing = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@root_option
@click.option("--dev", is_flag=True, help="With a development issuer and a self-signed certificate. Not for real data.")
@click.option(
    "--encoder",
    default="bge-m3",
    show_default=True,
    type=click.Choice(["bge-m3", "all-minilm-l6-v2"]),
    help="The model that turns text into vectors.",
)
@click.option(
    "--model-folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where the model's files lie. all-minilm-l6-v2 comes with a package and needs none.",
)
@click.option(
    "--passphrase-file",
    type=existing,
    help="The root's passphrase, mode 0600; default: one is made in the deployment's folder.",
)
@click.option(
    "--key-provider",
    default="passphrase",
    show_default=True,
    type=click.Choice(["passphrase", "pkcs11", "vault"]),
    help="Where the root key lies; docs/key-providers.md.",
)
@click.option("--pkcs11-library", type=existing, help="pkcs11: the vendor's module.")
@click.option("--token-label", help="pkcs11: which token.")
@click.option("--pin-file", type=existing, help="pkcs11: the user's PIN, mode 0600.")
@click.option("--vault-address", help="vault: https://...")
@click.option("--vault-ca-file", type=existing, help="vault: who signed its certificate.")
@click.option("--vault-auth", type=click.Choice(["token", "approle", "kubernetes"]), help="vault: default: token.")
@click.option("--vault-role", help="vault: AppRole's role_id, or the role of Kubernetes.")
@click.option("--vault-credential-file", type=existing, help="vault: token, secret_id or JWT, mode 0600.")
@click.option("--port", default=8443, show_default=True, type=click.IntRange(1, 65_534))
@as_json
def init(
    root: Path,
    dev: bool,
    encoder: str,
    model_folder: Path | None,
    passphrase_file: Path | None,
    port: int,
    json_: bool,
    **provider: Any,  # the options above that only _key_settings reads
) -> None:
    """Make a deployment: root key, databases, log, policies and settings, in a folder that is absent or empty."""
    from secure_embed.founding import create

    if encoder == "bge-m3" and model_folder is None:
        raise click.UsageError("bge-m3 is read from a folder: name it with --model-folder")
    prepare_for_keys()
    keys = _key_settings(passphrase_file, **provider)
    create(
        root, dev=dev, model=encoder, model_folder=model_folder, port=port, passphrase_file=passphrase_file, keys=keys
    )
    lines = [f"deployment made in {root}"]
    if keys.provider != "passphrase":
        lines.append(
            f"the root key lies with the key provider {keys.provider}: docs/key-providers.md says how to keep it"
        )
    elif passphrase_file is None:
        lines.append(f"the root's passphrase is {root}/secrets/root.passphrase: keep a copy apart from every backup")
    lines.append(f"next: secure-embed serve --root {root}{' --dev' if dev else '   (after naming an issuer)'}")
    data = {"root": str(root), "dev": dev, "encoder": encoder, "port": port, "key_provider": keys.provider}
    emit(data, json_, lines)


def _key_settings(
    passphrase_file: Path | None,
    *,
    key_provider: str,
    pkcs11_library: Path | None,
    token_label: str | None,
    pin_file: Path | None,
    vault_address: str | None,
    vault_ca_file: Path | None,
    vault_auth: str | None,
    vault_role: str | None,
    vault_credential_file: Path | None,
) -> "KeySettings":
    """The options of the chosen provider. Those of another, or one that is lacking, are refused."""
    from pydantic import ValidationError

    from secure_embed.settings import KeySettings

    options: dict[str, dict[str, str | Path | None]] = {
        "pkcs11": {"library": pkcs11_library, "token_label": token_label, "pin_file": pin_file},
        "vault": {
            "address": vault_address,
            "ca_file": vault_ca_file,
            "auth": vault_auth,
            "role": vault_role,
            "credential_file": vault_credential_file,
        },
    }
    given = {kind: {name: _absolute(v) for name, v in all_.items() if v is not None} for kind, all_ in options.items()}
    if passphrase_file is not None and key_provider != "passphrase":
        raise click.UsageError("--passphrase-file belongs to the provider passphrase")
    for kind, values in given.items():
        if values and kind != key_provider:
            raise click.UsageError(f"options of the provider {kind} are given, and --key-provider is {key_provider}")
    if key_provider == "pkcs11" and len(given["pkcs11"]) < 3:
        raise click.UsageError("pkcs11 needs --pkcs11-library, --token-label and --pin-file")
    if key_provider == "vault" and not {"address", "credential_file"} <= given["vault"].keys():
        raise click.UsageError("vault needs --vault-address and --vault-credential-file")
    chosen = {key_provider: given[key_provider]} if key_provider in given else {}
    try:
        return KeySettings.model_validate({"provider": key_provider, **chosen})
    except ValidationError as fault:
        raise click.UsageError(fault.errors(include_input=False, include_url=False)[0]["msg"]) from None


def _absolute(value: str | Path) -> str | Path:
    return value.absolute() if isinstance(value, Path) else value
