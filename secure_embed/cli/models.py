"""`secure-embed models`: which models are known, and whether a folder holds one to the byte."""

from pathlib import Path

import click

from secure_embed.cli.output import as_json, emit

__all__ = ["models"]


@click.group()
def models() -> None:
    """List the models, and verify one's files by digest."""


@models.command("list")
@as_json
def list_models(json_: bool) -> None:
    """List the models whose manifests come with this version."""
    from secure_embed.embed import manifests

    known = [
        {
            "name": m.name,
            "revision": m.revision,
            "dimension": m.dimension,
            "tokens_max": m.tokens_max,
            "licence": m.licence,
        }
        for m in manifests().values()
    ]
    emit(
        known,
        json_,
        [f"{m['name']}: {m['dimension']} dimensions, {m['tokens_max']} tokens, {m['licence']}" for m in known],
    )


@models.command()
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Where its files lie.")
@as_json
def verify(name: str, folder: Path | None, json_: bool) -> None:
    """Compare every file of a model with the digests of its manifest."""
    from secure_embed.embed import embedded_model_folder, manifest, verify_model

    described = manifest(name)
    where = folder or embedded_model_folder()
    verify_model(where, described)
    data = {"name": name, "folder": str(where), "files": len(described.files), "manifest_sha256": described.sha256}
    emit(data, json_, [f"{name}: {len(described.files)} files as its manifest says", f"manifest {described.sha256}"])
