"""One measurement in a process of its own, with Django set up: ``python -m benchmarks.measure queue rq_fork …``.

``benchmarks/suite.py`` starts it; the figures go into a file as JSON, or a sentence that says why there are none.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path

from benchmarks.waiting import Unusable


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    kinds = parser.add_subparsers(dest="kind", required=True)
    queue = kinds.add_parser("queue")
    queue.add_argument("name")
    for number in ("--workers", "--starts", "--drain", "--rounds"):
        queue.add_argument(number, type=int, required=True)
    ticks = kinds.add_parser("ticks")
    ticks.add_argument("name")
    ticks.add_argument("--most", type=int, required=True)
    memory = kinds.add_parser("memory")
    memory.add_argument("--seconds", type=float, required=True)
    downloads = kinds.add_parser("downloads")
    downloads.add_argument("--seconds", type=float, required=True)
    downloads.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()

    import django

    django.setup()
    # Only what is measured is loaded.
    try:
        match options.kind:
            case "queue":
                from benchmarks import queues as module
            case "ticks":
                from benchmarks import ticks as module  # type: ignore[no-redef]
            case "memory":
                from benchmarks import memory as module  # type: ignore[no-redef]
            case "downloads":
                from benchmarks import downloads as module  # type: ignore[no-redef]
        found = {"figures": module.measure(options)}
    except Unusable as error:
        found = {"problem": str(error)}  # type: ignore[dict-item]
    except Exception as error:
        traceback.print_exc()
        found = {"problem": f"{type(error).__name__}: {error}".splitlines()[0]}  # type: ignore[dict-item]
    options.out.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
