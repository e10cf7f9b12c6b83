"""The process and its host: what keeps keys and plaintext out of dumps, swap, other processes and freed memory.

Each function does one thing of the operating system's and says whether it took effect. Nothing here knows a setting, a
key or a record. Linux only. Sources: prctl(2), core(5), mallopt(3), getrlimit(2), adjtimex(2), glibc's manual,
"Memory Allocation Tunables".
"""

import ctypes
import os
import re
import resource
import stat
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from secure_embed.errors import ConfigurationError

__all__ = [
    "Hardened",
    "check_files",
    "clock_synchronised",
    "faults_of_files",
    "freed_memory_is_overwritten",
    "harden",
    "memlock_bytes",
    "memory_bytes",
    "overwrite_freed_memory",
    "refuse_secrets",
    "swap",
]

PR_GET_DUMPABLE, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 3, 4, 38, 39
umask_private = 0o077
others = stat.S_IRWXG | stat.S_IRWXO

# glibc writes over every block that is freed. Blocks of up to 1,032 bytes would not be among them while they wait in a
# thread's cache (tcache), and CPython's own allocator keeps those of up to 512 bytes for itself: both are turned off.
tunables = {"glibc.malloc.perturb": "85", "glibc.malloc.tcache_count": "0"}
python_malloc = "malloc"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = (ctypes.c_size_t,)
_libc.free.argtypes = (ctypes.c_void_p,)
_libc.free.restype = None
_libc.write.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_libc.write.restype = ctypes.c_ssize_t


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardened:
    """What took effect, as the kernel says afterwards."""

    no_core: bool  # RLIMIT_CORE is 0, soft and hard
    not_dumpable: bool  # no dump even by a pipe, no ptrace and no /proc/PID/mem for others of the same user
    no_new_privileges: bool
    freed_memory_overwritten: bool

    @property
    def lacking(self) -> tuple[str, ...]:
        return tuple(name for name in self.__slots__ if not getattr(self, name))


def harden() -> Hardened:
    """For this process, for good: no core dumps, not dumpable, no new privileges, umask 077. Idempotent."""
    os.umask(umask_private)
    with suppress(OSError, ValueError):  # a unit that set the limit itself may forbid the call
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # RLIMIT_CORE does not hold for a core_pattern that is a pipe; not being dumpable does (core(5)).
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return Hardened(
        no_core=resource.getrlimit(resource.RLIMIT_CORE) == (0, 0),
        not_dumpable=_libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0,
        no_new_privileges=_libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1,
        freed_memory_overwritten=freed_memory_is_overwritten(),
    )


# --- freed memory --------------------------------------------------------------------------------------------------


def overwrite_freed_memory() -> None:
    """Start this program anew with an allocator that overwrites what is freed; return when it has one already.

    The settings are read before a program's first line, so a new start of the same process is the only way. Where it is
    not to be had (another C library, a start that the system refuses) this returns too:
    :func:`freed_memory_is_overwritten` tells.
    """
    wanted = _overwriting(os.environ)
    if wanted != os.environ and "CS_GNU_LIBC_VERSION" in os.confstr_names:
        try:
            os.execve(sys.executable, sys.orig_argv, wanted)  # noqa: S606 - this very program
        except OSError:
            return


def _overwriting(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` with the allocator's settings; what an operator set there stays."""
    held = dict(part.split("=", 1) for part in environment.get("GLIBC_TUNABLES", "").split(":") if part.count("=") == 1)
    merged = ":".join(f"{name}={value}" for name, value in {**tunables, **held}.items())
    return {**environment, "GLIBC_TUNABLES": merged, "PYTHONMALLOC": environment.get("PYTHONMALLOC", python_malloc)}


def freed_memory_is_overwritten() -> bool:
    """Try it: blocks of several sizes are filled, freed and read again. A pipe reads them, so that one that the system
    has taken back by then is an error code and not a crash.
    """
    if os.environ.get("PYTHONMALLOC") != python_malloc:
        return False  # CPython's allocator gives nothing back that another would overwrite
    mark = b"\xc3\x5a\x96\x0f"
    reading, writing = os.pipe()
    try:
        for size in (48, 256, 1_024, 16_384):
            block, after = (
                _libc.malloc(size),
                _libc.malloc(size),
            )  # the second keeps the first from joining what is free
            ctypes.memmove(block, mark * (size // 4), size)
            _libc.free(block)
            written = _libc.write(writing, block, size)
            _libc.free(after)
            # The allocator's own links lie in the first bytes of a free block.
            if written > 0 and mark * 2 in os.read(reading, size):
                return False
        return True
    finally:
        os.close(reading)
        os.close(writing)


# --- files ---------------------------------------------------------------------------------------------------------


def check_files(root: Path, *, secret: Collection[Path] = (), trusted: Collection[Path] = ()) -> None:
    """Every file and folder below ``root`` is ours, closed to group and others, and lies nowhere else.

    ``secret`` and ``trusted``: files that the settings name, which may lie outside, or be links that lead outside. A
    secret one is ours or root's and closed to others (a credential of systemd's is root's, open to no other group); a
    trusted one cannot be written by others. One that is absent is not complained of here.
    Raises ``ConfigurationError`` (``file_permissions``) naming the first path that is not so.
    """
    for fault in faults_of_files(root, secret=secret, trusted=trusted):
        raise ConfigurationError(fault, code="file_permissions")


def faults_of_files(root: Path, *, secret: Collection[Path] = (), trusted: Collection[Path] = ()) -> Iterator[str]:
    """What :func:`check_files` refuses, one sentence a path, relative to ``root`` where it lies below."""
    named = {os.fspath(path) for path in (*secret, *trusted)}
    resolved, top = root.resolve(), os.fspath(root)
    names: Counter[tuple[int, int]] = Counter()  # names below root of each file that has several
    several: dict[tuple[int, int], tuple[str, int]] = {}
    for path, status in _walk(top):
        kind = stat.S_IFMT(status.st_mode)
        shown = path[len(top) + 1 :] or "."
        if kind == stat.S_IFLNK:
            if path not in named and not Path(path).resolve().is_relative_to(resolved):
                yield f"{shown} is a link that leads out of the deployment"
        elif kind not in {stat.S_IFDIR, stat.S_IFREG}:
            yield f"{shown} is neither a file nor a folder"
        elif status.st_uid != os.geteuid():
            yield f"{shown} belongs to another user"
        elif status.st_mode & others:
            yield f"others can reach {shown} (folders are 0700, files 0600)"
        elif kind == stat.S_IFREG and status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            names[inode] += 1
            several[inode] = shown, status.st_nlink
    for inode, (shown, links) in several.items():
        if links > names[inode]:
            # A second name keeps what is deleted here, a wrapped key for instance.
            yield f"{shown} has another name outside the deployment (a hard link)"
    yield from _faults_of_named(root, secret, closed=True)
    yield from _faults_of_named(root, trusted, closed=False)


def _faults_of_named(root: Path, paths: Collection[Path], *, closed: bool) -> Iterator[str]:
    for path in paths:
        try:
            status = path.stat()
        except OSError:  # who needs it says so, in its own words
            continue
        shown = path.relative_to(root) if path.is_relative_to(root) else path
        if status.st_uid not in {os.geteuid(), 0}:
            yield f"{shown} belongs to another user"
        elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield f"others can change {shown}"
        elif closed and status.st_mode & others and not _credential(status):
            yield f"others can read {shown}"


def _credential(status: os.stat_result) -> bool:
    """systemd's: root's file, readable by the service through an ACL whose mask shows as the group's read bit."""
    return (status.st_uid, status.st_gid) == (0, 0) and not status.st_mode & 0o037


def _walk(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """``folder`` and all below it; links are not followed. Strings, since an old log has 100,000 files and more."""
    status = os.lstat(folder)
    yield folder, status
    if not stat.S_ISDIR(status.st_mode):
        return
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
        else:
            with suppress(FileNotFoundError):  # a database's side file, gone since
                yield entry.path, entry.stat(follow_symlinks=False)


# --- argv and environment ------------------------------------------------------------------------------------------

_prefix = "SECURE_EMBED_"
_secret_name = re.compile(r"PASSPHRASE|PASSWORD|PASSWD|SECRET|TOKEN|KEY|CREDENTIAL|PRIVATE|PIN(_|\Z)")
# A private key in PEM, or a JWT (RFC 7519): its header is base64url of '{"'.
_secret_value = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.")


def refuse_secrets(environment: Mapping[str, str], arguments: Sequence[str], *, known: Collection[str]) -> None:
    """No secret stands where others can list it (/proc/PID/environ and cmdline, service managers, crash reports).

    ``known``: names of variables that are settings, and so name files. Raises ``ConfigurationError``
    (``secret_in_environment``) naming the variable: one of ours that is no setting but is called like a secret, or
    one whose value is a private key or a token; also for such an argument.
    """
    for name, value in environment.items():
        if not name.startswith(_prefix):
            continue
        called_so = name not in known and _secret_name.search(name.removeprefix(_prefix))
        if called_so or _secret_value.search(value):
            raise ConfigurationError(
                f"{name} holds a secret, or is called so: secrets stand in files", code="secret_in_environment"
            )
    if any(_secret_value.search(argument) for argument in arguments):
        raise ConfigurationError("an argument is a secret: secrets stand in files", code="secret_in_environment")


# --- reports -------------------------------------------------------------------------------------------------------


def swap() -> tuple[str, ...]:
    """Devices and files that memory may be swapped to; none: swap is off."""
    lines = Path("/proc/swaps").read_text().splitlines()[1:]
    return tuple(line.split()[0] for line in lines)


def memlock_bytes() -> int | None:
    """How much memory this process may lock; None: no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft


def memory_bytes() -> int:
    """How much memory this process may come to have: the machine's, or its control group's where that has a limit."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [machine]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # cgroups(7): version 2
            limits += _group_limits(Path("/sys/fs/cgroup"), path, "memory.max")
        elif controllers == "memory":
            limits += _group_limits(Path("/sys/fs/cgroup/memory"), path, "memory.limit_in_bytes")
    return min(limits)


def _group_limits(mounted: Path, path: str, name: str) -> Iterator[int]:
    """Of the group and of those that it lies in. A container sees its own group at the top."""
    group = Path(path)
    for each in (group, *group.parents):
        with suppress(OSError, ValueError):  # not there, or "max"
            yield int((mounted / str(each).lstrip("/") / name).read_text())


def clock_synchronised() -> bool | None:
    """Whether the kernel's clock is kept by a time service; None: the kernel does not say."""
    timex = ctypes.create_string_buffer(512)  # struct timex, 208 bytes; all zero: nothing is asked to change
    time_error = 5
    answer = int(_libc.adjtimex(timex))
    return None if answer < 0 else answer != time_error
