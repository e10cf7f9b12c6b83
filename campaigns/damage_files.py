"""Damage that needs no key: bytes, pages and whole files of a deployment, and older states put back."""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Damage", "file_damages", "rollbacks"]

page_bytes = 4_096
SETTINGS = ("secure-embed.toml", "policies", "development-issuer", "tls", "secrets", "log-verifier.key")
Apply = Callable[[Path, random.Random], bool]  # False: there is nothing here that this could change


@dataclass(frozen=True, slots=True)
class Damage:
    """``family`` decides what may come of it; ``what`` and ``place`` name it."""

    family: str
    what: str
    place: str
    apply: Apply


def _flip(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _empty(data: bytearray, _: random.Random) -> None:
    data.clear()


def _zero(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(0, len(data), page_bytes)
    end = min(start + page_bytes, len(data))
    data[start:end] = bytes(end - start)


def _append(data: bytearray, chance: random.Random) -> None:
    data += chance.randbytes(chance.choice([1, 16, page_bytes]))


def _overwrite(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    some = chance.randbytes(chance.choice([4, 64]))[: len(data) - start]
    data[start : start + len(some)] = some


def _swap_pages(data: bytearray, chance: random.Random) -> None:
    pages = len(data) // page_bytes
    if pages < 2:
        return
    one, other = (n * page_bytes for n in chance.sample(range(pages), 2))
    first, second = data[one : one + page_bytes], data[other : other + page_bytes]
    data[one : one + page_bytes], data[other : other + page_bytes] = second, first


_ON_BYTES = {
    "flip a bit": _flip,
    "truncate": _truncate,
    "empty": _empty,
    "zero a page": _zero,
    "append": _append,
    "overwrite": _overwrite,
    "swap pages": _swap_pages,
}


def _on_bytes(path: str, change: Callable[[bytearray, random.Random], None]) -> Apply:
    def apply(root: Path, chance: random.Random) -> bool:
        before = (root / path).read_bytes()
        if not before:
            return False
        data = bytearray(before)
        change(data, chance)
        (root / path).write_bytes(data)
        return data != before

    return apply


def _remove(path: str) -> Apply:
    def apply(root: Path, _: random.Random) -> bool:
        (root / path).unlink()
        return True

    return apply


def _put_back(path: str, older: Path) -> Apply:
    """The file as it was in an older state."""

    def apply(root: Path, _: random.Random) -> bool:
        then = (older / path).read_bytes()
        changed = then != (root / path).read_bytes()
        (root / path).write_bytes(then)
        return changed

    return apply


def _put_back_page(path: str, older: Path) -> Apply:
    """One page as it was: sealed under the same key, at the same place."""

    def apply(root: Path, chance: random.Random) -> bool:
        then, now = (older / path).read_bytes(), bytearray((root / path).read_bytes())
        pages = [
            n
            for n in range(0, min(len(then), len(now)), page_bytes)
            if then[n : n + page_bytes] != now[n : n + page_bytes]
        ]
        if not pages:
            return False
        at = chance.choice(pages)
        now[at : at + page_bytes] = then[at : at + page_bytes]
        (root / path).write_bytes(now)
        return True

    return apply


def _swap_files(path: str, other: str) -> Apply:
    def apply(root: Path, _: random.Random) -> bool:
        one, two = (root / path).read_bytes(), (root / other).read_bytes()
        (root / path).write_bytes(two)
        (root / other).write_bytes(one)
        return one != two

    return apply


def _files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def file_damages(root: Path, older: list[Path]) -> Iterator[Damage]:
    """Of every file of the deployment at ``root``. ``older``: states of it from before."""
    files = _files(root)
    for path in files:
        family = "settings" if path.startswith(SETTINGS) else "files"
        for what, change in _ON_BYTES.items():
            if what != "swap pages" or ".db" in path or path.startswith("data"):
                yield Damage(family, what, path, _on_bytes(path, change))
        yield Damage(family, "remove", path, _remove(path))
        beside = [other for other in files if Path(other).parent == Path(path).parent and other > path]
        for other in beside[:3]:
            yield Damage(family, "swap with a file beside", f"{path}, {other}", _swap_files(path, other))
        for then in older:
            if (then / path).is_file():
                database = path.endswith(".db")
                yield Damage("rollback" if database else family, "older file", path, _put_back(path, then))
                if database:
                    yield Damage(family, "older page", path, _put_back_page(path, then))


# --- older states, whole ---------------------------------------------------------------------------------------------

_ROLLED_BACK = (
    ("data/data.db",),
    ("keys/keys.db",),
    ("data/risk.db",),
    ("log",),
    ("data",),
    ("keys",),
    ("data/data.db", "keys/keys.db"),
    ("data/data.db", "log"),
    ("keys/keys.db", "log"),
    ("data", "log"),
    ("data", "keys"),
    ("keys", "log"),
    ("data", "keys", "log"),
)


def rollbacks(root: Path, older: list[Path]) -> Iterator[Damage]:
    """Parts of the deployment as they were at one earlier moment, each consistent in itself."""
    del root
    for then in older:
        for parts in _ROLLED_BACK:
            yield Damage("rollback", f"back to {then.parent.name}", ", ".join(parts), _roll_back(parts, then))


def _roll_back(parts: tuple[str, ...], then: Path) -> Apply:
    def apply(root: Path, _: random.Random) -> bool:
        for part in parts:
            _replace(root / part, then / part)
        return True

    return apply


def _replace(now: Path, then: Path) -> None:
    if then.is_dir():
        shutil.rmtree(now)
        shutil.copytree(then, now)
        return
    for suffix in ("", "-wal", "-shm"):  # a database goes back with its write-ahead log
        now.with_name(now.name + suffix).unlink(missing_ok=True)
        if then.with_name(then.name + suffix).exists():
            shutil.copy(then.with_name(then.name + suffix), now.with_name(now.name + suffix))
