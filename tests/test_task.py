"""What a task program imports, in the environment that the scheduler gives it, and by hand."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from scheduler.task import run
from tests.simulated_run import PROJECT, SECONDS, SimulatedRun, by_hand, execute

START = "from scheduler.task import run\n"


@pytest.fixture
def simulated(tmp_path: Path) -> SimulatedRun:
    return SimulatedRun(tmp_path / "run")


@pytest.fixture
def in_run(simulated: SimulatedRun, monkeypatch: pytest.MonkeyPatch) -> SimulatedRun:
    """This very process, as one of a run."""
    for name in ("SCHEDULER_RUN", "SCHEDULER_RUN_ID", "SCHEDULER_REPORTS", "SCHEDULER_OUTPUT"):
        monkeypatch.setenv(name, simulated.variables[name])
    return simulated


# Messages


def test_a_message_is_one_line_of_json(in_run: SimulatedRun) -> None:
    run.message("Grüße\nfrom “here”")
    run.message(42)

    assert in_run.reports_file.read_bytes().count(b"\n") == 2
    assert in_run.reports == [{"message": "Grüße\nfrom “here”"}, {"message": "42"}]


@pytest.mark.parametrize("character", ["a", '"', "\x01", "ü", "🚀"])
def test_a_long_message_is_cut_to_a_line_that_is_read(in_run: SimulatedRun, character: str) -> None:
    run.message("start " + character * 200_000)

    assert 32_000 < in_run.reports_file.stat().st_size <= 64 * 1024
    [message] = in_run.messages
    assert message.startswith("start " + character * 1000)
    assert message.endswith(character + " …")


def test_what_is_not_text_does_not_reach_the_reports(in_run: SimulatedRun) -> None:
    run.message("file " + os.fsdecode(b"caf\xe9") + "\0")

    assert in_run.messages == ["file caf?\N{REPLACEMENT CHARACTER}"]


def test_lines_of_several_processes_and_threads_do_not_mix(simulated: SimulatedRun) -> None:
    result = simulated.execute_text(
        START
        + """
import os, threading
def talk(name):
    for number in range(100):
        run.message(f"{name} {number} " + "x" * 5000)
children = []
for child in range(3):
    pid = os.fork()
    if pid == 0:
        threads = [threading.Thread(target=talk, args=(f"{child}-{thread}",)) for thread in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
"""
    )

    assert (result.code, result.log) == (0, "")
    expected = [f"{child}-{thread} {number}" for child in range(3) for thread in range(3) for number in range(100)]
    assert sorted(message.removesuffix(" " + "x" * 5000) for message in simulated.messages) == sorted(expected)


@pytest.mark.parametrize("place", ["/dev/full", "/nowhere/reports", "/", ""])
def test_a_report_that_cannot_be_written_does_not_end_the_task(simulated: SimulatedRun, place: str) -> None:
    simulated.environment["SCHEDULER_REPORTS"] = place

    result = simulated.execute_text(
        START + "run.message('hello')\nrun.progress(1, 2)\nrun.progress(2, 2)\nprint('went on')"
    )

    assert (result.code, result.log) == (0, "went on\n")


# Progress


def test_progress_has_total_and_label_only_where_they_are_known(simulated: SimulatedRun) -> None:
    simulated.execute_text(START + "run.progress(1)\nrun.progress(2.5, 2.5, label='l' * 300)")

    assert simulated.progress == [{"progress": 1}, {"progress": 2.5, "total": 2.5, "label": "l" * 200}]


@pytest.mark.parametrize("done", ["float('nan')", "float('inf')", "10 ** 400"])
def test_a_number_that_json_cannot_hold_is_left_out(simulated: SimulatedRun, done: str) -> None:
    result = simulated.execute_text(START + f"run.progress({done})\nrun.progress(1, {done})")

    assert result.code == 0
    assert simulated.progress == [{"progress": 1}]


def test_a_decimal_counts_as_a_number(simulated: SimulatedRun) -> None:
    simulated.execute_text(START + "from decimal import Decimal\nrun.progress(Decimal('0.5'), Decimal(2))")

    assert simulated.progress == [{"progress": 0.5, "total": 2.0}]


def test_at_most_ten_progress_lines_a_second_and_the_last_at_exit(simulated: SimulatedRun) -> None:
    result = simulated.execute_text(
        START
        + """
import time
start = time.monotonic()
for done in range(200_001):
    run.progress(done, 300_000, "rows")
print(time.monotonic() - start)
"""
    )

    assert result.code == 0
    seconds = float(result.log)
    assert len(simulated.progress) <= 10 * (seconds + 1) + 1
    assert simulated.progress[0] == {"progress": 0, "total": 300_000, "label": "rows"}
    assert simulated.progress[-1] == {"progress": 200_000, "total": 300_000, "label": "rows"}


def test_many_short_loops_keep_to_ten_lines_a_second_too(simulated: SimulatedRun) -> None:
    result = simulated.execute_text(
        START
        + """
import time
start = time.monotonic()
for number in range(10_000):
    for item in run.track([number], label=str(number)): pass
print(time.monotonic() - start)
"""
    )

    assert len(simulated.progress) <= 10 * (float(result.log) + 1) + 1
    assert simulated.progress[-1] == {"progress": 1, "total": 1, "label": "9999"}


def test_the_last_progress_is_seen_while_the_task_goes_on(simulated: SimulatedRun) -> None:
    result = simulated.execute_text(
        START
        + """
import os, pathlib, time
run.progress(1, 9)
run.progress(2, 9)
until = time.monotonic() + 30
while '"progress": 2' not in pathlib.Path(os.environ["SCHEDULER_REPORTS"]).read_text():
    if time.monotonic() > until: os._exit(1)
    time.sleep(0.01)
os._exit(0)
"""
    )

    assert result.code == 0
    assert [each["progress"] for each in simulated.progress] == [1, 2]


def test_the_end_of_the_work_is_reported_at_once(simulated: SimulatedRun) -> None:
    simulated.execute_text(START + "import os\nrun.progress(1, 2)\nrun.progress(2, 2)\nos._exit(0)")

    assert [each["progress"] for each in simulated.progress] == [1, 2]


def test_the_last_progress_is_written_when_the_task_ends_by_an_exception(simulated: SimulatedRun) -> None:
    simulated.execute_text(START + "run.progress(1, 9)\nrun.progress(2, 9)\nraise RuntimeError")

    assert [each["progress"] for each in simulated.progress] == [1, 2]


def test_a_fork_does_not_repeat_what_its_parent_holds_back(simulated: SimulatedRun) -> None:
    simulated.execute_text(
        START
        + """
import os, sys
run.progress(1, 9)
run.progress(2, 9, "parent")
pid = os.fork()
if pid == 0:
    run.message("child")
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    )

    assert simulated.messages == ["child"]
    assert [each["progress"] for each in simulated.progress] == [1, 2]


def test_a_fork_reports_though_a_thread_of_its_parent_was_reporting(simulated: SimulatedRun) -> None:
    result = simulated.execute_text(
        START
        + """
import os, sys, threading
going = True
def work():
    while going: run.progress(0, 9)
thread = threading.Thread(target=work)
thread.start()
for number in range(100):
    pid = os.fork()
    if pid == 0:
        run.progress(number, number, "child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
going = False
thread.join()
"""
    )

    assert result.code == 0
    assert [each["progress"] for each in simulated.progress if each.get("label")] == list(range(100))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_last_progress_of_a_multiprocessing_worker_is_written(simulated: SimulatedRun, method: str) -> None:
    result = simulated.execute_text(
        START
        + """
import multiprocessing, sys
def work():
    run.progress(1, 9, "worker")
    run.progress(2, 9, "worker")
if __name__ == "__main__":
    run.progress(0, 9)
    process = multiprocessing.get_context(sys.argv[1]).Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0
""",
        method,
    )

    assert (result.code, result.log) == (0, "")
    assert [each["progress"] for each in simulated.progress if each.get("label")] == [1, 2]


def test_a_signal_handler_may_report_in_the_middle_of_a_report(simulated: SimulatedRun) -> None:
    result = simulated.execute_text(
        START
        + """
import signal
fired = 0
def report(*_):
    global fired
    fired += 1
    run.progress(1, 1, "handler")
    run.message("handler")
signal.signal(signal.SIGALRM, report)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
while fired < 200:
    run.progress(0, 9)
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    )

    assert result.code == 0
    assert len(simulated.messages) >= 200


# track


def test_track_yields_the_items_and_reports_them(simulated: SimulatedRun) -> None:
    result = simulated.execute_text(START + "print(list(run.track(['a', 'b'], 'letters')))")

    assert result.log == "['a', 'b']\n"
    assert simulated.progress[0] == {"progress": 0, "total": 2, "label": "letters"}
    assert simulated.progress[-1] == {"progress": 2, "total": 2, "label": "letters"}


def test_track_counts_what_has_no_length(simulated: SimulatedRun) -> None:
    simulated.execute_text(START + "for item in run.track(iter('abc')): pass")

    assert simulated.progress[-1] == {"progress": 3}


def test_track_takes_a_total(simulated: SimulatedRun) -> None:
    simulated.execute_text(START + "for item in run.track(iter('abc'), total=5): pass")

    assert simulated.progress[-1] == {"progress": 3, "total": 5}


def test_an_item_counts_when_its_work_is_done(simulated: SimulatedRun) -> None:
    simulated.execute_text(START + "for item in run.track('abc'):\n    if item == 'b': break")

    assert simulated.progress[-1] == {"progress": 1, "total": 3}


# The log, the run's number and its arguments


def test_log_writes_a_line_even_of_what_is_not_text(simulated: SimulatedRun) -> None:
    result = simulated.execute_text(START + "run.log('one')\nrun.log('caf\\udce9')\nprint('two')")

    assert result.log == "one\ncaf\\udce9\ntwo\n"


def test_the_number_and_the_arguments_are_those_of_the_run(simulated: SimulatedRun) -> None:
    result = simulated.execute_text(START + "print(run.id, run.arguments)", "--name", "a b", "")

    assert result.log == "4711 ['--name', 'a b', '']\n"


# Output files


def test_an_output_file_is_utf_8_whatever_the_locale(simulated: SimulatedRun) -> None:
    simulated.environment.update(LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")

    result = simulated.execute_text(
        START
        + """
import os
os.chdir("/")
with run.open_output("letters/a.txt") as file: file.write("ü\\n")
with run.open_output("letters/a.txt", "a") as file: file.write("é\\n")
with run.open_output("bytes", "wb") as file: file.write(b"\\xff")
with run.open_output("lines.csv", newline="") as file: file.write("a\\r\\n")
"""
    )

    assert (result.code, result.log) == (0, "")
    assert simulated.files() == ["bytes", "letters/a.txt", "lines.csv"]
    assert (simulated.output / "letters/a.txt").read_bytes() == "ü\né\n".encode()
    assert (simulated.output / "bytes").read_bytes() == b"\xff"
    assert (simulated.output / "lines.csv").read_bytes() == b"a\r\n"


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a/..", "", ".", "a//b", "a/", "nul\0", "./a"])
def test_an_output_name_that_leaves_the_folder_is_refused(in_run: SimulatedRun, name: str) -> None:
    with pytest.raises(ValueError, match="An output file cannot be called"):
        run.output_path(name)
    with pytest.raises(ValueError, match="An output file cannot be called"):
        run.open_output(name, "wb")

    assert list(in_run.output.iterdir()) == []


def test_an_output_path_is_absolute_and_its_folder_exists(in_run: SimulatedRun) -> None:
    path = run.output_path(Path("a", "b", "c.txt"))

    assert path == in_run.output / "a" / "b" / "c.txt"
    assert path.parent.is_dir()
    assert not path.exists()


# Other programs


def test_the_output_of_a_called_program_is_in_the_log_in_its_place(simulated: SimulatedRun) -> None:
    simulated.environment = {"PYTHONUNBUFFERED": ""}

    result = simulated.execute_text(
        START + "print('before')\ncode = run.call(['sh', '-c', 'echo out; echo err >&2; exit 3'])\nprint('after', code)"
    )

    assert result.log == "before\nout\nerr\nafter 3\n"


def test_no_shell_reads_the_arguments_of_a_called_program(simulated: SimulatedRun) -> None:
    result = simulated.execute_text(START + "run.call(['echo', '$HOME; `id` *', 'a b'])")

    assert result.log == "$HOME; `id` * a b\n"


def test_a_called_program_gets_no_input_and_the_folder_of_the_outputs(simulated: SimulatedRun) -> None:
    result = simulated.execute_text(START + "print(run.call(['sh', '-c', 'cat; pwd']))")

    assert result.log == f"{simulated.output}\n0\n"


def test_a_signal_that_ends_a_called_program_is_128_and_more(simulated: SimulatedRun) -> None:
    result = simulated.execute_text(START + "print(run.call(['sh', '-c', 'kill -TERM $$']))")

    assert result.log == "143\n"


SECRETS = {"DATABASE_URL": "postgres://site:secret@db/site", "DJANGO_SECRET_KEY": "secret"}


def test_a_called_program_does_not_get_the_secrets_of_the_site(simulated: SimulatedRun) -> None:
    simulated.environment.update(SECRETS, TZ="Europe/Amsterdam", LC_TIME="C", HOME="/home/x", PGPASSWORD="secret")

    result = simulated.execute_text(START + "run.call(['env'], env={'EXTRA': '1', 'TZ': 'UTC'})")

    given = dict(line.split("=", 1) for line in result.log.splitlines())
    assert given.items() >= {"EXTRA": "1", "TZ": "UTC", "LC_TIME": "C", "HOME": "/home/x"}.items()
    assert given["SCHEDULER_REPORTS"] == str(simulated.reports_file)
    assert given["SCHEDULER_OUTPUT"] == str(simulated.output)
    assert given["PATH"]
    assert "secret" not in result.log
    assert "PYTHONPATH" not in given


def test_a_called_program_gets_everything_when_asked(simulated: SimulatedRun) -> None:
    simulated.environment.update(SECRETS)

    result = simulated.execute_text(
        START + "run.call(['env'], inherit_environment=True, env={'DJANGO_SECRET_KEY': 'x'})"
    )

    given = dict(line.split("=", 1) for line in result.log.splitlines())
    assert given["DATABASE_URL"] == SECRETS["DATABASE_URL"]
    assert given["DJANGO_SECRET_KEY"] == "x"


@pytest.mark.parametrize("argv", ["ls -l", b"ls", []])
def test_only_a_list_can_be_called(argv: list[str]) -> None:
    with pytest.raises(TypeError, match="takes a list"):
        run.call(argv)


def test_a_program_that_does_not_exist_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run.call([tmp_path / "nothing"])


WAITS_FOR_A_PROGRAM = (
    START
    + """
import signal, sys
code = run.call(["sh", "-c", "echo $$; exec sleep 600"])
"""
)


def _wait_for_line(program: subprocess.Popen[str]) -> int:
    assert program.stdout is not None
    return int(program.stdout.readline())


def _has_ended(pid: int) -> bool:
    """Wait for a process that may be nobody's child any more."""
    try:
        psutil.Process(pid).wait(timeout=30)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired:
        return False
    return True


def test_by_hand_a_called_program_ends_with_the_task(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(WAITS_FOR_A_PROGRAM)
    with subprocess.Popen(
        [sys.executable, tmp_path / "program.py"], env=by_hand(), stdout=subprocess.PIPE, text=True
    ) as program:
        called = _wait_for_line(program)
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=SECONDS) == 128 + signal.SIGTERM

    assert _has_ended(called)


def test_by_hand_term_in_the_middle_of_a_start_leaves_no_program_behind(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        START
        + """
import os, signal, subprocess
start = subprocess.Popen
def start_and_get_term(*arguments, **options):
    program = start(*arguments, **options)
    print(program.pid, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    return program
subprocess.Popen = start_and_get_term
run.call(["sleep", "600"])
"""
    )

    result = execute([sys.executable, tmp_path / "program.py"], env=by_hand(), cwd=tmp_path)

    assert result.code == 128 + signal.SIGTERM
    assert _has_ended(int(result.log))


def test_a_called_program_that_ignores_term_ends_too_when_the_task_leaves(simulated: SimulatedRun) -> None:
    result = simulated.execute_text(
        """
import os, signal
from scheduler import task
task.END_SECONDS = 0.05
def leave(*_):
    if os.path.exists("started"):
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise TimeoutError("left")
signal.signal(signal.SIGALRM, leave)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
try:
    task.run.call(["sh", "-c", "trap '' TERM; echo $$; touch started; while :; do sleep 0.05; done"])
except TimeoutError as error:
    print(error)
"""
    )

    pid, said = result.log.split()
    assert said == "left"
    assert _has_ended(int(pid))


def test_under_the_scheduler_term_keeps_its_meaning(simulated: SimulatedRun) -> None:
    program_file = simulated.folder / "program.py"
    program_file.write_text(WAITS_FOR_A_PROGRAM)
    with subprocess.Popen(
        [sys.executable, program_file], env=simulated.variables, stdout=subprocess.PIPE, text=True
    ) as program:
        called = _wait_for_line(program)
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=SECONDS) == -signal.SIGTERM
        os.kill(called, signal.SIGTERM)  # as the supervisor does, to the whole tree

    assert _has_ended(called)


# By hand


def test_by_hand_the_same_program_talks_to_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        START
        + """
run.message("Hello")
for item in run.track(range(1000), "items"): pass
with run.open_output("sub/result.txt") as file: file.write("done")
print(run.id, run.arguments)
run.progress(1, 3)
"""
    )
    (tmp_path / "here").mkdir()

    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", "x"],
        env={**by_hand(), "SCHEDULER_RUN_ID": "3", "SCHEDULER_OUTPUT": "/nowhere", "SCHEDULER_REPORTS": "/nowhere"},
        cwd=tmp_path / "here",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )

    assert done.stdout == "None ['x']\n"
    assert (tmp_path / "here/sub/result.txt").read_text() == "done"
    # No terminal: lines, and few of them.
    assert done.stderr.splitlines() == ["Hello", "items 0/1000 0%", "items 1000/1000 100%", "1/3 33%"]


def test_by_hand_a_terminal_gets_a_bar_that_messages_do_not_cross(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        START + "run.progress(1, 2, 'items')\nrun.message('Hello')\nrun.progress(2, 2, 'items')"
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, tmp_path / "program.py"], env=by_hand(), stderr=theirs) as program:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
        assert program.wait(timeout=SECONDS) == 0
    os.close(ours)

    clear = "\r\033[K"
    assert shown.decode() == (
        f"{clear}items [{'#' * 10}{'-' * 10}] 1/2 50%{clear}Hello\r\n{clear}items [{'#' * 20}] 2/2 100%\r\n"
    )


def test_by_hand_a_closed_stderr_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        START + "import sys\nsys.stderr.close()\nrun.message('x')\nrun.progress(1, 2)\nrun.log('x')\nprint('went on')"
    )

    result = execute([sys.executable, tmp_path / "program.py"], env=by_hand(), cwd=tmp_path)

    assert (result.code, result.log) == (0, "went on\n")


# Django

SETTINGS = """
import pathlib
SECRET_KEY = "only-for-a-test"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "library"]
USE_TZ = True
"""
MANAGE = """
import os
if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_of_test.settings")
"""
USES_MODELS = START + "from django.contrib.auth.models import User\nprint(User._meta.label)"
USES_NO_MODELS = START + "import os, sys\nprint('django' in sys.modules, os.environ.get('DJANGO_SETTINGS_MODULE'))"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody's project, with an app that uses the API at its start."""
    project = tmp_path / "project"
    for name, text in {
        "manage.py": MANAGE,
        "site_of_test/__init__.py": "",
        "site_of_test/settings.py": SETTINGS,
        "library/__init__.py": "",
        "library/apps.py": """
from django.apps import AppConfig
class LibraryConfig(AppConfig):
    name = "library"
    def ready(self):
        import scheduler.task
""",
        "library/models.py": "import scheduler.task",
        "tasks/deep/uses_models.py": USES_MODELS,
        "tasks/deep/uses_no_models.py": USES_NO_MODELS,
    }.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    return project


def test_by_hand_the_project_above_the_program_is_used(project: Path, tmp_path: Path) -> None:
    result = execute([sys.executable, project / "tasks/deep/uses_models.py"], env=by_hand(), cwd=tmp_path)

    assert (result.code, result.log) == (0, "auth.User\n")


def test_by_hand_the_program_may_be_named_from_its_folder(project: Path) -> None:
    result = execute([sys.executable, "uses_models.py"], env=by_hand(), cwd=project / "tasks/deep")

    assert (result.code, result.log) == (0, "auth.User\n")


def test_by_hand_the_variable_goes_before_what_manage_py_says(project: Path) -> None:
    (project / "other_settings.py").write_text(SETTINGS)
    variables = {**by_hand(), "DJANGO_SETTINGS_MODULE": "other_settings"}
    variables["PYTHONPATH"] += f":{project}"

    result = execute([sys.executable, project / "tasks/deep/uses_no_models.py"], env=variables, cwd=project)

    assert (result.code, result.log) == (0, "True other_settings\n")


def test_by_hand_a_program_without_a_project_runs_without_django(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(USES_NO_MODELS)

    result = execute([sys.executable, tmp_path / "program.py"], env=by_hand(), cwd=tmp_path)

    assert (result.code, result.log) == (0, "False None\n")


def test_by_hand_a_program_runs_where_django_is_not_installed(project: Path) -> None:
    # -S: without site-packages
    result = execute([sys.executable, "-S", project / "tasks/deep/uses_no_models.py"], env=by_hand(), cwd=project)

    assert (result.code, result.log) == (0, "False None\n")


def test_a_plain_task_never_loads_django(project: Path, simulated: SimulatedRun) -> None:
    result = simulated.execute(project / "tasks/deep/uses_no_models.py")

    assert (result.code, result.log) == (0, "False None\n")


def test_a_django_task_can_use_models_at_once(project: Path, simulated: SimulatedRun) -> None:
    simulated.environment = {
        "DJANGO_SETTINGS_MODULE": "site_of_test.settings",
        "PYTHONPATH": f"{PROJECT}:{project}",
    }

    result = simulated.execute(project / "tasks/deep/uses_models.py")

    assert (result.code, result.log) == (0, "auth.User\n")


def test_importing_it_changes_nothing_where_django_is_configured(project: Path) -> None:
    (project / "tasks/program.py").write_text(
        """
import os, sys
from django.conf import settings
settings.configure(INSTALLED_APPS=[])
before = list(sys.path)
import scheduler.task  # configured, not set up: not ours to decide
from django.apps import apps
print(apps.ready, settings.INSTALLED_APPS, "DJANGO_SETTINGS_MODULE" in os.environ, sys.path == before)
"""
    )

    result = execute([sys.executable, project / "tasks/program.py"], env=by_hand(), cwd=project)

    assert (result.code, result.log) == (0, "False [] False True\n")


def test_a_program_in_a_fork_belongs_to_the_run_of_the_fork(simulated: SimulatedRun) -> None:
    """As in a warm start: imported before there was a run, then forked for one, run as ``__main__``."""
    program = simulated.folder / "task.py"
    program.write_text(
        START
        + """
if __name__ == "__main__":
    run.message(f"{run.id} {run.arguments}")
    run.open_output("result").close()
    run.progress(1, 9)
    run.progress(2, 9)
"""
    )
    warm = simulated.folder / "warm.py"
    warm.write_text(
        """
import atexit, json, os, runpy, sys
from scheduler.task import run
assert run.id is None
for number in (1, 2):
    pid = os.fork()
    if pid == 0:
        os.environ.update(json.loads(sys.argv[2]), SCHEDULER_RUN_ID=str(number))
        sys.argv = [sys.argv[1], f"argument-{number}"]
        runpy.run_path(sys.argv[0], run_name="__main__")
        atexit._run_exitfuncs()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""
    )

    result = execute(
        [sys.executable, warm, program, json.dumps(simulated.variables)], env=by_hand(), cwd=simulated.folder
    )

    assert (result.code, result.log) == (0, "")
    assert simulated.messages == ["1 ['argument-1']", "2 ['argument-2']"]
    assert [each["progress"] for each in simulated.progress] == [1, 2, 1, 2]
    assert simulated.files() == ["result"]


def test_importing_it_loads_nothing_else_of_the_app(simulated: SimulatedRun) -> None:
    result = simulated.execute_text(
        START + "import sys\nprint(sorted(name for name in sys.modules if name.split('.')[0] == 'scheduler'))"
    )

    assert result.log == "['scheduler', 'scheduler.task']\n"
