"""Memory of an idle poller and of running tasks (PSS), and what idleness costs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from django.contrib.auth import get_user_model
from django.utils import timezone

from benchmarks.systems import MANAGE
from benchmarks.waiting import Processes, Unusable, wait_until
from scheduler import outputs
from scheduler.models import Poller, Run, Task
from scheduler.supervisor import folder as protocol

if TYPE_CHECKING:
    import argparse

SETTLE_SECONDS = 4.0
BARE = "import django; django.setup(); print(flush=True); input()"


def measure(options: argparse.Namespace, figures: dict[str, Any]) -> None:
    """MB by name, and % of a core, into ``figures``. Raises Unusable."""
    folder = Path(os.environ["SCHEDULER_VAR"])
    processes = Processes(folder / "workers.log")
    figures |= {"pss_mb": {}, "idle_cpu_percent": {}}
    sizes = figures["pss_mb"]
    try:
        poller = psutil.Process(processes.start([*MANAGE, "poller"]).pid)
        wait_until(lambda: Poller.objects.filter(ended_at=None).exists(), "the poller is up")
        time.sleep(SETTLE_SECONDS)  # the warm process comes up
        everything = tree(poller)
        sizes["poller"] = [pss(poller)]
        sizes["warm_process_and_parked"] = [sum(map(pss, everything)) - sizes["poller"][0]]
        sizes["poller_and_warm"] = [sum(map(pss, everything))]
        sizes["bare_django_setup"] = [bare()]
        before, begin = cpu_seconds(everything), time.monotonic()
        time.sleep(options.seconds)
        used = cpu_seconds(everything) - before
        figures["idle_cpu_percent"]["poller_and_warm"] = [used / (time.monotonic() - begin) * 100]
        for kind in ("warm", "cold"):
            sizes[f"running_task_{kind}"] = running_tasks(folder, poller, cold=kind == "cold")
    finally:
        processes.end()


def running_tasks(folder: Path, poller: psutil.Process, *, cold: bool) -> list[float]:
    """MB of each further running task, its supervisor included: by how much the sum over all processes grows."""
    user = get_user_model().objects.create_superuser(f"stops {'cold' if cold else 'warm'} ones")
    results = folder / f"waiting-{cold}"
    results.touch()
    runs: list[Run] = []
    sums: list[float] = []
    for number in range(4):
        task = Task.objects.create(
            name=f"waits {cold} {number}",
            program_root="benchmarks",
            program_path="one_query_and_wait.py",
            arguments=[str(results)],
            cold_start=cold,
            grace_seconds=1,
        )
        runs.append(task.start_now(by=None, now=timezone.now()))
        wait_until(lambda: len(results.read_text().splitlines()) == len(runs), "the task has run")
        time.sleep(1)
        # A set: what was forked from the warm process is of its tree, too.
        everything = {*tree(poller), *(each for run in runs for each in processes_of(run))}
        sums.append(sum(map(pss, everything)))
    for run in runs:
        run.cancel(by=user, now=timezone.now())
    wait_until(lambda: not Run.objects.unfinished().exists(), "the tasks are stopped")
    return [later - earlier for earlier, later in pairwise(sums)]


def processes_of(run: Run) -> list[psutil.Process]:
    """The run's supervisor and what it has started."""
    started = outputs.run_folder(run.uuid).read(protocol.STARTED)
    if started is None:
        raise Unusable(f"Run {run.pk} is not running.")
    return tree(psutil.Process(started["pid"]))


def tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def pss(process: psutil.Process) -> float:
    """MB of a process, pages that it shares counted in part; 0 when it has ended."""
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def cpu_seconds(everything: list[psutil.Process]) -> float:
    total = 0.0
    for process in everything:
        if process.is_running():
            used = process.cpu_times()
            total += used.user + used.system
    return total


def bare() -> float:
    """MB of a Python with the same site's Django set up, and nothing else."""
    process = subprocess.Popen([sys.executable, "-c", BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    size = pss(psutil.Process(process.pid))
    process.communicate(b"\n")
    return size
