"""Much of something costs no more than it must: statements, descriptors, bytes and tries are counted, never time."""

from __future__ import annotations

import os
import resource
import subprocess
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from scheduler import outputs
from scheduler.executors.local import LocalExecutor
from scheduler.models import ProcessSample, Run, StoreRemoval, Task
from scheduler.poller import PollerDaemon, daemon, reports
from scheduler.poller.ends import Ends
from scheduler.states import Status
from scheduler.supervisor import collect, processes
from scheduler.supervisor.folder import DONE, OUTPUT, STARTED, RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    MakeRun = Callable[..., Run]


@pytest.fixture(autouse=True)
def root(settings: Any, tmp_path: Path) -> Path:
    """Folders of this test's own."""
    settings.SCHEDULER = {**settings.SCHEDULER, "ROOT": tmp_path / "scheduler"}
    outputs.make_root()
    return tmp_path / "scheduler"


# Files


@pytest.mark.parametrize("name", ["x" * 200 + ".csv", "x" * 200, "ü" * 100, "same"])
def test_of_many_files_that_are_called_the_same_no_number_is_tried_twice(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    cut = outputs._cut

    def count(text: str, size: int) -> str:
        nonlocal tries
        tries += 1
        return cut(text, size)

    monkeypatch.setattr(outputs, "_cut", count)
    run = Run(pk=1)
    entries = [{"id": str(uuid.uuid4()), "path": [name], "size": 1, "sha256": "0" * 64} for number in range(500)]
    names = [row.name for row in outputs.rows_of_files(run, {"files": entries}, timezone.now())]
    assert len(set(names)) == 500
    assert max(len(each.encode()) for each in names) <= outputs.NAME_BYTES
    assert " (500)" in names[-1]
    assert tries <= 3 * 500


def test_names_that_are_the_same_once_a_number_is_added_share_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [["x" * 146 + f"{number:04}"] for number in range(100) for _ in range(2)]
    entries = [{"id": str(uuid.uuid4()), "path": path, "size": 1, "sha256": "0" * 64} for path in pairs]
    names = [row.name for row in outputs.rows_of_files(Run(pk=1), {"files": entries}, timezone.now())]
    assert len(set(names)) == 200
    assert names[-1].endswith(" (101)")


def test_of_many_files_that_stay_behind_some_are_named_and_the_others_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "NAMED_AT_MOST", 5)
    folder, store = RunFolder(str(tmp_path / "run")), tmp_path / "store"
    folder.make()
    store.mkdir()
    output = tmp_path / "run" / OUTPUT
    for number in range(20):
        (output / f"link {number}").symlink_to("nowhere")
        (output / f"real {number}").write_text("x")
        os.link(output / f"real {number}", tmp_path / f"other name {number}")
    collect.collect(folder, {"output_files": 15, "output_bytes": 1000, "store": str(store)})
    done = folder.read(DONE)
    assert done is not None
    assert [problem["path"] for problem in done["problems"][1:5]] == [["link 0"], ["link 1"], ["link 10"], ["link 11"]]
    # 20 links and 15 files with two names, and one line for the 5 files over the limit
    assert [problem["why"] for problem in done["problems"] if not problem["path"]] == [
        "5 more files than the 15 that are collected",
        "31 more stayed behind",
    ]


@pytest.mark.django_db
def test_the_files_of_a_deleted_run_are_removed_in_parts(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "REMOVED_AT_ONCE", 3)
    poller = PollerDaemon(LocalExecutor())
    poller.tick(timezone.now())
    run = make_run(host=poller.host.id)
    place = outputs.store_folder(run.uuid)
    place.mkdir(parents=True)
    for number in range(7):
        (place / str(number)).touch()
    run.delete()
    left = []
    for _ in range(3):
        poller.tick(timezone.now())
        left.append(len(list(place.iterdir())) if place.exists() else None)
    assert left == [4, 1, None]
    assert not StoreRemoval.objects.exists()


# Reports


def test_of_an_endless_message_no_more_is_read_than_of_all_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "reports.jsonl", []
    path.write_bytes(b'{"message": "')
    os.truncate(path, 100 * 1024**2)
    pread = os.pread

    def count(descriptor: int, size: int, offset: int) -> bytes:
        asked.append(size)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", count)
    offset, rounds = 0, 0
    while (found := reports.read_reports(str(path), offset)).offset > offset:
        assert not found.messages
        offset, rounds = found.offset, rounds + 1
    assert offset <= reports.ALL_BYTES
    assert sum(asked) <= reports.ALL_BYTES + reports.ROUND_BYTES


# Many runs at once


def test_following_many_supervisors_leaves_half_of_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (5, 5))
    found = Ends()
    with ExitStack() as stack:
        stack.callback(found.close)
        started = [subprocess.Popen(["cat"], stdin=subprocess.PIPE) for _ in range(3)]
        for process in started:
            stack.enter_context(process)
        known = [processes.look_at(process.pid) for process in started]
        followed = [found.follow(each.pid, each.start_ticks) for each in known if each is not None]
        assert followed == [True, True, False]
        started[0].communicate()
        found.drain()
        last = known[-1]
        assert last is not None
        assert found.follow(last.pid, last.start_ticks)


@pytest.mark.django_db
def test_samples_of_many_runs_are_written_by_as_many_statements_as_those_of_one(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    poller = PollerDaemon(LocalExecutor())
    sample = {"cpu_percent": 1.0, "processes": []}
    memory = 70
    monkeypatch.setattr("scheduler.poller.watch.processes.is_alive", lambda _pid, _ticks: True)

    class Sampler:
        def sample(self, supervisors: list[int]) -> dict[int, dict[str, Any]]:
            return {pid: {**sample, "memory_bytes": memory} for pid in supervisors}

    poller.watcher._sampler = Sampler()  # type: ignore[assignment]
    counts = []
    for count in (1, 19):
        for _ in range(count):
            run = make_run(Status.PROCESSING, host=poller.host.id)
            folder = outputs.run_folder(run.uuid)
            folder.make()
            folder.write(STARTED, {"pid": 1_000 + run.pk, "start_ticks": 1})
        runs = list(Run.objects.processing().select_related("task"))
        with CaptureQueriesContext(connection) as captured:
            poller.watcher._sample(runs, timezone.now())
        counts.append(len(captured))
        memory -= 30
    assert counts[0] == counts[1]
    assert ProcessSample.objects.count() == 20
    first = ProcessSample.objects.order_by("run_id").first()
    assert first is not None
    assert (first.memory_bytes, first.memory_peak_bytes) == (40, 70)


class Silent(LocalExecutor):
    """Its launches are answered when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Run] = []
        self.unanswered = 0

    def prepare(self) -> None:
        pass

    def start(self, run: Run) -> None:
        self.started.append(run)
        self.unanswered += 1

    def launches(self) -> int:
        return self.unanswered

    def is_launching(self, run_uuid: uuid.UUID) -> bool:
        return True


@pytest.mark.django_db
def test_of_many_runs_that_may_start_only_some_are_being_launched_at_once(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "LAUNCHES_AT_ONCE", 3)
    executor = Silent()
    poller = PollerDaemon(executor)
    poller.capacity = poller.busy = 100
    poller.tick(timezone.now())
    Task.objects.filter(pk=task.pk).update(max_runs=100)
    task.refresh_from_db()
    for _ in range(8):
        task.start_now(by=None, now=timezone.now())
    poller.tick(timezone.now())
    assert len(executor.started) == 3
    assert poller._pause(poller.busy) == daemon.HELD_BACK_SECONDS
    poller.tick(timezone.now())
    assert len(executor.started) == 3
    executor.unanswered = 1
    poller.tick(timezone.now())
    assert len(executor.started) == 5
    executor.unanswered = 0
    poller.tick(timezone.now())
    assert len(executor.started) == 8
    assert poller._pause(poller.busy) > daemon.HELD_BACK_SECONDS
