"""`python -m secure_embed.cli`."""

from secure_embed.cli.main import main

main()
