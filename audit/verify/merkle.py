"""Hashes, compact ranges and proofs (RFC 6962 section 2.1, RFC 9162 sections 2.1.3.2 and 2.1.4.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Range:
    """A growing tree, as the roots of its perfect subtrees. Remembers the hashes that tiles above level 0 must hold."""

    def __init__(self) -> None:
        self.size = 0
        self.stack: list[bytes] = []
        self.levels: list[list[bytes]] = []  # of level 1, 2, ...

    def copy(self) -> Range:
        twin = Range()
        twin.size, twin.stack, twin.levels = self.size, list(self.stack), [list(level) for level in self.levels]
        return twin

    def extend(self, leaves: Iterable[bytes]) -> None:
        for leaf in leaves:
            node, rest, height = leaf, self.size, 0
            while rest % 2:
                node, rest, height = node_hash(self.stack.pop(), node), rest // 2, height + 1
                if height % 8 == 0:
                    if len(self.levels) < height // 8:
                        self.levels.append([])
                    self.levels[height // 8 - 1].append(node)
            self.stack.append(node)
            self.size += 1

    def root_with(self, leaves: Iterable[bytes]) -> bytes:
        """The root if these were added."""
        twin = Range()
        twin.size, twin.stack = self.size, list(self.stack)
        twin.extend(leaves)
        return twin.root()

    def root(self) -> bytes:
        if not self.stack:
            return EMPTY_ROOT
        *others, node = self.stack
        for left in reversed(others):
            node = node_hash(left, node)
        return node


def tile_root(hashes: Sequence[bytes]) -> bytes:
    """Root over up to 256 hashes that are themselves leaves of a tile."""
    grown = Range()
    grown.extend(hashes)
    return grown.root()


def inclusion_holds(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    if any(len(h) != 32 for h in (leaf, root, *proof)) or not 0 <= index < size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            return False
        if fn % 2 or fn == sn:
            r = node_hash(p, r)
            while fn % 2 == 0 and fn != 0:
                fn, sn = fn // 2, sn // 2
        else:
            r = node_hash(r, p)
        fn, sn = fn // 2, sn // 2
    return sn == 0 and r == root


def consistency_holds(first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]) -> bool:
    if any(len(h) != 32 for h in (first_root, second_root, *proof)) or not 0 < first <= second:
        return False
    if first == second:
        return not proof and first_root == second_root
    path = list(proof)
    if first.bit_count() == 1:
        path.insert(0, first_root)
    if not path:
        return False
    fn, sn = first - 1, second - 1
    while fn % 2:
        fn, sn = fn // 2, sn // 2
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn % 2 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while fn % 2 == 0 and fn != 0:
                fn, sn = fn // 2, sn // 2
        else:
            sr = node_hash(sr, c)
        fn, sn = fn // 2, sn // 2
    return sn == 0 and fr == first_root and sr == second_root
