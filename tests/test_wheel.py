"""The wheel in somebody else's project: built, installed into a fresh environment, set up by the README's own words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 300.0

pytestmark = [
    pytest.mark.wheel,
    pytest.mark.skipif(
        os.environ.get("DATABASE_URL", "sqlite:").partition(":")[0] != "sqlite",
        reason="a new project is on SQLite, whatever these tests use",
    ),
]


def outside() -> dict[str, str]:
    """An environment in which nothing leads back to this checkout."""
    ours = ("DJANGO_", "SCHEDULER_", "PYTEST_", "PYTHON", "DATABASE_URL", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def call(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=outside(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def readme_block(first_line: str) -> str:
    """The README's block of code that begins with this comment."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", (PROJECT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    [found] = [block for block in blocks if block.startswith(f"# {first_line}\n")]
    return str(found)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # Without isolation: the pinned hatchling builds it.
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, PROJECT, folder=folder)
    [built] = folder.glob("*.whl")
    return built


def test_only_the_app_is_in_the_wheel_and_all_of_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    app = {name for name in inside if name.startswith("scheduler/")}
    about = {name for name in inside if name.split("/")[0].endswith(".dist-info")}
    assert inside == app | about
    assert any(name.endswith("/LICENSE") for name in about)
    files = {path for path in (PROJECT / "scheduler").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert app == {str(path.relative_to(PROJECT)) for path in files}
    for expected in ("py.typed", "migrations/0001_initial.py", "supervisor/__main__.py"):
        assert f"scheduler/{expected}" in app
    for kind in (".html", ".css", ".js"):
        assert any(name.endswith(kind) for name in app), kind


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project with a user model of its own, set up as the README says; its Python is in ``venv``."""
    folder = tmp_path_factory.mktemp("site")
    call(sys.executable, "-m", "venv", folder / "venv", folder=folder)
    python = folder / "venv" / "bin" / "python"
    install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # What the wheel itself asks for, and nothing else; the pins only say which version.
    call(*install, "--constraint", PROJECT / "requirements.txt", wheel, folder=folder)
    call(python, "-m", "django", "startproject", "mysite", folder, folder=folder)
    call(python, "manage.py", "startapp", "people", folder=folder)
    (folder / "people" / "models.py").write_text(
        "from django.contrib.auth.models import AbstractUser\n\n\nclass Person(AbstractUser):\n    pass\n"
    )
    settings = folder / "mysite" / "settings.py"
    own = "\nINSTALLED_APPS += ['people']\nAUTH_USER_MODEL = 'people.Person'\n"
    settings.write_text(settings.read_text() + own + readme_block("settings.py"))
    (folder / "mysite" / "urls.py").write_text(readme_block("urls.py"))
    (folder / "tasks").mkdir(mode=0o755)
    program = folder / "tasks" / "count_users.py"
    program.write_text(readme_block("tasks/count_users.py"))
    program.chmod(0o644)
    call(python, "manage.py", "makemigrations", "people", folder=folder)
    call(python, "manage.py", "migrate", folder=folder)
    return folder


@pytest.fixture(scope="module")
def shell(site: Path) -> Callable[[str], str]:
    """Run a line of Python in the project's shell, and give what it prints."""

    def run(code: str) -> str:
        return call(
            site / "venv" / "bin" / "python", "manage.py", "shell", "--verbosity", "0", "-c", code, folder=site
        ).strip()

    return run


def test_the_checkout_is_not_used(shell: Callable[[str], str], site: Path) -> None:
    assert shell("import scheduler; print(scheduler.__file__)").startswith(f"{site}/venv/")
    assert str(PROJECT) not in shell("import sys; print(sys.path)").split("'")


def test_the_set_up_of_the_readme_is_complete(site: Path) -> None:
    python = site / "venv" / "bin" / "python"
    said = call(python, "manage.py", "check", "--database", "default", "--fail-level", "WARNING", folder=site)
    assert "no issues" in said
    call(python, "manage.py", "makemigrations", "--check", "--dry-run", folder=site)
    call(python, "-m", "pip", "check", folder=site)


def test_the_task_of_the_readme_runs_by_hand(site: Path) -> None:
    folder = site / "by hand"
    folder.mkdir()
    call(site / "venv" / "bin" / "python", site / "tasks" / "count_users.py", folder=folder)
    assert (folder / "users.csv").exists()


@pytest.mark.processes
def test_a_poller_runs_a_task_and_keeps_its_file(site: Path, shell: Callable[[str], str]) -> None:
    shell(
        "from django.contrib.auth import get_user_model; from django.utils import timezone\n"
        "from scheduler.models import Task\n"
        "owner = get_user_model().objects.create_user('olivia', is_staff=True)\n"
        "task = Task(name='Count users', owner=owner, program_root='tasks', program_path='count_users.py')\n"
        "task.full_clean(); task.save(); task.start_now(by=owner, now=timezone.now())"
    )
    log = site / "poller.log"
    with log.open("w") as output:
        poller = subprocess.Popen(
            [site / "venv" / "bin" / "python", "manage.py", "poller"],
            cwd=site,
            env=outside(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        status = ""
        while status not in {"completed", "failed", "cancelled"}:
            assert poller.poll() is None, log.read_text()
            status = shell("from scheduler.models import Run; print(Run.objects.get().status)")
        told = shell(
            "from scheduler.models import Run; from scheduler import outputs\n"
            "run = Run.objects.get(); print(run.status, run.message); print(outputs.log_path(run).read_text())\n"
            "for file in run.files.all(): print(file.name, outputs.file_path(file).read_bytes())"
        )
        assert "completed 1 users written." in told
        assert "users.csv b'1,olivia" in told
    finally:
        poller.terminate()
        poller.wait(PATIENCE_SECONDS)
    assert poller.returncode == 0
    assert not psutil.pid_exists(poller.pid)


def test_the_pages_are_there(shell: Callable[[str], str]) -> None:
    code = (
        "from django.test import Client; from django.contrib.auth import get_user_model\n"
        "user, _ = get_user_model().objects.get_or_create(username='chief', is_staff=True, is_superuser=True)\n"
        "client = Client(headers={'host': 'localhost'}); client.force_login(user)\n"
        "print([client.get(path).status_code for path in ('/scheduler/', '/admin/scheduler/task/')])"
    )
    assert shell(code) == "[200, 200]"


def test_the_versions_agree(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        about = archive.read(name).decode()
    source = (PROJECT / "scheduler" / "__init__.py").read_text(encoding="utf-8")
    [version] = re.findall(r'__version__ = "(.+)"', source)
    assert f"\nVersion: {version}\n" in about
