"""Limits of a run: what they are for the program, and what is said when one was reached."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from scheduler import outputs
from scheduler.executors import limits
from scheduler.models import Poller, RunEvent
from scheduler.states import Reason, Status
from scheduler.supervisor import folder as protocol

from .conftest import fresh, is_alive, supervisor_pid, wait_until

if TYPE_CHECKING:
    from scheduler.models import Run

    from .conftest import World

MB = 1024**2


@pytest.fixture(params=["cold", "warm"])
def start_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def events(run: Run, what: RunEvent.What) -> list[str]:
    return list(run.events.filter(what=what).values_list("text", flat=True))


# Each process


SHOW = """
    import os, resource
    print(resource.getrlimit(resource.RLIMIT_AS), resource.getrlimit(resource.RLIMIT_CPU))
    print(resource.getrlimit(resource.RLIMIT_NOFILE), os.getpriority(os.PRIO_PROCESS, 0) - int(os.environ["NICE"]))
    """


def test_a_program_and_what_it_starts_have_the_limits_of_their_task(
    world: World, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NICE", str(os.getpriority(os.PRIO_PROCESS, 0)))
    settings.SCHEDULER = {**settings.SCHEDULER, "ENVIRONMENT": ["PATH", "FOLDER", "NICE"]}
    run = world.run(SHOW, process_memory_mb=4000, process_cpu_seconds=100, open_files=100, nice=3)
    assert world.log(run) == f"({4000 * MB}, {4000 * MB}) (100, 105)\n(100, 100) 3\n"
    assert (run.status, run.limits_reached, run.limits_in_words) == (Status.COMPLETED, {}, "")


def test_a_program_without_limits_has_those_of_the_poller(world: World) -> None:
    run = world.run("import resource; print(resource.getrlimit(resource.RLIMIT_AS))")
    assert world.log(run) == "(-1, -1)\n"
    assert fresh(run).limits_reached == {}


def test_processor_time_that_is_used_up_is_the_reason(world: World) -> None:
    run = world.run("while True: pass", process_cpu_seconds=1)
    assert (run.status, run.reason, run.signal) == (Status.FAILED, Reason.CPU_LIMIT, signal.SIGXCPU)
    assert run.limits_reached == {"cpu_seconds": 1}
    assert run.sentence == "Failed: ended by the kernel, as it had used its 1 seconds of processor time."


def test_the_same_signal_without_a_limit_is_only_a_signal(world: World) -> None:
    run = world.run("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)")
    assert (run.reason, run.signal) == (Reason.SIGNAL, signal.SIGXCPU)


def test_a_program_that_asks_for_too_much_memory_gets_an_exception(world: World) -> None:
    run = world.run("bytearray(8 << 30)", process_memory_mb=4000)
    assert (run.reason, run.exit_code) == (Reason.EXIT_CODE, 1)
    assert "MemoryError" in world.log(run)


def test_a_limit_that_cannot_be_given_is_a_launch_error_in_one_sentence(world: World) -> None:
    too_many = int(Path("/proc/sys/fs/nr_open").read_text()) + 1
    run = world.run("print('never')", open_files=too_many)
    assert (run.status, run.reason, run.started_at is None) == (Status.FAILED, Reason.LAUNCH_ERROR, False)
    assert f"the limit of open files of a process is {too_many}, and the poller itself may have only" in run.sentence
    assert "never" not in world.log(run)


# Log and files


def test_the_rest_of_a_log_is_dropped_at_the_tasks_limit(world: World) -> None:
    run = world.run("print('x' * (3 << 20))", log_mb=1)
    assert (run.status, run.limits_reached) == (Status.COMPLETED, {"log_bytes": MB})
    assert run.sentence == "Completed. Its log reached 1 MB; the rest was dropped."
    assert outputs.log_path(run).stat().st_size < MB + 100


def test_files_are_kept_up_to_the_tasks_limits(world: World) -> None:
    source = "for name in 'abc': open(name, 'w').write('x' * 600_000)"
    run = world.run(source, output_files=2, output_mb=1)
    assert [file.name for file in run.files.all()] == ["a"]
    assert run.limits_reached == {"output_files": 2, "output_bytes": MB}
    assert "It left more than 2 files" in run.sentence
    assert "Its files were larger than 1 MB in all" in run.sentence


def test_the_sites_own_settings_are_the_largest(world: World, settings: Any) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "LOG_BYTES": 1000}
    run = world.run("print('x' * 5000)", log_mb=1)
    assert run.limits_reached == {"log_bytes": 1000}
    assert "Its log reached 1000 bytes" in run.sentence


# What is left over


def test_processes_that_outlive_the_program_are_named(world: World) -> None:
    run = world.run("import subprocess; print(subprocess.Popen(['sleep', '300'], start_new_session=True).pid)")
    assert events(run, RunEvent.What.PROCESSES_ENDED) == [f"sleep ({int(world.log(run))})"]


def test_processes_that_have_to_be_killed_are_named(world: World) -> None:
    task = world.task(
        """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        time.sleep(300)
        """
    )
    run, poller = world.start(task), world.poller()
    world.until(lambda: outputs.log_path(run).exists() and world.log(run), "it runs", poller=poller)
    fresh(run).cancel(by=world.owner, now=timezone.now(), why="wrong file")
    run = world.finish(run, poller=poller)
    [killed] = events(run, RunEvent.What.PROCESSES_KILLED)
    assert f"({int(world.log(run))})" in killed
    assert events(run, RunEvent.What.PROCESSES_ENDED) == []
    assert run.sentence == "Stopped by olivia: wrong file"
    assert events(run, RunEvent.What.STOP_REQUESTED) == ["wrong file"]


# All processes together, where no kernel has to be asked


@pytest.fixture
def pretended(world: World, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the cgroup of every run; nobody enforces what is written there."""
    place = world.folder / "cgroup"
    place.mkdir()
    settings.SCHEDULER = {**settings.SCHEDULER, "CGROUP": place}
    monkeypatch.setattr(limits, "why_not_as_a_whole", lambda: "")
    return place


def cgroup_of(place: Path, run: Run) -> Path:
    path = place / f"run-{run.uuid}"
    path.mkdir()
    for name in ("memory.max", "memory.oom.group", "memory.swap.max", "pids.max", "cgroup.procs", "cgroup.kill"):
        (path / name).touch()
    return path


def test_a_run_is_put_into_its_cgroup_before_its_program_runs(world: World, pretended: Path) -> None:
    task = world.task("import os; print(os.getpid())", memory_mb=64, max_processes=20)
    run = world.start(task)
    cgroup = cgroup_of(pretended, run)
    run = world.finish(run, poller=world.poller())
    written = {path.name: path.read_text() for path in cgroup.iterdir()}
    assert written == {
        "memory.max": str(64 * MB),
        "memory.oom.group": "1",
        "memory.swap.max": "0",
        "pids.max": "20",
        "cgroup.procs": world.log(run).strip(),
        "cgroup.kill": "",
    }
    assert (run.status, run.limits_reached) == (Status.COMPLETED, {})


@pytest.mark.parametrize(
    ("counted", "reason", "sentence"),
    [
        ("oom 1\noom_kill 1\n", Reason.OUT_OF_MEMORY, "as its processes used more than 64 MB together."),
        ("oom 0\noom_kill 2\n", Reason.OUT_OF_MEMORY, "as the machine had no memory left."),
        ("oom 3\noom_kill 0\n", Reason.SIGNAL, "by SIGKILL, which the scheduler did not send."),
        ("damaged", Reason.SIGNAL, "by SIGKILL, which the scheduler did not send."),
    ],
)
def test_out_of_memory_is_said_only_when_the_kernel_has_counted_it(
    world: World, pretended: Path, counted: str, reason: Reason, sentence: str
) -> None:
    source = f"""
        import os, signal
        place = os.environ["FOLDER"] + "/cgroup/run-" + os.environ["SCHEDULER_RUN"]
        open(place + "/memory.events", "w").write({counted!r})
        os.kill(os.getpid(), signal.SIGKILL)
        """
    run = world.start(world.task(source, memory_mb=64))
    cgroup_of(pretended, run)
    run = world.finish(run, poller=world.poller())
    assert (run.status, run.reason) == (Status.FAILED, reason)
    assert sentence in run.sentence


def test_processes_that_could_not_be_started_are_said(world: World, pretended: Path) -> None:
    source = """
        import os
        place = os.environ["FOLDER"] + "/cgroup/run-" + os.environ["SCHEDULER_RUN"]
        open(place + "/pids.events", "w").write("max 4\\n")
        raise SystemExit(3)
        """
    run = world.start(world.task(source, max_processes=7))
    cgroup_of(pretended, run)
    run = world.finish(run, poller=world.poller())
    assert (run.reason, run.exit_code, run.limits_reached) == (Reason.EXIT_CODE, 3, {"processes": 7})
    assert "It reached its limit of 7 processes" in run.sentence


def test_a_cgroup_that_cannot_be_made_is_a_launch_error(world: World, pretended: Path) -> None:
    run = world.start(world.task("print('never')", memory_mb=64))
    run = world.finish(run, poller=world.poller())
    assert run.reason == Reason.LAUNCH_ERROR
    assert "its cgroup cannot be made: No such file or directory" in run.sentence
    assert not world.log(run)


def test_a_run_says_that_it_was_not_limited_where_nothing_can_limit_it(world: World) -> None:
    run = world.run("print('x')", memory_mb=64)
    assert run.status == Status.COMPLETED
    assert events(run, RunEvent.What.NOT_LIMITED) == ["SCHEDULER['CGROUP'] is not set."]
    assert Poller.objects.get().limits_problem == "SCHEDULER['CGROUP'] is not set."


def test_a_folder_that_is_no_cgroup_is_found_out_beforehand(world: World, settings: Any, tmp_path: Path) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "CGROUP": tmp_path}
    run = world.run("print('x')", max_processes=10)
    [problem] = events(run, RunEvent.What.NOT_LIMITED)
    assert problem.startswith("its cgroup cannot be made: No such file or directory")
    assert list(tmp_path.iterdir()) == []


def test_a_spec_carries_only_the_limits_that_are_set(world: World) -> None:
    task = world.task("import time; print('up', flush=True); time.sleep(300)")
    run, poller = world.start(task), world.poller()
    world.until(lambda: outputs.log_path(run).exists() and "up" in world.log(run), "it runs", poller=poller)
    spec = outputs.run_folder(run.uuid).read(protocol.SPEC)
    assert spec is not None
    assert not {"limits", "cgroup", "not_limited", "cleanup"} & set(spec)


# All processes together, by the kernel


def test_the_kernel_ends_a_run_whose_processes_use_too_much_memory_together(world: World, cgroup: Path) -> None:
    run = world.run(
        """
        import os, time
        children = []
        for _ in range(4):
            pid = os.fork()
            if not pid:
                kept = b"x" * (40 << 20)
                time.sleep(300)
            print(pid, flush=True)
        time.sleep(300)
        """,
        memory_mb=100,
    )
    assert (run.status, run.reason, run.signal) == (Status.FAILED, Reason.OUT_OF_MEMORY, signal.SIGKILL)
    assert "used more than 100 MB together" in run.sentence
    assert not any(is_alive(int(line)) for line in world.log(run).split())
    assert list(cgroup.glob("run-*")) == []


def test_the_kernel_starts_no_more_processes_than_a_run_may_have(world: World, cgroup: Path) -> None:
    run = world.run(
        """
        import os, time
        started = 1
        try:
            while True:
                if not os.fork():
                    time.sleep(300)
                started += 1
        except OSError as error:
            print(started, error.strerror, flush=True)
        """,
        max_processes=10,
    )
    assert world.log(run) == "10 Resource temporarily unavailable\n"
    assert (run.status, run.limits_reached) == (Status.COMPLETED, {"processes": 10})
    assert list(cgroup.glob("run-*")) == []


def test_a_run_in_a_cgroup_that_forks_without_end_is_ended(world: World, cgroup: Path) -> None:
    """Each process lives for less than it takes to list them: only the kernel can end them all at once."""
    task = world.task(
        """
        import os, signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(1, b"up\\n")
        os.close(1), os.close(2)
        while True:
            if os.fork():
                os._exit(0)
        """,
        max_processes=50,
    )
    run, poller = world.start(task), world.poller()
    run = world.finish(run, poller=poller)
    assert (run.status, world.log(run)) == (Status.COMPLETED, "up\n")
    assert list(cgroup.glob("run-*")) == []


def test_what_a_killed_supervisor_leaves_in_a_cgroup_is_ended(world: World, cgroup: Path) -> None:
    task = world.task(
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.chdir("/")
                print(os.getpid(), flush=True)
                os.closerange(0, 100)
                os.execve("/bin/sleep", ["sleep", "300"], {})
        time.sleep(300)
        """,
        max_processes=50,
    )
    run, poller = world.start(task), world.poller()
    world.until(lambda: outputs.log_path(run).exists() and world.log(run), "it runs", poller=poller)
    os.kill(supervisor_pid(run), signal.SIGKILL)
    run = world.finish(run, poller=poller)
    assert run.reason == Reason.LOST
    assert not is_alive(int(world.log(run)))
    wait_until(lambda: not list(cgroup.glob("run-*")), "its cgroup is removed")
