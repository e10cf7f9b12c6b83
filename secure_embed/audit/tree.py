"""The Merkle tree above the leaves: tiles and proofs for any size that the log has had.

Leaf hashes stay where the entries lie and are asked for; what is kept in memory is one hash for 256 leaves and the levels
above. Pure: the only IO is behind the given function. Source: RFC 6962 sections 2.1.1 and 2.1.2, C2SP tlog-tiles.
"""

from collections.abc import Callable, Iterable, Sequence

from secure_embed.audit.merkle import CompactRange, empty_root, hash_bytes, node_hash, tile_height
from secure_embed.errors import IntegrityFailure, NotFound

__all__ = ["Tree", "require_root"]

tile_width = 1 << tile_height
LeafHashes = Callable[[int, int], Sequence[bytes]]  # (start, count) -> leaf hashes


class Tree:
    """Grows by :meth:`extend` only. Not locked: the owner has one writer and lets readers see whole extensions."""

    def __init__(self, leaf_hashes: LeafHashes) -> None:
        self._leaf_hashes = leaf_hashes
        self._levels: list[bytearray] = []  # of level 1, 2, ...
        self.size = 0

    def extend(self, count: int, completed: Iterable[tuple[int, bytes]]) -> None:
        """``count`` leaves more; ``completed`` is what :class:`CompactRange` reported while they were appended."""
        for level, root in completed:
            if level > len(self._levels):
                self._levels.append(bytearray())
            self._levels[level - 1] += root
        self.size += count

    def range(self) -> CompactRange:
        """The compact range of the whole tree."""
        nodes, start = [], 0
        for height in reversed(range(self.size.bit_length())):
            if self.size >> height & 1:
                nodes.append(self._node(height, start >> height))
                start += 1 << height
        return CompactRange(self.size, nodes)

    def root(self, size: int) -> bytes:
        """MTH(D[0:size]) of RFC 6962 section 2.1. Raises ``NotFound`` (``size_not_found``) past the tree's size."""
        if not 0 <= size <= self.size:
            raise NotFound("the log had no such size", code="size_not_found")
        return self._subtree(0, size) if size else empty_root

    def root_of_bundle(self, index: int) -> bytes:
        """The root over the 256 entries of a full bundle, which the tree has."""
        return self._hashes(1, index, 1)[0]

    def tile(self, level: int, index: int, width: int) -> bytes:
        """``width`` hashes of a tile. Raises ``NotFound`` for what the tree does not hold (yet)."""
        start = index * tile_width
        if not (
            0 <= level < 64 and index >= 0 and 1 <= width <= tile_width and start + width <= self.size >> (8 * level)
        ):
            raise NotFound("the log has no such tile", code="tile_not_found")
        return b"".join(self._hashes(level, start, width))

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        """PATH(m, D[n]) of RFC 6962 section 2.1.1. Raises ``NotFound`` outside 0 <= index < size <= tree's size."""
        if not 0 <= index < size <= self.size:
            raise NotFound("the log has no such entry", code="entry_not_found")
        proof, start, end = [], 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                proof.append(self._subtree(middle, end))
                end = middle
            else:
                proof.append(self._subtree(start, middle))
                start = middle
        return tuple(reversed(proof))

    def consistency_proof(self, old_size: int, size: int) -> tuple[bytes, ...]:
        """PROOF(m, D[n]) of RFC 6962 section 2.1.2. Raises ``NotFound`` outside 0 < old_size <= size <= tree's size."""
        if not 0 < old_size <= size <= self.size:
            raise NotFound("the log had no such size", code="size_not_found")
        proof, start, end, whole = [], 0, size, True
        while end != old_size:
            middle = start + _split(end - start)
            if old_size <= middle:
                proof.append(self._subtree(middle, end))
                end = middle
            else:
                proof.append(self._subtree(start, middle))
                start, whole = middle, False
        if not whole:
            proof.append(self._subtree(start, end))
        return tuple(reversed(proof))

    def _subtree(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]); ``start`` is a multiple of the largest power of two below the length."""
        length = end - start
        if length & (length - 1) == 0:
            height = length.bit_length() - 1
            return self._node(height, start >> height)
        middle = start + _split(length)
        return node_hash(self._subtree(start, middle), self._subtree(middle, end))

    def _node(self, height: int, index: int) -> bytes:
        level, above = divmod(height, tile_height)
        row = list(self._hashes(level, index << above, 1 << above))
        while len(row) > 1:
            row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
        return row[0]

    def _hashes(self, level: int, start: int, count: int) -> Sequence[bytes]:
        if level == 0:
            return self._leaf_hashes(start, count)
        row = self._levels[level - 1]
        return [bytes(row[i * hash_bytes : (i + 1) * hash_bytes]) for i in range(start, start + count)]


def _split(length: int) -> int:
    """The largest power of two that is smaller than ``length`` (RFC 6962's k)."""
    return 1 << ((length - 1).bit_length() - 1)


def require_root(tree: Tree, size: int, root: bytes) -> None:
    """That the tree had this root at this size. Raises ``IntegrityFailure`` (``log_rolled_back``)."""
    if size > tree.size or tree.root(size) != root:
        raise IntegrityFailure("the log is not the one that was seen before, continued", code="log_rolled_back")
