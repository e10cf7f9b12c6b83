"""`secure-embed init`: make a deployment."""

from pathlib import Path

import click

from secure_embed.cli.output import as_json, emit, root_option

__all__ = ["init"]


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
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The root's passphrase, mode 0600; default: one is made in the deployment's folder.",
)
@click.option("--port", default=8443, show_default=True, type=click.IntRange(1, 65_534))
@as_json
def init(
    root: Path, dev: bool, encoder: str, model_folder: Path | None, passphrase_file: Path | None, port: int, json_: bool
) -> None:
    """Make a deployment: root key, databases, log, policies and settings, in a folder that is absent or empty."""
    from secure_embed.founding import create

    if encoder == "bge-m3" and model_folder is None:
        raise click.UsageError("bge-m3 is read from a folder: name it with --model-folder")
    create(root, dev=dev, model=encoder, model_folder=model_folder, port=port, passphrase_file=passphrase_file)
    lines = [f"deployment made in {root}"]
    if passphrase_file is None:
        lines.append(f"the root's passphrase is {root}/secrets/root.passphrase: keep a copy apart from every backup")
    lines.append(f"next: secure-embed serve --root {root}{' --dev' if dev else '   (after naming an issuer)'}")
    emit({"root": str(root), "dev": dev, "encoder": encoder, "port": port}, json_, lines)
