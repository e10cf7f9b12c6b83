"""Whatever is sent, the answer is a 4xx problem with a stable code, it stands in the log, and nothing is half written."""

import orjson
import pytest

pytestmark = pytest.mark.model

GOOD = {"id": "a", "text": "a text", "attributes": {"department": "cards", "sensitivity": 1}}
RECORDS = "/v1/collections/complaints/records"
QUERY = "/v1/collections/complaints/query"


def batch(*records):
    return orjson.dumps({"records": list(records)})


CASES = [
    ("malformed JSON", RECORDS, b'{"records": [', 400, "malformed_json"),
    ("not UTF-8", RECORDS, b'{"records": ["\xff\xfe"]}', 400, "malformed_json"),
    ("NaN", QUERY, b'{"text": "x", "k": NaN}', 400, "malformed_json"),
    ("Infinity", QUERY, b'{"text": "x", "k": Infinity}', 400, "malformed_json"),
    ("deep nesting", QUERY, b"[" * 100_000, 400, "malformed_json"),
    ("deep objects", QUERY, b'{"filter":' * 2_000 + b"1" + b"}" * 2_000, 400, "malformed_json"),
    ("lone surrogate", RECORDS, b'{"records": [{"id": "\\ud800", "text": "x"}]}', 400, "malformed_json"),
    ("no body", QUERY, b"", 422, "invalid_request"),
    ("wrong type", QUERY, b'{"text": 5}', 422, "invalid_request"),
    ("number as text", QUERY, b'{"text": "x", "k": "10"}', 422, "invalid_request"),
    ("unknown field", QUERY, b'{"text": "x", "Anna Muster": 1}', 422, "invalid_request"),
    ("an array", QUERY, b"[]", 422, "invalid_request"),
    ("null", QUERY, b"null", 422, "invalid_request"),
    ("empty query", QUERY, b'{"text": ""}', 422, "invalid_request"),
    ("blank query", QUERY, b'{"text": " \\n "}', 422, "text_invalid"),
    ("long query", QUERY, orjson.dumps({"text": "x" * 9_000}), 422, "invalid_request"),
    ("k of 0", QUERY, b'{"text": "x", "k": 0}', 422, "invalid_request"),
    ("k of 11", QUERY, b'{"text": "x", "k": 11}', 422, "k_too_large"),
    ("a query vector", QUERY, b'{"text": "x", "vector": [0.1, 0.2]}', 403, "query_by_vector_refused"),
    ("no records", RECORDS, batch(), 422, "invalid_request"),
    ("empty text", RECORDS, batch(GOOD, {"id": "b", "text": ""}), 422, "text_invalid"),
    ("blank text", RECORDS, batch(GOOD, {"id": "b", "text": " \t"}), 422, "text_invalid"),
    ("1 MiB text", RECORDS, batch(GOOD, {"id": "b", "text": "x" * 2**20}), 422, "text_invalid"),
    ("empty id", RECORDS, batch(GOOD, {"id": "", "text": "x"}), 422, "record_id_invalid"),
    ("long id", RECORDS, batch(GOOD, {"id": "i" * 513, "text": "x"}), 422, "record_id_invalid"),
    ("an id that no path can name", RECORDS, batch(GOOD, {"id": "..", "text": "x"}), 422, "record_id_invalid"),
    ("duplicate ids", RECORDS, batch(GOOD, GOOD), 422, "duplicate_ids"),
    (
        "undeclared attribute",
        RECORDS,
        batch(GOOD, {"id": "b", "text": "x", "attributes": {"ward": "7"}}),
        422,
        "attribute_undeclared",
    ),
    (
        "attribute type",
        RECORDS,
        batch(GOOD, {"id": "b", "text": "x", "attributes": {"sensitivity": "1"}}),
        422,
        "attribute_type",
    ),
    (
        "boolean as long",
        RECORDS,
        batch(GOOD, {"id": "b", "text": "x", "attributes": {"sensitivity": True}}),
        422,
        "attribute_type",
    ),
    (
        "65-bit number",
        RECORDS,
        b'{"records":[{"id":"b","text":"x","attributes":{"sensitivity":9223372036854775808}}]}',
        422,
        "attributes_invalid",
    ),
    (
        "float attribute",
        RECORDS,
        b'{"records":[{"id":"b","text":"x","attributes":{"sensitivity":1.5}}]}',
        422,
        "invalid_request",
    ),
    ("10,000 records", RECORDS, batch(*({"id": str(n), "text": "x"} for n in range(10_000))), 413, "batch_too_large"),
    ("9 MiB", RECORDS, b" " * (9 * 2**20), 413, "request_too_large"),
    (
        "two forms in a filter",
        QUERY,
        b'{"text":"x","filter":{"attribute":"country","equals":"DE","at_most":1}}',
        422,
        "filter_invalid",
    ),
    ("filter without a form", QUERY, b'{"text":"x","filter":{"attribute":"country"}}', 422, "filter_invalid"),
    (
        "filter on what is not declared",
        QUERY,
        b'{"text":"x","filter":{"attribute":"ward","equals":"7"}}',
        422,
        "filter_invalid",
    ),
    (
        "filter of another type",
        QUERY,
        b'{"text":"x","filter":{"attribute":"country","at_most":3}}',
        422,
        "filter_invalid",
    ),
    (
        "filter of depth 50",
        QUERY,
        b'{"text":"x","filter":' + b'{"none":' * 50 + b'{"attribute":"country","equals":"DE"}' + b"}" * 50 + b"}",
        422,
        "filter_invalid",
    ),
    ("unknown collection", "/v1/collections/nowhere/query", b'{"text":"x"}', 403, "policy_denied"),
    ("collection with a strange name", "/v1/collections/..%2f..%2fetc/query", b'{"text":"x"}', 404, "path_unknown"),
]


@pytest.fixture(scope="module")
def both_rights(house):
    """A caller whom policy lets in everywhere, so that what is refused is refused for its input."""
    return house.token(
        "bad-input",
        ["query", "records:read", "records:write"],
        department="complaints",
        clearance=3,
        purpose="complaint-handling",
    )


@pytest.mark.parametrize(("path", "body", "status", "code"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_bad_input_is_refused_logged_and_without_trace(house, both_rights, path, body, status, code):
    holding = house.deployment.holdings.named("complaints")
    before = (holding.records, holding.data_version)
    size = house.deployment.log.head().size
    answer = house.http.post(path, content=body, headers=both_rights | {"Content-Type": "application/json"})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (holding.records, holding.data_version) == before
    assert "Anna Muster" not in answer.text
    if code != "path_unknown":
        index = int(answer.headers["audit-receipt"].split()[1])
        event = orjson.loads(house.deployment.log.entries(index, 1)[0])
        assert (event["decision"], event["error"]) == ("refused", code)
        assert index >= size


def test_a_stranger_learns_nothing_from_malformed_input(house):
    """Without a token even a broken body is answered with 401."""
    for body in (b"[", b"{}", b'{"text": 5}'):
        answer = house.http.post(QUERY, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (401, "token_missing")


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data", ""])
def test_another_media_type_is_refused(house, both_rights, content_type):
    for path in (RECORDS, QUERY):
        answer = house.http.post(path, content=batch(GOOD), headers=both_rights | {"Content-Type": content_type})
        assert answer.status_code == 422


def test_a_body_without_an_end_is_cut_off(house, both_rights):
    """A chunked body that declares no length is counted while it comes in."""

    def endless():
        for _ in range(100):
            yield b" " * 2**20

    answer = house.http.post(QUERY, content=endless(), headers=both_rights | {"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
