"""Which queries are one query."""

import sys

import pytest

from secure_embed.risk import normalise_query, query_identity


@pytest.mark.parametrize(
    ("one", "other"),
    [("knee pain", "  knee \t pain\n"), ("ﬁbrosis", "fibrosis"), ("e\u0301tat", "\u00e9tat"), ("ＫＮＥＥ", "KNEE"), ("a\u00a0b", "a b"), (" \u3000", "")],
)  # fmt: skip
def test_the_same_text_in_other_bytes_is_one_query(one: str, other: str) -> None:
    assert normalise_query(one) == normalise_query(other)


@pytest.mark.parametrize(("one", "other"), [("knee pain", "Knee pain"), ("knee pain", "kneepain"), ("a b", "a\u200bb")])
def test_what_an_encoder_can_tell_apart_is_two_queries(one: str, other: str) -> None:
    assert normalise_query(one) != normalise_query(other)


def test_normalising_twice_changes_no_code_point() -> None:
    for code_point in range(sys.maxunicode + 1):
        once = normalise_query(f"a {chr(code_point)} b")
        assert normalise_query(once) == once


def test_no_two_queries_share_an_identity() -> None:
    asked = [(t, f, v) for t in ("", "a", "ab", "a0") for f in ("", "a", "b", "0") for v in (None, 0, 1, 10)]
    assert len({query_identity(t, own_filter=f, data_version=v) for t, f, v in asked}) == len(asked)


def test_a_lone_surrogate_has_an_identity_too() -> None:
    assert query_identity("\ud800", own_filter="", data_version=None) != query_identity(
        "?", own_filter="", data_version=None
    )
