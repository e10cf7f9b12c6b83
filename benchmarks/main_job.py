"""The main job on both sides in one run: ingest, cold start, query, memory and disk, as ratios to an unprotected twin.

    python benchmarks/main_job.py [--records 20000] [--batch 200] [--queries 100] [--rounds 5] [--out FILE.json]
    python benchmarks/main_job.py --quick

One side is the real service: TLS and HTTP on loopback, a token checked and a policy decided for each call, budgets
counted, two entries of the audit log made durable before each answer, everything stored sealed. The other
(plain_baseline.py) is a process at the end of a pipe that has none of this. So the ratios are an upper bound of what
protection costs: they also hold the network and the HTTP stack that any service has.

Both get the same batches and the same questions, one after the other and by turns first, so that what else the
machine does hits both. It does not hit both alike: threads that wait by spinning, OpenMP's default and so the plain
side's, lose a multiple when a third program takes a core. The result says which share of the cores other programs had;
repeat a run that was not quiet.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from main_job_machine import OthersShare, machine, medium_of, quantile, rounded, spread, versions
from main_job_picture import draw
from main_job_sides import COLLECTION, Plain, SecureEmbed, hits_max

from secure_embed.cli.demo import corpus
from secure_embed.cli.demo.corpus import DemoRecord

REPOSITORY = Path(__file__).parents[1]
SETTING = (
    "secure_embed: `secure-embed serve` over TLS and HTTP on loopback; token check, policy, budgets, audit log durable "
    "before each answer, sealing. plain: a process at the end of a pipe with none of this. What any HTTP service costs "
    "is therefore in the ratios too: they are an upper bound of what protection costs."
)
seed_of_questions = 7  # another than the stored records', so that no question is a stored text
words_in_question = 12
corpus_records_min = 1_200  # as the generator wants it
warming_queries = 5
encoder_samples = 25  # batches that are also embedded alone
others_share_max = 0.05
tie = 0.001  # scores nearer than this count as equal: vectors are sealed as float16, and texts of one kind are close


def main() -> None:
    given = arguments()
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="main-job-") as made:
        result = run(given, Path(made))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(rounded(result), indent=2) + "\n", encoding="utf-8")
    picture = given.out.with_suffix(".png")
    draw(result, picture)
    print(json.dumps(rounded(result["ratios"]), indent=2))
    print(f"{given.out}\n{picture}", file=sys.stderr)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000, help="at least 1,200")
    parser.add_argument("--batch", type=int, default=200, help="records in one ingest call and one transaction")
    parser.add_argument("--queries", type=int, default=100, help="in each round")
    parser.add_argument("--rounds", type=int, default=5, help="cold starts of each side, at least 2")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each side's encoder")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of the model's arithmetic, on both sides; a new deployment takes bfloat16 where the processor has it",
    )
    parser.add_argument(
        "--plain-waits",
        choices=["default", "passive"],
        default="default",
        help="how the plain side's OpenMP threads wait; the service's wait passively",
    )
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build", help="on the medium to measure")
    parser.add_argument(
        "--out", type=Path, help="default: benchmarks/results/main_job.json; the picture goes beside it"
    )
    parser.add_argument("--quick", action="store_true", help="1,200 records, to see that it runs; goes to build/")
    given = parser.parse_args()
    if given.quick:
        given.records, given.batch, given.queries, given.rounds = 1_200, 100, 20, 2
    # Fewer the generator does not make, and below 1,000 the standard profile answers nobody here.
    if given.records < corpus_records_min or given.rounds < 2:
        parser.error("at least 1,200 records and 2 rounds")
    if given.out is None:
        given.out = REPOSITORY / ("build/main_job_quick.json" if given.quick else "benchmarks/results/main_job.json")
    return given


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    began, load = time.time(), os.getloadavg()
    medium = medium_of(folder)
    round_questions = 1 + warming_queries + given.queries
    records, questions = texts(folder, given.records, given.rounds * round_questions)
    ours = SecureEmbed(folder / "deployment", records=len(records), threads=given.threads, dtype=given.dtype)
    plain = Plain(
        folder / "plain", threads=given.threads, dtype=given.dtype, waits_passively=given.plain_waits == "passive"
    )
    others = OthersShare()
    try:
        ingest = measure_ingest(ours, plain, records, given.batch)
        after_ingest = memory(ours, plain)
        stop(ours, plain)
        share = {"ingest": others.since_last()}
        disk = measure_disk(ours, plain, len(records))
        rounds = []
        for number in range(given.rounds):
            rounds.append(measure_round(ours, plain, number, list(islice(questions, round_questions))))
            say(f"round {number + 1} of {given.rounds} done")
    finally:
        stop(ours, plain)
    share["rounds"] = others.since_last()
    if max(share.values()) > others_share_max:
        say(f"other programs took {max(share.values()):.0%} of the cores: repeat this on a quiet machine")
    figures = {
        "ingest": ingest,
        "cold_start": cold_start(rounds),
        "query": queries(rounds, ours.limited),
        "memory": memory_figures(after_ingest, rounds),
        "disk": disk,
    }
    return {
        "command": " ".join(["python", *sys.argv]),
        "setting": SETTING,
        "machine": machine(medium),
        "versions": versions(),
        "load_average": {"begin": load, "end": os.getloadavg()},
        "cores_taken_by_others": share,
        "seconds": time.time() - began,
        "parameters": {
            n: getattr(given, n)
            for n in ("records", "batch", "queries", "rounds", "threads", "dtype", "plain_waits", "quick")
        },
        "ratios": ratios(figures),
        **figures,
    }


def texts(folder: Path, count: int, asked: int) -> tuple[list[DemoRecord], Iterator[str]]:
    """Records to store, and questions: twelve words from the middle of a record that is not stored, each put once."""
    corpus.write(folder / "corpus", records=count)
    corpus.write(folder / "others", records=max(asked * 2, corpus_records_min), seed=seed_of_questions)
    stored = corpus.load(COLLECTION, root=folder / "corpus").records
    questions = {}
    for record in corpus.load(COLLECTION, root=folder / "others").records:
        words = record.text.split()
        start = max(0, (len(words) - words_in_question) // 2)
        questions[" ".join(words[start : start + words_in_question])] = None
    assert len(questions) >= asked
    return list(stored), iter(questions)


def in_turn(number: int, *sides: Any) -> Sequence[Any]:
    return sides if number % 2 == 0 else sides[::-1]


def stop(*sides: Any) -> None:
    for side in sides:
        side.stop()


# --- ingest --------------------------------------------------------------------------------------------------------


def measure_ingest(ours: SecureEmbed, plain: Plain, records: Sequence[DemoRecord], batch: int) -> dict[str, Any]:
    ours.start()
    plain.start()
    ours.create_collection()
    encoder = ours.encoder()
    parts = [records[start : start + batch] for start in range(0, len(records), batch)]
    taken: dict[Any, list[float]] = {ours: [], plain: []}
    plain_encode: list[float] = []
    alone: dict[int, float] = {}
    step = max(1, len(parts) // encoder_samples)
    for number, part in enumerate(parts):
        for side in in_turn(number, ours, plain):
            seconds, encode = side.ingest(number, part)
            taken[side].append(seconds)
            if encode is not None:
                plain_encode.append(encode)
        if number % step == step // 2:
            alone[number] = embed_alone(encoder, part)
            say(
                f"{(number + 1) * batch} records, {taken[ours][-1]:.2f} s and {taken[plain][-1]:.2f} s for the last {batch}"
            )
    return ingest_figures(parts, taken[ours], taken[plain], plain_encode, alone)


def embed_alone(encoder: Any, part: Sequence[DemoRecord]) -> float:
    """Seconds of what the service asks of its encoder for a batch."""
    began = time.perf_counter()
    batch = [record.text for record in part]
    encoder.encode_documents(batch)
    encoder.truncated(batch)
    return time.perf_counter() - began


def ingest_figures(
    parts: Sequence[Sequence[DemoRecord]],
    ours: Sequence[float],
    plain: Sequence[float],
    plain_encode: Sequence[float],
    alone: dict[int, float],
) -> dict[str, Any]:
    """Milliseconds are of one record. What is not embedding is the batch's time less the encoder's for the same batch."""
    sizes = [len(part) for part in parts]
    count = sum(sizes)

    def each(seconds: Sequence[float], of: Sequence[int] = sizes) -> list[float]:
        return [1_000 * s / n for s, n in zip(seconds, of, strict=True)]

    sampled = sorted(alone)
    rest = each([ours[n] - alone[n] for n in sampled], [sizes[n] for n in sampled])
    plain_rest = each([p - e for p, e in zip(plain, plain_encode, strict=True)])
    ms, plain_ms, encode = each(ours), each(plain), each([alone[n] for n in sampled], [sizes[n] for n in sampled])
    return {
        "batches": len(parts),
        "secure_embed": {
            "seconds": sum(ours),
            "records_per_s": count / sum(ours),
            "ms_per_record": spread(ms),
            "embedding_alone_ms": spread(encode),
            "all_but_embedding_ms": spread(rest),
        },
        "plain": {
            "seconds": sum(plain),
            "records_per_s": count / sum(plain),
            "ms_per_record": spread(plain_ms),
            "embedding_alone_ms": spread(each(plain_encode)),
            "all_but_embedding_ms": spread(plain_rest),
            "embedding_share": sum(plain_encode) / sum(plain),
        },
        "ratio_of_totals": sum(ours) / sum(plain),
        "ratio_by_batch": spread([a / b for a, b in zip(ours, plain, strict=True)]),
        "series_ms_per_record": {"secure_embed": ms, "plain": plain_ms},
    }


# --- cold start and queries ----------------------------------------------------------------------------------------


def measure_round(ours: SecureEmbed, plain: Plain, number: int, questions: Sequence[str]) -> dict[str, Any]:
    """Both sides from the start of the process to the first answer, then the same questions to both."""
    stop(ours, plain)
    first, *others = questions
    cold = {}
    for side in in_turn(number, ours, plain):
        began = side.start()
        side.query(first)
        cold[name(side)] = time.perf_counter() - began
    loaded = memory(ours, plain)
    seconds: dict[str, list[float]] = {"secure_embed": [], "plain": [], "plain_encode": []}
    agreed = []
    for at, question in enumerate(others):
        answers = {}
        for side in in_turn(at, ours, plain):
            taken, answers[name(side)] = side.query(question)
            if at >= warming_queries:
                seconds[name(side)].append(taken)
        if at >= warming_queries:
            seconds["plain_encode"].append(plain.last_encode_s)
            agreed.append(agreement(plain, question, answers["secure_embed"], answers["plain"]))
    return {
        "cold_s": cold,
        "ready_s": ours.ready_s,
        "loaded": loaded,
        "ms": {side: [1_000 * s for s in taken] for side, taken in seconds.items()},
        "agreed": agreed,
        "queried": memory(ours, plain),
    }


def name(side: Any) -> str:
    return "secure_embed" if isinstance(side, SecureEmbed) else "plain"


def agreement(plain: Plain, question: str, ours: Sequence[str], exact: Sequence[str]) -> tuple[float, float, int]:
    """Our hits among the exact ten, the same with ties counted as hits, and how many hits we gave."""
    last = min(plain.last_scores)
    scores = plain.scores(question, ours)
    return (
        len(set(ours) & set(exact)) / hits_max,
        sum(score >= last - tie for score in scores) / hits_max,
        len(ours),
    )


def cold_start(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ours, plain = ([r["cold_s"][side] for r in rounds] for side in ("secure_embed", "plain"))
    return {
        "secure_embed_s": spread(ours),
        "plain_s": spread(plain),
        "secure_embed_ready_s": spread([r["ready_s"] for r in rounds]),
        "ratio": spread([a / b for a, b in zip(ours, plain, strict=True)]),
        "note": "start of the process to the first answer, files in the page cache; the service is polled every 0.1 s "
        "until it is ready, and its TLS handshake counts",
    }


def queries(rounds: Sequence[dict[str, Any]], limited: int) -> dict[str, Any]:
    pooled = {side: [ms for r in rounds for ms in r["ms"][side]] for side in ("secure_embed", "plain", "plain_encode")}
    percentiles = {side: {"p50_ms": quantile(ms, 0.5), "p95_ms": quantile(ms, 0.95)} for side, ms in pooled.items()}
    by_round = [
        {
            side: {"p50_ms": quantile(r["ms"][side], 0.5), "p95_ms": quantile(r["ms"][side], 0.95)}
            for side in ("secure_embed", "plain")
        }
        for r in rounds
    ]
    agreed = [one for r in rounds for one in r["agreed"]]
    return {
        "queries": len(agreed),
        **percentiles,
        "by_round": by_round,
        "ratio_p50": percentiles["secure_embed"]["p50_ms"] / percentiles["plain"]["p50_ms"],
        "ratio_p95": percentiles["secure_embed"]["p95_ms"] / percentiles["plain"]["p95_ms"],
        "ratio_by_query": spread([a / b for a, b in zip(pooled["secure_embed"], pooled["plain"], strict=True)]),
        "added_ms": spread([a - b for a, b in zip(pooled["secure_embed"], pooled["plain"], strict=True)]),
        "answers": {
            "overlap_at_10": statistics.mean(one[0] for one in agreed),
            "overlap_at_10_ties_counted": statistics.mean(one[1] for one in agreed),
            "tie": tie,
            "hits_mean": statistics.mean(one[2] for one in agreed),
            "limited_by_risk_profile": limited,
        },
    }


# --- memory and disk -----------------------------------------------------------------------------------------------


def memory(ours: SecureEmbed, plain: Plain) -> dict[str, dict[str, float]]:
    return {"secure_embed": ours.memory(), "plain": plain.memory()}


def memory_figures(after_ingest: dict[str, dict[str, float]], rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """MiB of the whole process, model and libraries included."""
    figures: dict[str, Any] = {"after_ingest": after_ingest}
    for moment, key in (("after_load", "loaded"), ("after_queries", "queried")):
        figures[moment] = {
            side: {what: spread([r[key][side][what] for r in rounds]) for what in rounds[0][key][side]}
            for side in ("secure_embed", "plain")
        }
    return figures


def measure_disk(ours: SecureEmbed, plain: Plain, records: int) -> dict[str, Any]:
    folders, baseline = ours.disk(), plain.disk()
    return {
        "when": "after ingest, both processes ended",
        "secure_embed_bytes": folders,
        "plain_bytes": baseline,
        "secure_embed_bytes_per_record": sum(folders.values()) / records,
        "plain_bytes_per_record": baseline / records,
    }


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """secure_embed / plain; 1 is no cost."""
    ingest, loaded = figures["ingest"], figures["memory"]["after_load"]
    peak, disk = figures["memory"]["after_ingest"], figures["disk"]
    return {
        "ingest": ingest["ratio_by_batch"]["median"],
        "ingest_embedding_alone": ingest["secure_embed"]["embedding_alone_ms"]["median"]
        / ingest["plain"]["embedding_alone_ms"]["median"],
        "ingest_all_but_embedding": ingest["secure_embed"]["all_but_embedding_ms"]["median"]
        / ingest["plain"]["all_but_embedding_ms"]["median"],
        "cold_start": figures["cold_start"]["ratio"]["median"],
        "query_p50": figures["query"]["ratio_p50"],
        "query_p95": figures["query"]["ratio_p95"],
        "memory_after_load": loaded["secure_embed"]["rss_mib"]["median"] / loaded["plain"]["rss_mib"]["median"],
        "memory_peak_of_ingest": peak["secure_embed"]["peak_mib"] / peak["plain"]["peak_mib"],
        "disk": disk["secure_embed_bytes_per_record"] / disk["plain_bytes_per_record"],
    }


if __name__ == "__main__":
    main()
