"""Programs that behave badly. More of them are in tests/runs/test_lifecycle.py and test_faults.py."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.utils import timezone

from scheduler import outputs
from scheduler.models import Poller
from scheduler.states import Reason, Status
from tests.runs.conftest import WORK, fresh, is_alive, starts

from .conftest import running

if TYPE_CHECKING:
    from tests.runs.conftest import World


@pytest.mark.parametrize(
    ("source", "said"),
    [("def f(:\n    pass\n", "SyntaxError"), ("import no_such_module_anywhere", "ModuleNotFoundError")],
    ids=["syntax error", "import error"],
)
def test_a_program_that_cannot_be_loaded_fails_with_its_traceback_in_the_log(
    world: World, source: str, said: str
) -> None:
    run = world.run(source)
    assert (run.status, run.reason, run.exit_code) == (Status.FAILED, Reason.EXIT_CODE, 1)
    assert said in world.log(run)


def test_a_killed_program_is_a_failure_by_a_signal_that_the_scheduler_did_not_send(world: World) -> None:
    run, poller = world.start(world.task("import time; time.sleep(300)")), world.poller()
    world.until(lambda: fresh(run).pid, "it runs", poller=poller)
    os.kill(fresh(run).pid or 0, signal.SIGKILL)
    done = world.finish(run, poller=poller)
    assert (done.status, done.reason, done.signal) == (Status.FAILED, Reason.SIGNAL, signal.SIGKILL)
    assert "SIGKILL" in done.sentence


def test_a_run_goes_on_when_the_account_of_whoever_started_it_is_deleted(world: World) -> None:
    run, poller = world.start(world.task(WORK)), world.poller()
    running(world, run, poller=poller)
    world.owner.delete()
    (world.folder / "go").touch()
    done = world.finish(run, poller=poller)
    assert (done.exit_code, starts(world, run)) == (7, 1)
    assert (done.requested_by, done.requested_by_name) == (None, "olivia")


def test_a_program_that_aborts_leaves_no_core_among_its_files(world: World) -> None:
    run = world.run("import os; open('kept', 'w').write('x'); os.abort()")
    assert (run.reason, run.signal) == (Reason.SIGNAL, signal.SIGABRT)
    assert [file.name for file in run.files.all()] == ["kept"]


def test_a_program_that_is_replaced_while_it_runs_ends_as_what_it_was(world: World) -> None:
    run = world.run(
        """
        import os, sys
        os.rename(__file__, __file__ + ".old")
        open(__file__, "w").write("raise SystemExit(1)")
        sys.exit(7)
        """
    )
    assert run.exit_code == 7


def test_processes_that_fork_others_when_they_are_asked_to_end_are_ended_too(world: World) -> None:
    run = world.run(
        """
        import os, signal, time
        events = os.open(os.environ["FOLDER"] + "/pids", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

        def again(number, frame):
            for _ in range(2):
                if os.fork() == 0:
                    os.setsid()
                    os.write(events, f"{os.getpid()}\\n".encode())
                    time.sleep(300)

        ready, end = os.pipe()
        for _ in range(5):
            if os.fork() == 0:
                os.setsid()
                signal.signal(signal.SIGTERM, again)
                os.write(events, f"{os.getpid()}\\n".encode())
                os.write(end, b"x")
                while True:
                    time.sleep(300)
        for _ in range(5):
            os.read(ready, 1)
        """
    )
    assert run.exit_code == 0
    pids = world.lines("pids")
    assert len(pids) > 5  # they did
    assert [pid for pid in pids if is_alive(int(pid))] == []


def test_a_line_of_many_megabytes_and_bytes_that_are_no_text_are_kept_as_they_are(world: World) -> None:
    run = world.run(
        """
        import os, sys
        with os.fdopen(os.dup(1), "wb") as out:
            out.write(b"x" * 5_000_000)
            out.write(bytes(range(256)))
        """
    )
    assert run.status == Status.COMPLETED
    assert outputs.log_path(run).read_bytes() == b"x" * 5_000_000 + bytes(range(256))


def test_a_clock_that_is_stepped_harms_no_run_that_is_going(world: World) -> None:
    task = world.task(
        """
        import os, sys, time
        while not os.path.exists(os.environ["FOLDER"] + "/go"):
            time.sleep(0.02)
        sys.exit(7)
        """,
        timeout_seconds=600,
    )
    run, poller = world.start(task), world.poller()
    world.until(lambda: fresh(run).started_at, "it runs", poller=poller)
    for step in (timedelta(hours=1), timedelta(hours=-1), timedelta(days=-400), timedelta(days=400)):
        poller.tick(timezone.now() + step)
        assert fresh(run).status == Status.PROCESSING
        assert Poller.objects.filter(pk=poller.row.pk, ended_at=None).exists()
    (world.folder / "go").touch()
    assert world.finish(run, poller=poller).exit_code == 7
