"""The project's virtual environment, ``.venv``: made from the pins of the requirements files, and kept while they stay.

Standard library only: ``demo/run`` and ``tests/run`` import it before anything is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parent.parent
FOLDER = PROJECT / ".venv"
PYTHON = FOLDER / "bin" / "python"


class SetUpError(Exception):
    """The project cannot be set up here; the text is one sentence (or two) for people."""


def prepare(*requirements: str) -> Path:
    """Make ``.venv`` where it is missing, install what the requirements files pin, and return its Python.

    What was installed from an unchanged file is not looked at again. Raises SetUpError.
    """
    try:
        with _alone():
            if not _works():
                _make()
            for name in requirements:
                _install(PROJECT / name)
            _put_project_on_path()
    except OSError as error:
        raise SetUpError(
            f"The virtual environment {FOLDER} cannot be set up: {error.filename or FOLDER}: {error.strerror}. "
            "The project's folder must be writable for you."
        ) from error
    return PYTHON


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Two set-ups at once would install into each other's half-made environment: the second one waits."""
    folder = os.open(PROJECT, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _works() -> bool:
    """An interrupted creation leaves no pip; an upgrade of the system's Python leaves a dangling link."""
    if not PYTHON.exists():
        return False
    check = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([PYTHON, "-I", "-c", check], capture_output=True, check=False).returncode == 0


def _make() -> None:
    # A folder that is left over from an uninstalled package is found too, but it has no origin.
    if not all((found := importlib.util.find_spec(name)) and found.origin for name in ("venv", "ensurepip")):
        raise SetUpError(
            f"{sys.executable} has no module venv, which makes the project's environment. "
            "Install it (on Debian, as root: apt-get install python3-venv), then start this again."
        )
    FOLDER.mkdir(exist_ok=True)  # before the message: a folder that is read-only says so first
    say(f"Making the virtual environment {FOLDER} …")
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", FOLDER], capture_output=True, text=True, errors="replace", check=False
    )
    if made.returncode != 0:
        raise SetUpError(f"The virtual environment {FOLDER} could not be made. {_last_line(made.stdout + made.stderr)}")


def _install(requirements: Path) -> None:
    """Install one requirements file, unless the copy of it that was left by the last installation is the same."""
    installed = FOLDER / f"installed-{requirements.name}"
    wanted = requirements.read_bytes()
    if installed.exists() and installed.read_bytes() == wanted:
        return
    say(f"Installing the packages of {requirements.name} into {FOLDER} (once) …")
    installed.unlink(missing_ok=True)
    # Without dependencies: the file pins them all, and nothing that it does not name gets in.
    quietly = ["--quiet", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run(
        [PYTHON, "-m", "pip", "install", "--no-deps", *quietly, "--requirement", requirements],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=environment(),
    )
    if done.returncode != 0:
        raise SetUpError(
            f"pip could not install the packages of {requirements.name}. {_last_line(done.stdout + done.stderr)} "
            "Is there a network, and a package index that pip may use?"
        )
    installed.write_bytes(wanted)


def _put_project_on_path() -> None:
    """So that ``python sample_tasks/x.py`` finds the site by hand; written again, because the folder may have moved."""
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([PYTHON, "-I", "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    file = Path(packages) / "django-task-scheduler.pth"
    line = f"{PROJECT}\n"
    if not file.exists() or file.read_text() != line:
        file.write_text(line)


def environment(**changes: str) -> dict[str, str]:
    """This process's environment for the project's own programs: without what would make Python look elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    return {**kept, **changes}


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.upper().startswith("ERROR")]
    return (errors or lines or ["It said nothing."])[-1].rstrip(".") + "."
