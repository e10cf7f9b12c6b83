"""When are two queries the same query? Pure text rules; the keyed hash over the result is the caller's."""

import struct
import unicodedata

__all__ = ["normalise_query", "query_identity"]


def normalise_query(text: str) -> str:
    """NFKC, casefolded, runs of white space as one space, invisible format characters dropped.

    NFKC runs twice because casefolding can undo it (Unicode, section 3.13, the second NFKC of toNFKC_Casefold).
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    visible = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", visible).split())


def query_identity(text: str, *, own_filter: str, data_version: int | None) -> bytes:
    """The bytes whose keyed hash is the query tag; no two different queries give the same bytes.

    ``own_filter``: the caller's own filter in canonical form, "" for none. ``data_version``: the collection's version
    for a principal who may write, None for others: a writer who plants a record and repeats a query learns something
    new from it, so for him the repeat counts.
    """
    parts = (normalise_query(text), own_filter, "" if data_version is None else str(data_version))
    raw = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"secure_embed/query/v1\x00" + b"".join(struct.pack(">I", len(r)) + r for r in raw)
