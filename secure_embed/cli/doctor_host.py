"""The part of `secure-embed doctor` that looks at files, process and host."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from secure_embed.cli.environment import refuse_secrets_here
from secure_embed.errors import ConfigurationError

if TYPE_CHECKING:
    from secure_embed.host import Hardened
    from secure_embed.settings import Settings

__all__ = ["Finding", "environment", "files", "machine", "process"]

Finding = tuple[str, str, str]  # level (ok, lacks, wrong), what, how it stands

faults_shown_max = 3
memlock_wanted_bytes = 256 * 1024  # the keys of 1,000 collections take 96 KiB


def files(settings: "Settings") -> Iterator[Finding]:
    """What the service would refuse to start for."""
    from secure_embed.core import named_files
    from secure_embed.host import faults_of_files

    faults = list(faults_of_files(settings.root, **named_files(settings)))
    if not faults:
        yield "ok", "permissions", "every file is the owner's only"
        return
    more = f", and {len(faults) - faults_shown_max} more" if len(faults) > faults_shown_max else ""
    yield "wrong", "permissions", "; ".join(faults[:faults_shown_max]) + more


def environment() -> Iterator[Finding]:
    try:
        refuse_secrets_here()
    except ConfigurationError as refused:
        yield "wrong", "environment", refused.detail
    else:
        yield "ok", "environment", "no secret in variables or arguments"


def process(hardened: "Hardened") -> Iterator[Finding]:
    """What `serve` gets of this host: doctor has just asked for the same."""
    for there, what, fine, lacking in (
        (hardened.no_core, "core dumps", "off", "cannot be turned off here"),
        (
            hardened.not_dumpable,
            "dumpable",
            "no: its memory is closed to other programs of its user",
            "yes: other programs of the service's user can read its memory",
        ),
        (hardened.no_new_privileges, "new privileges", "none", "cannot be given up here"),
        (
            hardened.freed_memory_overwritten,
            "freed memory",
            "is overwritten",
            "is not overwritten: plaintext stays in it until it is used again (needs glibc)",
        ),
    ):
        yield ("ok", what, fine) if there else ("lacks", what, lacking)


def machine() -> Iterator[Finding]:
    from secure_embed import host

    devices = host.swap()
    if devices:
        yield "lacks", "swap", f"is on ({len(devices)}): what is not locked may reach a disk: keys in use, codes, texts"
    else:
        yield "ok", "swap", "off"
    limit = host.memlock_bytes()
    if limit is None or limit >= memlock_wanted_bytes:
        yield "ok", "memory lock", "no limit" if limit is None else f"up to {limit // 1024} KiB, enough for keys"
    else:
        yield "lacks", "memory lock", f"up to {limit // 1024} KiB: not every key can be kept out of swap (LimitMEMLOCK)"
    synchronised = host.clock_synchronised()
    if synchronised is None:
        yield "lacks", "clock", "the kernel does not say whether it is kept"
    elif synchronised:
        yield "ok", "clock", "kept by a time service"
    else:
        yield "lacks", "clock", "not kept by a time service: tokens, budgets and the log go by it"
