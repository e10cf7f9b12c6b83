"""`secure-embed token`: the development issuer's tokens."""

from pathlib import Path

import click

from secure_embed.cli.output import as_json, emit, root_option

__all__ = ["token"]


@click.command()
@root_option
@click.option("--subject", required=True, help="Who the token is for.")
@click.option("--client", "client_id", default="cli", show_default=True, help="The app that acts for it.")
@click.option("--scope", "scopes", multiple=True, required=True, help="May stand several times.")
@click.option("--department", help="Claim: where the subject works.")
@click.option("--clearance", type=int, help="Claim: up to which sensitivity it may read.")
@click.option("--purpose", "purposes", multiple=True, help="Claim: a purpose of use; may stand several times.")
@click.option(
    "--lifetime", "lifetime_s", default=600, show_default=True, type=click.IntRange(1, 3_600), help="Seconds."
)
@as_json
def token(
    root: Path,
    subject: str,
    client_id: str,
    scopes: tuple[str, ...],
    department: str | None,
    clearance: int | None,
    purposes: tuple[str, ...],
    lifetime_s: int,
    json_: bool,
) -> None:
    """Mint an access token for a deployment that runs with --dev."""
    from secure_embed.access import DevelopmentIssuer
    from secure_embed.settings import Settings

    settings = Settings.load(root, dev=True)
    claims: dict[str, str | int | list[str]] = {}
    if department is not None:
        claims["department"] = department
    if clearance is not None:
        claims["clearance"] = clearance
    if purposes:
        claims["purposes"] = list(purposes)
    minted = DevelopmentIssuer(root / "development-issuer").mint(
        subject=subject,
        client_id=client_id,
        scopes=scopes,
        audience=settings.server.public_url,
        lifetime_s=lifetime_s,
        claims=claims,
    )
    emit({"access_token": minted, "token_type": "Bearer", "expires_in": lifetime_s}, json_, [minted])
