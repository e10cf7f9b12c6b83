"""`secure-embed serve`: open the deployment and answer."""

from pathlib import Path

import click

from secure_embed.cli.environment import prepare_for_keys
from secure_embed.cli.output import root_option

__all__ = ["serve"]


@click.command()
@root_option
@click.option("--dev", is_flag=True, help="Accept the development issuer and other insecure settings.")
def serve(root: Path, dev: bool) -> None:
    """Run the service over TLS until a signal ends it."""
    from secure_embed.settings import Settings

    prepare_for_keys()
    settings = Settings.load(root, dev=dev)  # a wrong setting is said before anything heavy is loaded
    from secure_embed.api import configure_logging, create_app
    from secure_embed.api import serve as answer
    from secure_embed.deployment import Deployment

    if dev:
        click.echo("secure-embed: DEVELOPMENT MODE: whoever holds the development issuer's key is let in", err=True)
    configure_logging()
    with Deployment(settings) as deployment:
        app = create_app(
            deployment.vault,
            settings.limits,
            resource=settings.server.public_url,
            issuers=tuple(issuer.issuer for issuer in settings.issuers),
        )
        click.echo(f"secure-embed: answering on https://{settings.server.host}:{settings.server.port}", err=True)
        answer(app, deployment.readiness, settings)
