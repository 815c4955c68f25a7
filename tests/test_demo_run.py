"""``demo/run`` from the outside, as a person starts it, and the two modules that it is made of."""

from __future__ import annotations

import ast
import http.cookiejar
import os
import re
import runpy
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psutil
import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone

from conf import environment
from demo import contents, start
from scheduler import access
from scheduler.models import Recurrence, Schedule, Task
from tests.servers import with_default_signals

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parent.parent
RUN = PROJECT / "demo" / "run"
PATIENCE_SECONDS = 120.0  # only a hanging demo takes so long

only_sqlite = pytest.mark.skipif(
    os.environ.get("DATABASE_URL", "sqlite:").partition(":")[0] != "sqlite",
    reason="the demo keeps its own SQLite database, whatever the tests use",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def surroundings(var: Path) -> dict[str, str]:
    # The demo must not use the database of this test run, nor of any other site.
    return {**os.environ, "SCHEDULER_VAR": str(var), "DATABASE_URL": "sqlite:////nowhere/other.sqlite3"}


def call(*arguments: str, var: Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end, from a folder that is not the project's."""
    return subprocess.run(
        [sys.executable, RUN, *arguments],
        env=surroundings(var),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


class Demo:
    """A demo that runs, and what it has printed."""

    def __init__(self, var: Path, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, RUN, "--port", str(port)],
            env=surroundings(var),
            cwd=var,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=with_default_signals,
        )
        self.said = ""
        self._limit = threading.Timer(PATIENCE_SECONDS, self.process.kill)
        self._limit.start()

    def listen(self, until: str) -> str:
        """Read what it prints up to a line with ``until``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if until in line:
                return line
        pytest.fail(f"the demo ended before it said “{until}”:\n{self.said}")

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        rest, _nothing = self.process.communicate(timeout=PATIENCE_SECONDS)
        self.said += rest
        self._limit.cancel()
        return self.process.returncode

    def child(self, command: str) -> psutil.Process:
        [found] = [each for each in psutil.Process(self.process.pid).children() if command in each.cmdline()]
        return found

    def log_in(self, name: str, password: str) -> urllib.request.OpenerDirector:
        """A browser's session of this person."""
        jar = http.cookiejar.CookieJar()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        browser.open(f"{self.address}/admin/login/").read()
        token = next(cookie.value for cookie in jar if cookie.name == "csrftoken")
        form = {"username": name, "password": password, "csrfmiddlewaretoken": token or "", "next": "/admin/"}
        browser.open(f"{self.address}/admin/login/", urllib.parse.urlencode(form).encode()).read()
        return browser


@contextmanager
def running(var: Path) -> Iterator[Demo]:
    demo = Demo(var, free_port())
    try:
        demo.listen("The demo runs at")
        demo.listen("sam ")  # the last of the log-ins
        yield demo
    finally:
        demo.end()


@pytest.fixture
def var(tmp_path: Path) -> Path:
    # A space: every path has to survive it.
    folder = tmp_path / "the demo's data"
    folder.mkdir()
    return folder


def manage(var: Path, *arguments: str) -> str:
    environment_of_demo = {**surroundings(var), "DJANGO_SETTINGS_MODULE": "conf.settings"}
    del environment_of_demo["DATABASE_URL"]
    return subprocess.run(
        [sys.executable, PROJECT / "manage.py", *arguments],
        env=environment_of_demo,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    ).stdout


# A person starts it


@only_sqlite
@pytest.mark.processes
def test_the_demo_starts_and_lets_its_people_in_and_a_second_start_keeps_everything(var: Path) -> None:
    with running(var) as demo:
        logins = contents.passwords(var / "demo_logins")
        assert all(f"{name} " in demo.said and password in demo.said for name, password in logins.items())
        page = demo.log_in("admin", logins["admin"]).open(f"{demo.address}/scheduler/").read().decode()
        assert "Countdown" in page
        assert demo.end() == 0
    assert stat.S_IMODE((var / "demo_logins").stat().st_mode) == 0o600
    assert stat.S_IMODE((var / "secret_key").stat().st_mode) == 0o600

    manage(
        var,
        "shell",
        "-c",
        "from django.contrib.auth.models import User; from scheduler.models import Task;"
        "Task.objects.get(name='Countdown').delete(); User.objects.get(username='sam').delete();"
        "user = User.objects.get(username='admin'); user.set_password('changed by a person'); user.save()",
    )
    with running(var) as demo:
        page = demo.log_in("admin", "changed by a person").open(f"{demo.address}/scheduler/").read().decode()
        assert "Machine report" in page
        assert "Countdown" not in page
    assert "False" in manage(
        var,
        "shell",
        "-c",
        "from django.contrib.auth.models import User; print(User.objects.filter(username='sam').exists())",
    )


@only_sqlite
@pytest.mark.processes
def test_ctrl_c_ends_both_processes_and_a_task_goes_on_until_the_next_start_finds_it(var: Path) -> None:
    program = f"import pathlib, time\nwhile not pathlib.Path({str(var / 'go')!r}).exists(): time.sleep(0.02)\n"
    with running(var) as demo:
        manage(
            var,
            "shell",
            "-c",
            "from django.utils import timezone; from scheduler.models import Task;"
            "task = Task.objects.get(name='Count words (shell script)');"
            f"task.start_now(by=None, now=timezone.now(), arguments=[{sys.executable!r}, '-c', {program!r}])",
        )
        question = (
            "from scheduler.models import Run;"
            "print([(run.pid, run.status) for run in Run.objects.exclude(requested_by_name='x').filter(slot_at=None)])"
        )
        task = _wait_for_pid(var, question)
        children = psutil.Process(demo.process.pid).children()
        assert demo.end(signal.SIGINT) == 0
        assert not any(child.is_running() for child in children)
        assert psutil.pid_exists(task)
    with running(var):
        (var / "go").touch()
        psutil.wait_procs([psutil.Process(task)] if psutil.pid_exists(task) else [], timeout=PATIENCE_SECONDS)
        while "completed" not in (answer := manage(var, "shell", "-c", question)):
            assert "processing" in answer


def _wait_for_pid(var: Path, question: str) -> int:
    while True:
        answer = manage(var, "shell", "-c", question)
        if "processing" in answer and (found := re.search(r"\((\d+),", answer)):
            return int(found[1])
        assert "queued" in answer or "processing" in answer, answer


@only_sqlite
@pytest.mark.processes
@pytest.mark.parametrize(
    ("command", "other", "name"), [("poller", "runserver", "poller"), ("runserver", "poller", "web server")]
)
def test_when_one_process_dies_the_demo_says_so_and_ends_the_other(
    var: Path, command: str, other: str, name: str
) -> None:
    with running(var) as demo:
        survivor = demo.child(other)
        demo.child(command).kill()
        demo.listen(f"the {name} ended by itself (signal 9)")
        demo.process.wait(PATIENCE_SECONDS)
        assert demo.process.returncode == 1
        assert not survivor.is_running()


@only_sqlite
@pytest.mark.processes
def test_a_second_demo_on_the_same_data_is_refused_whatever_its_port(var: Path) -> None:
    with running(var) as demo:
        port = demo.address.rpartition(":")[2]
        second = call("--port", port, var=var)
        assert second.returncode == 1
        holder = f"process {demo.process.pid}, {demo.address}/"
        assert second.stdout == f"demo/run: A demo runs already on {var}: {holder}. End it, or use that one.\n"


@only_sqlite
@pytest.mark.processes
def test_the_check_runs_every_sample_task_and_leaves_the_demos_data_alone(var: Path) -> None:
    done = call("--check", var=var)
    assert done.returncode == 0, done.stdout + done.stderr
    for sample in contents.SAMPLES:
        expected = "failed" if sample.fails else "completed"
        assert re.search(rf"^{re.escape(sample.name)} +{expected} ", done.stdout, re.MULTILINE)
    assert list(var.iterdir()) == []


@only_sqlite
@pytest.mark.processes
def test_the_check_is_red_when_a_task_does_not_end_as_it_should(var: Path) -> None:
    manage(var, "migrate", "--verbosity", "0")
    manage(var, "setup_demo")
    # No poller: nothing is ever finished.
    with pytest.raises(subprocess.CalledProcessError) as caught:
        manage(var, "check_demo", "--seconds", "0")
    assert "were not finished within 0 seconds" in caught.value.stderr
    assert "expected completed" in caught.value.stdout


# What a person can get wrong


def test_a_taken_port_is_one_sentence(var: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = call("--port", str(port), var=var)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"demo/run: Port {port} is taken by another program. End that, or choose another: demo/run --port N."
    ]
    assert done.stderr == ""


@pytest.mark.parametrize(
    "options", [["--prot", "8000"], ["--port", "eighty"], ["--port", "0"], ["--port", "65536"], ["x"]]
)
def test_a_wrong_option_is_told_before_anything_is_done(var: Path, options: list[str]) -> None:
    done = call(*options, var=var)
    assert done.returncode == 2
    assert "usage: demo/run" in done.stderr
    assert list(var.iterdir()) == []


def test_check_and_port_do_not_go_together(var: Path) -> None:
    assert call("--check", "--port", "8001", var=var).returncode == 2


def test_a_data_folder_that_cannot_be_made_is_one_sentence(var: Path) -> None:
    (var / "file").touch()
    done = call("--port", str(free_port()), var=var / "file" / "below")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].startswith(
        f"demo/run: The folder {var}/file/below cannot be made: Not a directory."
    )
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("script", ["demo/run", "tests/run"])
def test_an_old_python_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    source = (PROJECT / script).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))  # an older one has to get as far as the sentence
    monkeypatch.setattr(sys, "version_info", (3, 10, 12))
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit, match=r"^Python 3\.11 or newer is needed; "):
        runpy.run_path(str(PROJECT / script))


# The virtual environment


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of nothing, whose environment is still to be made."""
    monkeypatch.setattr(environment, "PROJECT", tmp_path)
    monkeypatch.setattr(environment, "FOLDER", tmp_path / ".venv")
    monkeypatch.setattr(environment, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    return tmp_path


@pytest.mark.parametrize("left_over_folder", [False, True])
def test_a_python_without_venv_is_told_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, left_over_folder: bool
) -> None:
    left_over = SimpleNamespace(origin=None if left_over_folder else "not looked at")
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: left_over if name == "venv" or left_over_folder else None
    )
    with pytest.raises(environment.SetUpError, match="apt-get install python3-venv"):
        environment.prepare("requirements.txt")
    assert not (folder / ".venv").exists()


@pytest.mark.processes
def test_the_environment_is_made_once_and_again_when_it_is_broken(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = environment.prepare("requirements.txt")
    assert "Making the virtual environment" in capsys.readouterr().out
    where = subprocess.run(
        [python, "-c", "import sys; print(sys.path[-1])"], capture_output=True, text=True, check=True
    )
    assert where.stdout.strip() == str(folder)

    environment.prepare("requirements.txt")
    assert capsys.readouterr().out == ""

    python.unlink()
    python.symlink_to("/nowhere/python")
    environment.prepare("requirements.txt")
    assert "Making the virtual environment" in capsys.readouterr().out


@pytest.mark.processes
def test_changed_pins_are_installed_and_what_pip_says_is_passed_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.prepare("requirements.txt")
    (folder / "requirements.txt").write_text("./no-such-folder\n")
    capsys.readouterr()
    for _attempt in range(2):  # a failed installation does not count as done
        with pytest.raises(environment.SetUpError, match=r"pip could not install .*no-such-folder"):
            environment.prepare("requirements.txt")
        assert "Installing the packages of requirements.txt" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_one_sentence(folder: Path) -> None:
    (folder / ".venv").write_text("in the way")
    with pytest.raises(
        environment.SetUpError, match=r"cannot be set up: .*/\.venv: File exists\. The project's folder must"
    ):
        environment.prepare("requirements.txt")


def test_what_belongs_to_another_python_is_kept_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    assert "PYTHONPATH" not in environment.environment()
    assert environment.environment(NAME="value")["NAME"] == "value"


def test_programs_that_the_group_may_write_are_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "PROJECT", tmp_path)
    program = tmp_path / "sample_tasks" / "x.py"
    program.parent.mkdir()
    program.touch()
    program.chmod(0o664)
    program.parent.chmod(0o775)
    start._make_programs_safe()
    assert stat.S_IMODE(program.stat().st_mode) == 0o644
    assert stat.S_IMODE(program.parent.stat().st_mode) == 0o755


# What is in the demo


@pytest.fixture
def logins(tmp_path: Path) -> Path:
    return tmp_path / "demo_logins"


@pytest.mark.django_db
def test_the_demo_has_a_task_for_every_sample_program(logins: Path) -> None:
    assert contents.set_up(timezone.now(), logins)
    programs = {path.name for path in (PROJECT / "sample_tasks").glob("*.py") if not path.name.startswith("_")}
    assert {task.program_path for task in Task.objects.all()} == programs
    assert all(schedule.next_run is not None for schedule in Schedule.objects.all())
    used = set(Recurrence.objects.filter(schedules__isnull=False).values_list("name", flat=True))
    assert used == {rule.name for rule in contents.recurrences()}


@pytest.mark.django_db
def test_what_a_person_changed_or_deleted_stays_so(logins: Path) -> None:
    contents.set_up(timezone.now(), logins)
    Task.objects.all().delete()
    Recurrence.objects.filter(name="Every hour").update(every=2)
    known = logins.read_text()
    assert not contents.set_up(timezone.now(), logins)
    assert not Task.objects.exists()
    assert Recurrence.objects.get(name="Every hour").every == 2
    assert logins.read_text() == known


@pytest.mark.django_db
def test_a_new_database_keeps_the_passwords_that_people_know(logins: Path) -> None:
    known = contents.passwords(logins)
    contents.set_up(timezone.now(), logins)
    for name, password in known.items():
        assert get_user_model().objects.get(username=name).check_password(password)
    assert len(set(known.values())) == len(contents.PEOPLE)


@pytest.mark.django_db
def test_a_damaged_file_of_log_ins_changes_nothing(logins: Path) -> None:
    logins.write_text("admin secret\n")
    with pytest.raises(ValueError, match="has no password for olivia"):
        contents.set_up(timezone.now(), logins)
    assert not get_user_model().objects.exists()


@pytest.mark.django_db
def test_everybody_in_the_demo_may_do_what_is_said_about_them(logins: Path) -> None:
    contents.set_up(timezone.now(), logins)
    people = {user.get_username(): user for user in get_user_model().objects.all()}

    def names(person: str, action: str) -> set[str]:
        return set(access.tasks_with(people[person], action).values_list("name", flat=True))

    assert names("admin", "delete_task") == {sample.name for sample in contents.SAMPLES}
    assert names("olivia", "run_task") == {sample.name for sample in contents.SAMPLES if sample.owner == "olivia"}
    assert names("rachel", "view_task") == names("rachel", "run_task") == {"Countdown"}
    assert "Machine report" in names("victor", "view_task")
    assert names("victor", "run_task") == set()
    assert names("felix", "view_output") == {"Machine report"}
    assert names("felix", "view_task") == set()
    assert not people["felix"].is_staff
    assert all(not names("sam", action) for action in access.ACTIONS)
    assert people["sam"].is_staff
