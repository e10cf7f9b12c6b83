"""cli/: the `secure-embed` command. Data on stdout, people on stderr; nothing heavy is imported before it is needed.

Commands that work on a running service speak HTTP to it as any other client does; commands that make or check a
deployment open it themselves. Exit statuses are in docs/operations.md.
"""
