"""Start latency and drained tasks a second of one system."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.systems import SYSTEMS, demand
from benchmarks.waiting import Processes, wait_until

if TYPE_CHECKING:
    import argparse

WARM_UPS = 4
SETTLE_SECONDS = 0.05


def measure(options: argparse.Namespace, figures: dict[str, Any]) -> None:
    """All figures of one system, of one start of its workers, into ``figures``. Raises Unusable."""
    entry = SYSTEMS[options.name]
    demand(entry)
    folder = Path(os.environ["SCHEDULER_VAR"])
    processes = Processes(folder / "workers.log")
    system = entry.kind(options.workers, folder / "results", processes)
    system.results.touch()
    figures |= {"start_ms": [], "query_ms": [], "drained_per_s": []}
    put = 0
    try:
        system.start()
        for number in range(WARM_UPS + options.starts):
            handed_over = time.clock_gettime(time.CLOCK_MONOTONIC)
            system.put(1)
            put += 1
            wait_until(lambda: len(lines(system.results)) == put, "a task has run", pause=0.002)  # noqa: B023
            wait_until(lambda: system.finished() == put, "a task is over")  # noqa: B023
            if number < WARM_UPS:
                time.sleep(0.5)  # what is kept ready for later tasks comes up meanwhile
                continue
            time.sleep(SETTLE_SECONDS)
            first, queried = lines(system.results)[-1]
            figures["start_ms"].append((first - handed_over) * 1000)
            figures["query_ms"].append((queried - handed_over) * 1000)
        for _ in range(options.rounds):
            begin = time.monotonic()
            system.put(options.drain)
            put += options.drain
            if system.atomic:
                begin = time.monotonic()
            wait_until(lambda: system.finished() == put, "all tasks are over", pause=0.01)  # noqa: B023
            figures["drained_per_s"].append(options.drain / (time.monotonic() - begin))
            time.sleep(1)
        system.confirm()
    finally:
        processes.end()


def lines(path: Path) -> list[tuple[float, float]]:
    """What the tasks have noted; a line that is being written does not count yet."""
    found = []
    for line in path.read_text(encoding="ascii").splitlines(keepends=True):
        if line.endswith("\n"):
            first, queried = line.split()
            found.append((float(first), float(queried)))
    return found
