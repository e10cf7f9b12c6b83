"""RFC 6962 hashing, the compact range and the two proof checks. Pure: no IO, no keys, no entry is understood here.

Source: RFC 6962 section 2.1 (hashing), RFC 9162 sections 2.1.3.2 and 2.1.4.2 (checking proofs). Two checks are ours: every
hash has 32 bytes, and a proof from or in an empty tree is refused; the RFC's text alone accepts some of both.
"""

import hashlib
from collections.abc import Sequence

from secure_embed.errors import IntegrityFailure

__all__ = ["CompactRange", "leaf_hash", "node_hash", "verify_consistency", "verify_inclusion"]

hash_bytes = 32
empty_root = hashlib.sha256(b"").digest()
tile_height = 8  # a tile holds 2**8 hashes (C2SP tlog-tiles)


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class CompactRange:
    """The hashes of the perfect subtrees that make up a tree: all that an append needs, at most 64 of them."""

    __slots__ = ("_nodes", "size")

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        """``nodes``: one hash for each bit that is set in ``size``, highest bit first."""
        if len(nodes) != size.bit_count():
            raise IntegrityFailure("the tree's range is malformed", code="log_damaged")
        self.size = size
        self._nodes = list(nodes)

    def copy(self) -> "CompactRange":
        return CompactRange(self.size, self._nodes)

    def append(self, leaf: bytes, completed: list[tuple[int, bytes]] | None = None) -> None:
        """Add a leaf's hash. Roots of tiles that it completes go to ``completed`` as (level above, hash)."""
        node = leaf
        height = 0
        while self.size >> height & 1:
            node = node_hash(self._nodes.pop(), node)
            height += 1
            if completed is not None and height % tile_height == 0:
                completed.append((height // tile_height, node))
        self._nodes.append(node)
        self.size += 1

    def root(self) -> bytes:
        if not self._nodes:
            return empty_root
        root = self._nodes[-1]
        for left in reversed(self._nodes[:-1]):
            root = node_hash(left, root)
        return root


def _refuse(*, unless: bool) -> None:
    if not unless:
        raise IntegrityFailure("the proof does not hold", code="proof_invalid")


def _check_hashes(*hashes: bytes) -> None:
    _refuse(unless=all(len(h) == hash_bytes for h in hashes))


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """RFC 9162 section 2.1.3.2. Raises ``IntegrityFailure`` (``proof_invalid``)."""
    _check_hashes(leaf, root, *proof)
    _refuse(unless=0 <= index < size)
    node, number, last = leaf, index, size - 1
    for sibling in proof:
        _refuse(unless=last > 0)
        if number & 1 or number == last:
            node = node_hash(sibling, node)
            while not number & 1 and number:
                number >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        number >>= 1
        last >>= 1
    _refuse(unless=last == 0 and node == root)


def verify_consistency(*, old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """RFC 9162 section 2.1.4.2. Raises ``IntegrityFailure`` (``proof_invalid``)."""
    _check_hashes(old_root, root, *proof)
    _refuse(unless=0 < old_size <= size)
    if old_size == size:
        _refuse(unless=not proof and old_root == root)
        return
    path = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    _refuse(unless=bool(path))
    number, last = old_size - 1, size - 1
    while number & 1:
        number >>= 1
        last >>= 1
    old_node = node = path[0]
    for sibling in path[1:]:
        _refuse(unless=last > 0)
        if number & 1 or number == last:
            old_node = node_hash(sibling, old_node)
            node = node_hash(sibling, node)
            while not number & 1 and number:
                number >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        number >>= 1
        last >>= 1
    _refuse(unless=last == 0 and old_node == old_root and node == root)
