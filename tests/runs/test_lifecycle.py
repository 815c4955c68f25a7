"""What becomes of one run: how it ends, what it leaves, and what is written down about it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.utils import timezone

from scheduler import outputs
from scheduler.models import RunEvent, Task
from scheduler.states import Reason, Status

from .conftest import fresh, is_alive, wait_until

if TYPE_CHECKING:
    from .conftest import World


@pytest.fixture(params=["cold", "warm"])
def start_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_program_that_ends_well_is_completed_and_its_log_is_kept(world: World) -> None:
    run = world.run("import sys; print('to stdout'); print('to stderr', file=sys.stderr)")
    assert (run.status, run.reason, run.exit_code) == (Status.COMPLETED, Reason.EXIT_CODE, 0)
    assert world.log(run) == "to stdout\nto stderr\n"
    assert run.started_at and run.finished_at
    assert run.queued_at <= run.started_at <= run.finished_at
    assert run.program == "programs/program.py"
    assert list(run.events.values_list("what", flat=True)) == ["queued", "claimed", "started", "finished"]


def test_the_version_of_the_program_is_kept_with_the_run(world: World) -> None:
    source = world.programs / "program.py"
    first = world.run("print(1)")
    assert first.version is not None
    assert first.version.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert {"PATH", "PYTHONPATH"} <= set(first.version.environment_names)
    same = world.finish(world.start(first.task), poller=world.daemons[-1])
    assert same.version_id == first.version_id
    source.write_text("print(2)")
    changed = world.finish(world.start(first.task), poller=world.daemons[-1])
    assert changed.version is not None
    assert changed.version.sha256 == hashlib.sha256(b"print(2)").hexdigest()


def test_an_exit_code_other_than_0_is_a_failure(world: World) -> None:
    run = world.run("raise SystemExit(3)")
    assert (run.status, run.reason, run.exit_code) == (Status.FAILED, Reason.EXIT_CODE, 3)
    assert "exit code 3" in run.sentence


def test_an_exception_is_a_failure_and_its_traceback_is_in_the_log(world: World) -> None:
    run = world.run("raise RuntimeError('no such luck')")
    assert (run.status, run.exit_code) == (Status.FAILED, 1)
    assert "RuntimeError: no such luck" in world.log(run)


def test_a_signal_is_a_failure_and_is_named(world: World) -> None:
    run = world.run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (run.status, run.reason, run.signal, run.exit_code) == (Status.FAILED, Reason.SIGNAL, 11, None)
    assert "SIGSEGV" in run.sentence


def test_output_that_was_not_flushed_at_the_end_is_kept(world: World) -> None:
    run = world.run("import os, sys; os.environ.pop('PYTHONUNBUFFERED'); sys.stdout.write('no newline')")
    assert world.log(run) == "no newline"


def test_arguments_reach_the_program_as_they_are(world: World) -> None:
    arguments = ["--flag", "two words", "$HOME; rm -rf /", "'", "ünï", ""]
    run = world.run("import sys; print(sys.argv[1:])", *arguments)
    assert world.log(run).strip() == repr(arguments)


def test_output_files_are_collected_into_the_store(world: World) -> None:
    run = world.run(
        """
        import os
        from pathlib import Path
        Path("report.csv").write_bytes(b"a,b\\n" * 1000)
        (Path(os.environ["SCHEDULER_OUTPUT"]) / "deep" / "er").mkdir(parents=True)
        Path("deep/er/x.bin").write_bytes(bytes(range(256)))
        """
    )
    files = {file.name: file for file in run.files.all()}
    assert set(files) == {"report.csv", "deep_er_x.bin"}
    content = b"a,b\n" * 1000
    assert files["report.csv"].size == 4000
    assert files["report.csv"].sha256 == hashlib.sha256(content).hexdigest()
    path = outputs.file_path(files["report.csv"])
    assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o2750
    assert outputs.file_path(files["deep_er_x.bin"]).read_bytes() == bytes(range(256))


def test_what_is_not_a_regular_file_of_its_own_stays_behind_and_is_named(world: World) -> None:
    (world.folder / "secret").write_text("not for you")
    run = world.run(
        """
        import os, socket
        secret = os.environ["FOLDER"] + "/secret"
        os.symlink(secret, "symlink")
        os.symlink(os.environ["FOLDER"], "folder-symlink")
        os.link(secret, "hardlink")
        os.mkfifo("fifo")
        socket.socket(socket.AF_UNIX).bind("socket")
        open("good", "w").write("good")
        """
    )
    assert run.status == Status.COMPLETED
    assert [file.name for file in run.files.all()] == ["good"]
    problems = list(run.events.filter(what=RunEvent.What.NOT_COLLECTED).values_list("text", flat=True))
    assert {text.split(":")[0] for text in problems} == {"symlink", "folder-symlink", "hardlink", "fifo", "socket"}
    assert (world.folder / "secret").read_text() == "not for you"


def test_hostile_file_names_are_collected_under_harmless_ones(world: World) -> None:
    run = world.run(
        r"""
        import os
        for name in [b"line\nend", b"bad\xff", "bidi\u202etxt.exe".encode(), b"%2e%2e", b"'\"<script>", b"\x1b[31mred",
                     b"x" * 250 + b".csv", b"back\\slash", b" .hidden. "]:
            open(name, "w").write("x")
        """
    )
    names = {file.name for file in run.files.all()}
    assert len(names) == 9
    assert {"line_end", "bad_", "bidi_txt.exe", "%2e%2e", "'\"<script>", "_[31mred", "back_slash", "hidden"} < names
    assert max(len(name.encode()) for name in names) == 150
    assert all(outputs.file_path(file).read_text() == "x" for file in run.files.all())


def test_files_over_the_limits_stay_behind_and_the_run_says_so(world: World, settings) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "OUTPUT_FILES": 3, "OUTPUT_BYTES": 10}
    run = world.run("for i in range(5): open(f'{i}', 'w').write('x' * 4)")
    assert [file.name for file in run.files.all()] == ["0", "1"]
    problems = " ".join(run.events.filter(what=RunEvent.What.NOT_COLLECTED).values_list("text", flat=True))
    assert "2: the run's files are larger than the limit" in problems
    assert "2 more files than the 3" in problems


def test_the_log_is_cut_at_its_limit_and_the_program_goes_on(world: World, settings) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "LOG_BYTES": 1000}
    run = world.run("for _ in range(1000): print('x' * 99)")
    assert run.status == Status.COMPLETED
    text = world.log(run)
    assert text.startswith("x" * 99 + "\n")
    assert text.endswith("[scheduler] 99000 bytes of output were dropped here.\n")


def test_messages_and_progress_are_seen_while_the_program_runs(world: World) -> None:
    task = world.task(
        """
        import json, os, time
        reports = open(os.environ["SCHEDULER_REPORTS"], "a")
        report = {"message": "half way", "progress": 5, "total": 10, "label": "rows"}
        print(json.dumps(report), file=reports, flush=True)
        print("no json\\n[1]\\n{\\"progress\\": \\"x\\"}", file=reports, flush=True)
        while not os.path.exists(os.environ["FOLDER"] + "/go"):
            time.sleep(0.02)
        print(json.dumps({"message": "done"}), file=reports, flush=True)
        """
    )
    run, poller = world.start(task), world.poller()
    world.until(lambda: fresh(run).message == "half way", "the message is there", poller=poller)
    assert fresh(run).status == Status.PROCESSING
    assert fresh(run).progress_percent == 50
    assert fresh(run).progress_label == "rows"
    (world.folder / "go").touch()
    run = world.finish(run, poller=poller)
    assert run.message == "done"
    assert list(run.events.filter(what="message").values_list("text", flat=True)) == ["half way", "done"]


def test_the_process_tree_is_sampled(world: World) -> None:
    task = world.task("import subprocess; subprocess.run(['sleep', '300'])")
    run, poller = world.start(task), world.poller()
    sample = world.until(
        lambda: (found := getattr(fresh(run), "sample", None)) and len(found.processes) == 2 and found,
        "both processes are sampled",
        poller=poller,
    )
    assert sample.processes[0]["pid"] == fresh(run).pid
    assert sample.processes[1]["name"] == "sleep"
    assert sample.memory_peak_bytes >= sample.memory_bytes > 1_000_000


def test_a_run_is_stopped_when_a_user_asks(world: World) -> None:
    task = world.task(
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("tidied up"), sys.exit(0)))
        print("ready")
        time.sleep(300)
        """
    )
    run, poller = world.start(task), world.poller()
    world.until(lambda: outputs.log_path(run).exists() and "ready" in world.log(run), "it runs", poller=poller)
    assert fresh(run).cancel(by=world.owner, now=timezone.now())
    run = world.finish(run, poller=poller)
    assert (run.status, run.reason, run.cancel_requested_by_name) == (
        Status.CANCELLED,
        Reason.STOPPED_BY_USER,
        "olivia",
    )
    assert "tidied up" in world.log(run)
    assert not run.cancel(by=world.owner, now=timezone.now())


def test_a_run_that_ignores_the_request_is_killed_with_its_whole_tree(world: World) -> None:
    task = world.task(
        """
        import os, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(1, f"daemon {os.getpid()}\\n".encode())
                time.sleep(300)
            os._exit(0)
        os.write(1, f"child {child.pid}\\n".encode())
        time.sleep(300)
        """
    )
    run, poller = world.start(task), world.poller()
    world.until(
        lambda: outputs.log_path(run).exists() and {"child", "daemon"} <= set(world.log(run).split()),
        "it runs",
        poller=poller,
    )
    pids = [int(line.split()[1]) for line in world.log(run).splitlines()]
    assert all(is_alive(pid) for pid in pids)
    fresh(run).cancel(by=world.owner, now=timezone.now())
    assert world.finish(run, poller=poller).status == Status.CANCELLED
    assert [pid for pid in pids if is_alive(pid)] == []


def test_what_a_program_leaves_behind_is_ended(world: World) -> None:
    run = world.run(
        """
        import subprocess, sys
        print(subprocess.Popen(["sleep", "300"], start_new_session=True).pid)
        """
    )
    assert run.status == Status.COMPLETED
    assert not is_alive(int(world.log(run)))


def test_a_run_is_stopped_at_its_time_limit(world: World) -> None:
    run = world.run("import time; time.sleep(300)", timeout_seconds=1)
    assert (run.status, run.reason) == (Status.FAILED, Reason.TIMED_OUT)


def test_a_waiting_run_is_cancelled_without_being_started(world: World) -> None:
    run = world.start(world.task("print('never')"))
    assert run.cancel(by=world.owner, now=timezone.now())
    world.poller().tick(timezone.now())
    assert fresh(run).status == Status.CANCELLED
    assert fresh(run).started_at is None
    assert not outputs.log_path(run).exists()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.chmod(0o666), "chmod go-w"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), "outside"),
    ],
)
def test_a_program_that_may_not_be_run_is_a_launch_error_in_one_sentence(world: World, spoil, sentence) -> None:
    task = world.task("print('never')")
    spoil(world.programs / "program.py")
    run = world.finish(world.start(task), poller=world.poller())
    assert (run.status, run.reason) == (Status.FAILED, Reason.LAUNCH_ERROR)
    assert sentence in run.sentence


def test_a_task_does_not_overlap_itself(world: World) -> None:
    task = world.task(
        """
        import os, time
        while not os.path.exists(os.environ["FOLDER"] + "/go"):
            time.sleep(0.02)
        """
    )
    first, second, poller = world.start(task), world.start(task), world.poller()
    world.until(lambda: fresh(first).started_at, "the first runs", poller=poller)
    assert fresh(second).status == Status.QUEUED
    (world.folder / "go").touch()
    first, second = world.finish(first, poller=poller), world.finish(second, poller=poller)
    assert second.started_at and first.finished_at
    assert second.started_at >= first.finished_at


def test_a_host_processes_at_most_its_capacity_at_once(world: World, settings) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "CAPACITY": 2}
    source = """
        import os, time
        while not os.path.exists(os.environ["FOLDER"] + "/go"):
            time.sleep(0.02)
        """
    runs = [world.start(world.task(source, name=f"p{number}")) for number in range(4)]
    poller = world.poller()
    world.until(lambda: sum(fresh(run).started_at is not None for run in runs) == 2, "two run", poller=poller)
    poller.tick(timezone.now())
    assert sum(fresh(run).status == Status.PROCESSING for run in runs) == 2
    (world.folder / "go").touch()
    assert {world.finish(run, poller=poller).status for run in runs} == {Status.COMPLETED}


def test_a_plain_task_gets_no_secret_and_no_site_settings(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET", "hush")
    run = world.run("import os; print(sorted(os.environ))", environment=Task.Environment.PLAIN)
    names = world.log(run)
    assert "SCHEDULER_RUN" in names
    assert not {"AWS_SECRET", "DATABASE_URL", "DJANGO_SECRET_KEY", "DJANGO_SETTINGS_MODULE"} & set(names.split("'"))


def test_no_value_of_the_environment_reaches_the_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SECRET_KEY", "a-very-secret-value")
    task = world.task("import time; print('up', flush=True); time.sleep(300)", environment=Task.Environment.DJANGO)
    run, poller = world.start(task), world.poller()
    world.until(lambda: outputs.log_path(run).exists() and "up" in world.log(run), "it runs", poller=poller)
    texts = [path.read_bytes() for path in Path(outputs.run_folder(run.uuid).path).glob("*.json")]
    assert len(texts) >= 3
    assert not any(b"a-very-secret-value" in text for text in texts)


def test_a_django_task_uses_the_sites_models(world: World) -> None:
    run = world.run(
        """
        from scheduler.task import run
        from django.contrib.auth.models import User
        from scheduler.models import Run
        me = Run.objects.get(pk=run.id)
        with run.open_output("users.txt") as out:
            out.write(",".join(User.objects.values_list("username", flat=True)) + f" {me.task.name}")
        run.message("written")
        """,
        environment=Task.Environment.DJANGO,
    )
    assert run.status == Status.COMPLETED, world.log(run)
    assert outputs.file_path(run.files.get()).read_text() == "olivia program"
    assert run.message == "written"


def test_a_disabled_task_is_not_started(world: World) -> None:
    task = world.task("print('x')")
    run, poller = world.start(task), world.poller()
    Task.objects.filter(pk=task.pk).update(enabled=False)
    poller.tick(timezone.now())
    assert fresh(run).status == Status.QUEUED
    Task.objects.filter(pk=task.pk).update(enabled=True)
    assert world.finish(run, poller=poller).status == Status.COMPLETED


def test_a_finished_run_leaves_only_a_tombstone_in_the_run_folders(world: World) -> None:
    run = world.run("print('x')")
    assert os.listdir(os.path.dirname(outputs.run_folder(run.uuid).path)) == [f"{run.uuid}.json"]


def test_deleting_a_run_removes_its_files_from_the_store(world: World) -> None:
    run = world.run("open('x', 'w').write('x')")
    place, poller = outputs.store_folder(run.uuid), world.poller()
    assert place.exists()
    run.delete()
    world.until(lambda: not place.exists(), "the store is clean", poller=poller)


def test_reading_from_stdin_gets_the_end_at_once(world: World) -> None:
    run = world.run("import sys; print(repr(sys.stdin.read()))")
    assert world.log(run) == "''\n"


def test_a_program_that_closes_its_output_is_still_watched(world: World) -> None:
    run = world.run("import os, time; os.close(1); os.close(2); time.sleep(0.2); os._exit(4)")
    assert run.exit_code == 4


def test_a_new_run_starts_at_once_when_the_poller_is_woken(world: World) -> None:
    world.poller_process()
    wait_until(lambda: list((world.folder / "scheduler" / "wake").glob("*.sock")), "the poller listens")
    run = world.start(world.task("print('x')"))
    assert world.finish(run).status == Status.COMPLETED
