"""What the processes of runs use, by psutil: the tree below each supervisor, CPU and memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psutil

from scheduler.supervisor import processes

LISTED_AT_MOST = 100


@dataclass(slots=True)
class Sampler:
    """Samples process trees; it remembers the processes, since CPU use is measured between two samples."""

    _known: dict[tuple[int, int], psutil.Process] = field(default_factory=dict)

    def sample(self, supervisors: list[int]) -> dict[int, dict[str, Any]]:
        """supervisor's pid -> cpu_percent, memory_bytes and the processes of its tree (itself left out)."""
        everything = processes.everything()
        known: dict[tuple[int, int], psutil.Process] = {}
        samples: dict[int, dict[str, Any]] = {}
        for supervisor in supervisors:
            rows = []
            for process in processes.descendants(supervisor, everything):
                key = (process.pid, process.start_ticks)
                try:
                    handle = known[key] = self._known.get(key) or psutil.Process(process.pid)
                    rows.append(_row(process, handle))
                except psutil.Error:
                    continue  # it has just ended
            samples[supervisor] = {
                "cpu_percent": sum(row["cpu_percent"] for row in rows),
                "memory_bytes": sum(row["memory_bytes"] for row in rows),
                "processes": rows[:LISTED_AT_MOST],
            }
        self._known = known
        return samples


def _row(process: processes.Process, handle: psutil.Process) -> dict[str, Any]:
    with handle.oneshot():
        return {
            "pid": process.pid,
            "parent": process.parent,
            # Its own name, never its command line: arguments of strangers may hold secrets.
            "name": handle.name()[:100],
            "cpu_percent": handle.cpu_percent(None),
            "memory_bytes": handle.memory_info().rss,
        }
