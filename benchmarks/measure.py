"""One measurement in a process of its own, with Django set up: ``python -m benchmarks.measure queues rq_fork …``.

``benchmarks/suite.py`` starts it; the figures go into a file as JSON, with a sentence that says why some are missing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from benchmarks.waiting import Unusable


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    kinds = parser.add_subparsers(dest="module", required=True)
    queue = kinds.add_parser("queues")
    queue.add_argument("name")
    for number in ("--workers", "--starts", "--drain", "--rounds"):
        queue.add_argument(number, type=int, required=True)
    ticks = kinds.add_parser("ticks")
    ticks.add_argument("name")
    ticks.add_argument("--most", type=int, required=True)
    memory = kinds.add_parser("memory")
    memory.add_argument("--seconds", type=float, required=True)
    overdue = kinds.add_parser("overdue")
    overdue.add_argument("name")
    overdue.add_argument("--seconds", type=float, required=True)
    downloads = kinds.add_parser("downloads")
    downloads.add_argument("--seconds", type=float, required=True)
    downloads.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()

    import django

    django.setup()
    found: dict[str, Any] = {"figures": {}}
    try:
        # Only what is measured is loaded.
        module = importlib.import_module(f"benchmarks.{options.module}")
        module.measure(options, found["figures"])
    except Unusable as error:
        found["problem"] = str(error)
    except KeyboardInterrupt:
        found["problem"] = "it took too long."
    except Exception as error:
        traceback.print_exc()
        found["problem"] = f"{type(error).__name__}: {error}".splitlines()[0]
    options.out.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
