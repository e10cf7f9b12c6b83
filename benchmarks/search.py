"""A query on sealed vectors beside exact search on plain ones, by turns: time, recall, memory, start, callers, peers.

    OMP_NUM_THREADS=1 python benchmarks/search.py [--only easy,hard,...] [--folder DIR [--keep]] [--beir FOLDER ...]

Every goal is a ratio of one run. Sections that were asked for take their place in the result; the others stay as they
were measured, each with its own machine, versions and command. ``--quick`` shows in a minute that all of it works.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before NumPy and FAISS load
    os.environ.setdefault(variable, "1")

from main_job_machine import OthersShare, machine, rounded, versions  # noqa: E402
from search_result import SECTIONS, merged  # noqa: E402
from search_sections import Sizes, beside_flat, concurrent, filtered  # noqa: E402

repository = Path(__file__).parents[1]
quick = Sizes(
    records=8_000, million=20_000, turns=3, each=5, recall_queries=20, peer_records=2_000, paragraphs=1_500, rounds=2
)


def measured(section: str, sizes: Sizes, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    if section in ("easy", "hard", "million"):
        return beside_flat(section, sizes, folder)
    if section == "cold":
        from search_cold import cold

        return cold(sizes.data("easy"), folder, sizes.rounds)
    if section == "memory":
        from search_cold import memory

        return memory(sizes.data("easy"), folder)
    if section == "quality":
        from search_quality import quality

        return quality(asked.beir, sizes, folder)
    if section == "peers":
        from search_peers import peers

        return peers(sizes, folder, python=asked.peers_python, only=asked.peers)
    assert section in ("filtered", "concurrent")
    return (filtered if section == "filtered" else concurrent)(sizes, folder)


def run(sections: Sequence[str], sizes: Sizes, folder: Path, asked: argparse.Namespace) -> None:
    for section in sections:
        print(f"==> {section}", file=sys.stderr, flush=True)
        others, began = OthersShare(), time.perf_counter()
        figures = measured(section, sizes, folder, asked)
        context = {
            "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "command": "OMP_NUM_THREADS=1 python benchmarks/search.py " + " ".join(sys.argv[1:]),
            "seconds": time.perf_counter() - began,
            "cores_taken_by_others": others.since_last(),
            "machine": machine({}),
            "versions": versions(),
        }
        before = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
        result = merged(before, {section: rounded(context | figures)})
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(json.dumps({section: result["sections"][section]}, indent=1), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works; writes to build/")
    parser.add_argument("--records", type=int, default=None, help="instead of 200,000")
    parser.add_argument("--turns", type=int, default=None, help="instead of 7")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where collections are made, on the medium to measure"
    )
    parser.add_argument("--keep", action="store_true", help="leave them there, for the next run; needs --folder")
    parser.add_argument("--beir", type=Path, action="append", default=[], help="a set with judgements, BEIR's layout")
    parser.add_argument("--paragraphs", type=int, default=None, help="real text without judgements, instead of 40,000")
    parser.add_argument("--peer-records", type=int, default=None, help="instead of 50,000")
    parser.add_argument("--peers", default="", help="some of the peers; default: all that are installed")
    parser.add_argument("--peers-python", type=Path, default=Path(sys.executable), help="an environment that has them")
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    if unknown := set(asked.only.split(",")) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    if asked.keep and asked.folder is None:
        parser.error("--keep needs --folder")
    if asked.out is None:
        asked.out = repository / ("build/search.json" if asked.quick else "benchmarks/results/search.json")
    return asked


def main() -> None:
    asked = arguments()
    sizes = quick if asked.quick else Sizes()
    given = ("records", "turns", "paragraphs", "peer_records")
    sizes = Sizes(**{**vars(sizes), **{name: value for name in given if (value := getattr(asked, name)) is not None}})
    sections = [name for name in SECTIONS if name in asked.only.split(",")]
    if asked.keep:
        asked.folder.mkdir(parents=True, exist_ok=True)
        run(sections, sizes, asked.folder, asked)
    else:
        with tempfile.TemporaryDirectory(dir=asked.folder) as made:
            Path(made).chmod(0o711)  # PostgreSQL runs as another user
            run(sections, sizes, Path(made), asked)
    from search_picture import draw

    result = json.loads(asked.out.read_text(encoding="utf-8"))
    draw(result, asked.out.with_suffix(".png"))
    for name, one in result["against_goals"].items():
        print(
            f"{'met   ' if one['met'] else 'missed'} {name}: {one['figure']:g}, goal {one['goal']:g}", file=sys.stderr
        )


if __name__ == "__main__":
    main()
