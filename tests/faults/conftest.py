"""What the fault suite works with: the world of tests/runs, real pollers whose settings and database a test chooses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.runs.conftest import PROJECT, fresh, starts, wait_until
from tests.runs.conftest import world as world
from tests.servers import in_ci

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scheduler.models import Run
    from scheduler.poller import PollerDaemon
    from tests.runs.conftest import World


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.processes)


def running(world: World, run: Run, *, poller: PollerDaemon | None = None) -> Run:
    """Wait until the program itself has said that it runs, and the row too; the fresh row."""
    world.until(lambda: starts(world, run) and fresh(run).started_at, f"run {run.pk} runs", poller=poller)
    return fresh(run)


def demand(met: bool, what: str) -> None:
    """Skip a case loudly where this machine cannot try it; in CI that is a failure."""
    if met:
        return
    if in_ci():
        pytest.fail(f"*** NOT TRIED, and CI must have it: {what} ***")
    pytest.skip(f"*** NOT TRIED on this machine: {what} ***")


@dataclass(slots=True)
class PollerProcess:
    """A poller of its own process, and what it has said."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self, text: str) -> bool:
        return text in self.log.read_text(errors="replace")


def start_poller(world: World, *options: str, more: dict[str, Any] | None = None, **variables: str) -> PollerProcess:
    """Start ``manage.py poller`` with further keys of SCHEDULER and further environment variables."""
    log = world.folder / f"poller-{len(world.pollers)}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "manage.py"), "poller", *options],
            cwd=world.folder,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
                "SCHEDULER_TESTS_MORE": json.dumps(more or {}),
                **variables,
            },
            stdout=output,
            stderr=output,
        )
    world.pollers.append(process)
    return PollerProcess(process, log)


@pytest.fixture
def small_disk(world: World, settings: Any) -> Iterator[Path]:
    """ROOT on a disk of its own that has 4 MB; no run is started when less than 1 MB of them is free."""
    settings.SCHEDULER = {**settings.SCHEDULER, "FREE_BYTES": 1024**2}
    demand(os.geteuid() == 0, "mounting a small disk needs root")
    root = world.folder / "scheduler"
    root.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0711", "scheduler-tests", str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    demand(mounted.returncode == 0, f"mounting a tmpfs: {mounted.stderr.strip()}")
    yield root
    world.end()
    wait_until(
        lambda: subprocess.run(["umount", str(root)], capture_output=True, check=False).returncode == 0,
        "the small disk is free",
    )
