"""When are two queries the same query? When the encoder is given the same text: nothing less makes a repeat free.

A looser rule would be a hole. If "Knee pain" and "KNEE pain" were one query to the ledger and two to a cased encoder,
each of the 2^n spellings of n letters would be a free reading of the same record's vector. So the vault hands the
*normalised* text to the encoder and to :func:`query_identity` alike, and nothing is folded here that a model may see.
"""

import struct
import unicodedata

__all__ = ["normalise_query", "query_identity"]


def normalise_query(text: str) -> str:
    """The text to encode and to count: NFKC (Unicode Annex 15), white space trimmed and each run made one space.

    Idempotent. Case stays: see above. May be empty when ``text`` is only white space.
    """
    return " ".join(unicodedata.normalize("NFKC", text).split())


def query_identity(normalised: str, *, own_filter: str, data_version: int | None) -> bytes:
    """The bytes whose keyed hash is the query tag; no two different queries give the same bytes.

    ``normalised``: exactly what the encoder is given; it is not normalised again, so that a caller who forgets to
    counts more and never less. ``own_filter``: the caller's own filter in canonical form, "" for none.
    ``data_version``: the collection's version for a principal who may write, None for others: a writer who plants a
    record and repeats a query learns something new from the order, so for him the repeat counts.
    """
    parts = (normalised, own_filter, "" if data_version is None else str(data_version))
    raw = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"secure_embed/query/v1\x00" + b"".join(struct.pack(">I", len(r)) + r for r in raw)
