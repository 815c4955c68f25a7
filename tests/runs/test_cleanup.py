"""The clean-up command of a task: when it runs, what it gets, and that it runs once."""

from __future__ import annotations

import os
import signal
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from scheduler import outputs
from scheduler.models import RunEvent
from scheduler.states import Reason, Status
from scheduler.supervisor import folder as protocol

from .conftest import fresh, is_alive, supervisor_pid

if TYPE_CHECKING:
    from scheduler.models import Run, Task

    from .conftest import World

CLEANUP = """
    import os, sys
    with open(os.environ["FOLDER"] + "/cleaned", "a") as cleaned:
        words = [os.environ["SCHEDULER_REASON"], os.environ["SCHEDULER_EXIT_CODE"], os.environ["SCHEDULER_SIGNAL"]]
        print(os.environ["SCHEDULER_RUN"], *words, *sys.argv[1:], sep="|", file=cleaned)
    print("cleaned up")
    """
UP = "import time; print('up', flush=True); time.sleep(300)"


@pytest.fixture(params=["cold", "warm"])
def start_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def with_cleanup(world: World, source: str, cleanup: str = CLEANUP, **fields: Any) -> Task:
    (world.programs / "cleanup.py").write_text(textwrap.dedent(cleanup))
    return world.task(source, **{"cleanup_root": "programs", "cleanup_path": "cleanup.py", **fields})


def cleaned(world: World, run: Run) -> list[str]:
    """What its clean-up found, once for each time that it ran."""
    return [line.partition("|")[2] for line in world.lines("cleaned") if line.startswith(str(run.uuid))]


def ended(run: Run) -> list[str]:
    return list(run.events.filter(what=RunEvent.What.CLEANED_UP).values_list("text", flat=True))


@pytest.mark.parametrize(
    ("source", "fields", "found"),
    [
        ("print('x')", {}, "exit_code|0|"),
        ("raise SystemExit(3)", {}, "exit_code|3|"),
        ("import os; os.kill(os.getpid(), 9)", {}, "signal||9"),
        ("import time; time.sleep(300)", {"timeout_seconds": 1}, "timed_out||15"),
    ],
)
def test_it_runs_after_every_end_and_finds_how_it_was(
    world: World, source: str, fields: dict[str, Any], found: str
) -> None:
    task = with_cleanup(world, source, cleanup_arguments=["a b", "$HOME"], **fields)
    run = world.finish(world.start(task), poller=world.poller())
    assert cleaned(world, run) == [f"{found}|a b|$HOME"]
    assert world.log(run).endswith("[scheduler] clean-up\ncleaned up\n")
    assert ended(run) == ["exit code 0"]


def test_it_runs_after_a_stop(world: World) -> None:
    run, poller = world.start(with_cleanup(world, UP)), world.poller()
    world.until(lambda: outputs.log_path(run).exists() and "up" in world.log(run), "it runs", poller=poller)
    fresh(run).cancel(by=world.owner, now=timezone.now())
    run = world.finish(run, poller=poller)
    assert (run.status, cleaned(world, run)) == (Status.CANCELLED, ["stopped_by_user||15"])


def test_it_runs_after_a_run_was_lost_with_the_environment_of_the_program(world: World) -> None:
    run, poller = world.start(with_cleanup(world, UP)), world.poller()
    world.until(lambda: outputs.log_path(run).exists() and "up" in world.log(run), "it runs", poller=poller)
    os.kill(supervisor_pid(run), signal.SIGKILL)
    run = world.finish(run, poller=poller)
    assert (run.reason, cleaned(world, run), ended(run)) == (Reason.LOST, ["lost||"], ["exit code 0"])


def test_no_process_of_the_run_is_left_when_it_runs_and_what_it_writes_is_collected(world: World) -> None:
    task = with_cleanup(
        world,
        "import subprocess; open('pid', 'w').write(str(subprocess.Popen(['sleep', '300']).pid))",
        """
        import os
        lives = os.path.exists("/proc/" + open("pid").read())
        open("found", "w").write(str(lives))
        """,
    )
    run = world.finish(world.start(task), poller=world.poller())
    assert {file.name: outputs.file_path(file).read_text() for file in run.files.all()}["found"] == "False"


def test_its_own_failure_changes_nothing_about_the_result(world: World) -> None:
    task = with_cleanup(world, "print('x')", "raise RuntimeError('no such luck')")
    run = world.finish(world.start(task), poller=world.poller())
    assert (run.status, run.exit_code, ended(run)) == (Status.COMPLETED, 0, ["exit code 1"])
    assert "RuntimeError: no such luck" in world.log(run)


def test_it_is_ended_with_its_tree_at_its_own_time_limit(world: World) -> None:
    task = with_cleanup(
        world,
        "print('x')",
        """
        import subprocess, time
        print("child", subprocess.Popen(["sleep", "300"], start_new_session=True).pid, flush=True)
        time.sleep(300)
        """,
        cleanup_timeout_seconds=1,
    )
    run = world.finish(world.start(task), poller=world.poller())
    assert (run.status, ended(run)) == (Status.COMPLETED, ["timed out"])
    assert not is_alive(int(world.log(run).split()[-1]))


def test_it_does_not_run_when_the_program_was_never_started(world: World) -> None:
    task = with_cleanup(world, "print('never')")
    stopped = world.start(task)
    stopped.cancel(by=world.owner, now=timezone.now())
    (world.programs / "program.py").unlink()
    run = world.finish(world.start(task), poller=world.poller())
    assert run.reason == Reason.LAUNCH_ERROR
    assert world.lines("cleaned") == []


def test_a_clean_up_that_may_not_be_run_keeps_the_program_from_running(world: World) -> None:
    task = with_cleanup(world, "print('never')")
    (world.programs / "cleanup.py").chmod(0o666)
    run = world.finish(world.start(task), poller=world.poller())
    assert run.reason == Reason.LAUNCH_ERROR
    assert "chmod go-w" in run.sentence


def test_it_is_not_run_a_second_time_when_its_supervisor_is_killed_meanwhile(world: World) -> None:
    slow = CLEANUP.rstrip() + "; import time; sys.stdout.flush(); time.sleep(300)"
    run, poller = world.start(with_cleanup(world, "raise SystemExit(3)", slow)), world.poller()
    world.until(lambda: cleaned(world, run), "it is cleaned up", poller=poller)
    os.kill(supervisor_pid(run), signal.SIGKILL)
    run = world.finish(run, poller=poller)
    assert (run.exit_code, len(cleaned(world, run)), ended(run)) == (3, 1, ["nobody saw its end"])


def test_it_runs_later_when_its_supervisor_could_not_write_into_the_log(world: World) -> None:
    source = """
        import os, shutil, sys
        shutil.rmtree(os.path.realpath("../../../store/" + os.environ["SCHEDULER_RUN"]))
        sys.exit(3)
        """
    run = world.finish(world.start(with_cleanup(world, source)), poller=world.poller())
    assert (run.exit_code, len(cleaned(world, run)), ended(run)) == (3, 1, ["exit code 0"])


def test_it_has_the_limits_of_the_task(world: World) -> None:
    show = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    run = world.finish(world.start(with_cleanup(world, "print('x')", show, open_files=99)), poller=world.poller())
    assert world.log(run).endswith("(99, 99)\n")


def test_no_value_of_the_environment_reaches_the_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDER", f"{world.folder}/.")
    run, poller = world.start(with_cleanup(world, UP)), world.poller()
    world.until(lambda: outputs.log_path(run).exists() and "up" in world.log(run), "it runs", poller=poller)
    folder = outputs.run_folder(run.uuid)
    assert "FOLDER" in (folder.read(protocol.SPEC) or {})["environment"]
    with open(folder.file(protocol.SPEC), encoding="utf-8") as file:
        assert f"{world.folder}/." not in file.read()
