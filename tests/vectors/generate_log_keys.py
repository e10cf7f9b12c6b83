"""Writes log-keys.json beside it: small logs whose signing key was replaced, and what may go wrong with that. As
generate_log.py, from docs/log-format.md alone.

    python tests/vectors/generate_log_keys.py [FOLDER]
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # run as a file: its neighbour has the primitives

from generate_log import ORIGIN, OTHER_SEED, SEED, checkpoint, root, sign, vkey, write

SECOND = hashlib.shake_128(b"secure_embed test vector second log key").digest(32)
THIRD = hashlib.shake_128(b"secure_embed test vector third log key").digest(32)


def event(index: int, action: str, phase: str = "SYSTEM", **members: object) -> bytes:
    stamp = {"v": 1, "time": "2026-01-01T00:00:00.000Z", "time_ms": 1_767_225_600_000 + index}
    whole = stamp | {"action": action, "phase": phase} | members
    return json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def handover(
    before: Sequence[bytes],
    old: bytes,
    new: str,
    key_at: int | None = None,
    *,
    by: bytes | None = None,
    named: str | None = None,
    size: int | None = None,
    origin: str = ORIGIN,
) -> bytes:
    """The entry behind ``before``, by which the key ``old`` hands over to the verifier key ``new``."""
    place = checkpoint(len(before) if size is None else size, root(before), f"{origin}/log-key/v1")
    note = sign(f"{place}{named or vkey(origin, old)}\n{new}\n", origin, by or old)
    return event(len(before), "log.key", handover=note, **({} if key_at is None else {"key_at": key_at}))


def rotated() -> list[bytes]:
    """Two hand-overs: entry 3 from the first key to the second, entry 6 from the second to the third."""
    log = [event(0, "log.start"), event(1, "query", "INTENT", request="a")]
    log.append(event(2, "query", "OUTCOME", request="a", intent=1, decision="allowed"))
    log.append(handover(log, SEED, vkey(seed=SECOND)))
    log.append(event(4, "query", "INTENT", request="b"))
    log.append(event(5, "query", "OUTCOME", request="b", intent=4, decision="allowed"))
    log.append(handover(log, SECOND, vkey(seed=THIRD), 3))
    log.append(event(7, "log.stop", key_at=6))
    return log


def key_vectors() -> list[dict[str, object]]:
    log = rotated()
    one, two, three, other = vkey(), vkey(seed=SECOND), vkey(seed=THIRD), vkey(seed=OTHER_SEED)
    stop = event(7, "log.stop")
    elsewhere = [event(9, "log.start"), *log[1:3]]  # another history of as many entries
    note = json.loads(log[3])["handover"]

    def with_first(entry: bytes) -> list[bytes]:
        return [*log[:3], entry]

    ok = [
        ("no hand-over", [one], log[:3], (SEED,), [[one, 0, None]]),
        (
            "two hand-overs, only the first key known",
            [one],
            log,
            (THIRD,),
            [[one, 0, 3], [two, 3, 6], [three, 6, None]],
        ),
        (
            "two hand-overs, all keys known",
            [one, two, three],
            log,
            (THIRD,),
            [[one, 0, 3], [two, 3, 6], [three, 6, None]],
        ),
        ("two hand-overs, two keys known", [one, two], log, (THIRD,), [[one, 0, 3], [two, 3, 6], [three, 6, None]]),
        ("at the hand-over both keys sign", [one], log[:4], (SECOND, SEED), [[one, 0, 3], [two, 3, None]]),
        ("at the hand-over the new key signs", [one], log[:4], (SECOND,), [[one, 0, 3], [two, 3, None]]),
        ("before a hand-over", [one], log[:6], (SECOND,), [[one, 0, 3], [two, 3, None]]),
    ]
    unsigned = [
        ("at the hand-over only the old key signs", [one], log[:4], SEED),
        ("the end is signed by the key before the last", [one], log, SECOND),
        ("the end is signed by the first key", [one], log, SEED),
        ("the end is signed by a key that nothing names", [one], log, OTHER_SEED),
        ("before the hand-over the new key signs", [one], log[:3], SECOND),
        ("both hand-overs are left out", [one], [*log[:3], stop], THIRD),
    ]
    wrong = [
        ("only a later key is known", [two], log, THIRD),
        ("another key is known", [other], log, THIRD),
        ("keys known in another order", [one, three, two], log, THIRD),
        ("a known key was never handed over to", [one, two, three], log[:6], SECOND),
        ("forged: signed by the new key", [one], with_first(handover(log[:3], SEED, two, by=SECOND)), SECOND),
        ("forged: by a key that was not in force", [one], with_first(handover(log[:3], OTHER_SEED, two)), SECOND),
        (
            "forged: signed by another, and says so",
            [one],
            with_first(handover(log[:3], OTHER_SEED, two, named=one)),
            SECOND,
        ),
        ("changed: another new key", [one], with_first(log[3].replace(two.encode(), other.encode())), OTHER_SEED),
        ("the first is left out", [one], [*log[:3], *[event(3, "log.start")], *log[4:]], THIRD),
        ("replayed from another history", [one], with_first(handover(elsewhere, SEED, two)), SECOND),
        (
            "replayed from a log of another name",
            [one],
            with_first(handover(log[:3], SEED, two, origin="example.com/log")),
            SECOND,
        ),
        ("at a later place", [one], [*log[:3], event(3, "log.start"), log[3]], SECOND),
        ("says another place", [one], with_first(handover(log[:3], SEED, two, size=2)), SECOND),
        ("twice", [one], [*log[:4], event(4, "log.key", key_at=3, handover=note)], SECOND),
        ("to the same key", [one], with_first(handover(log[:3], SEED, one)), SEED),
        ("back to a key that was replaced", [one], [*log[:4], handover(log[:4], SECOND, one, 3)], SEED),
        (
            "to a key of another name",
            [one],
            with_first(handover(log[:3], SEED, vkey("example.com/log", SECOND))),
            SECOND,
        ),
        ("by a key that was replaced", [one], [*log[:4], handover(log[:4], SEED, three, 3)], THIRD),
        ("no note in it", [one], with_first(event(3, "log.key")), SEED),
        ("a number in place of the note", [one], with_first(event(3, "log.key", handover=5)), SEED),
        ("a note that is none", [one], with_first(event(3, "log.key", handover="")), SEED),
        (
            "a checkpoint in place of the note",
            [one],
            with_first(event(3, "log.key", handover=sign(checkpoint(3, root(log[:3]))))),
            SEED,
        ),
        ("the second does not name the first", [one], [*log[:6], handover(log[:6], SECOND, three)], THIRD),
        ("the end names an older hand-over", [one], [*log[:7], event(7, "log.stop", key_at=3)], THIRD),
        ("the end names none", [one], [*log[:7], stop], THIRD),
        ("the start names one that is not there", [one], [event(0, "log.start", key_at=0)], SEED),
    ]
    cases = [(n, k, entries, seeds, "ok", spans) for n, k, entries, seeds, spans in ok]
    cases += [(n, k, entries, (seed,), "note_invalid", None) for n, k, entries, seed in unsigned]
    cases += [(n, k, entries, (seed,), "log_key_mismatch", None) for n, k, entries, seed in wrong]
    return [
        {
            "name": name,
            "vkeys": vkeys,
            "entries": [entry.hex() for entry in entries],
            "checkpoint": cosigned(checkpoint(len(entries), root(entries)), seeds),
            "expect": expect,
        }
        | ({} if spans is None else {"keys": spans})
        for name, vkeys, entries, seeds, expect, spans in cases
    ]


def cosigned(text: str, seeds: Sequence[bytes]) -> str:
    first, *rest = (sign(text, seed=seed) for seed in seeds)
    return first + "".join(note.split("\n\n")[1] for note in rest)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent, {"keys": key_vectors()})
