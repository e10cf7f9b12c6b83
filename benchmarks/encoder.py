"""What an encoder costs to start, to hold and to use: one JSON object on stdout.

    python benchmarks/encoder.py [--model all-minilm-l6-v2] [--folder FOLDER] [--dtype float32] [--threads 2]

Each run is one fresh process, since start and memory are its own; the texts are generated, about 300 characters each.
"""

import argparse
import json
import os
import platform
import random
import resource
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

WORDS = """
patient claim letter branch account heart fever invoice complaint visit doctor nurse payment delay refund dose
blood pressure transfer statement record allergy surgery follow appointment mortgage interest contract reported
denied improved worsened requested received without after before during because although again twice daily
""".split()  # noqa: SIM905 - forty quoted words read worse


def texts(count: int, *, seed: int = 1, characters: int = 300) -> list[str]:
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        text = ""
        while len(text) < characters + rng.randint(-60, 60):
            text += rng.choice(WORDS) + rng.choice([" ", " ", " ", ", ", ". "])
        made.append(text)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="all-minilm-l6-v2")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--documents", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    arguments = parser.parse_args()

    begun = time.perf_counter()
    from secure_embed.embed import embedded_model_folder, load_encoder, manifest, verify_model

    chosen = manifest(arguments.model)
    folder = arguments.folder or embedded_model_folder()
    verifying = time.perf_counter()
    verify_model(folder, chosen)
    verified = time.perf_counter()
    encoder = load_encoder(chosen, folder, dtype=arguments.dtype, threads=arguments.threads)
    encoder.encode_query("the first vector")
    first = time.perf_counter()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rates = []
    for round_ in range(3):
        documents = texts(arguments.documents, seed=round_)
        start = time.perf_counter()
        encoder.encode_documents(documents)
        rates.append(arguments.documents / (time.perf_counter() - start))
    latencies = []
    for query in texts(arguments.queries, seed=9, characters=60):
        start = time.perf_counter()
        encoder.encode_query(query)
        latencies.append((time.perf_counter() - start) * 1e3)
    json.dump(
        {
            "command": " ".join(["python", *sys.argv]),
            "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
            "versions": {p: version(p) for p in ("torch", "transformers", "sentence-transformers", "tokenizers")},
            "verify_s": round(verified - verifying, 2),
            "first_vector_s": round(first - begun - (verified - verifying), 2),
            "documents_per_s": {"median": round(statistics.median(rates), 1), "all": [round(r, 1) for r in rates]},
            "query_ms": {
                "p50": round(statistics.median(latencies), 1),
                "p95": round(sorted(latencies)[int(len(latencies) * 0.95)], 1),
            },
            "resident_mib": {
                "after_first_vector": round(resident / 1024),
                "most": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            },
        },
        sys.stdout,
        indent=2,
    )
    print()


if __name__ == "__main__":
    main()
