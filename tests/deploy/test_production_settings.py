"""conf/settings.py as a production site reads it: refused in one sentence, or clean to the last deployment check."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def production(folder: Path) -> dict[str, str]:
    """The documented environment of a production site, and nothing of this test run's."""
    return {
        "PATH": os.environ["PATH"],
        "DJANGO_HTTPS": "1",
        "DJANGO_ALLOWED_HOSTS": "tasks.example.org",
        "DJANGO_SECRET_KEY": secrets.token_urlsafe(60),
        "DATABASE_URL": "postgres://scheduler:secret@127.0.0.1/scheduler",
        "SCHEDULER_VAR": str(folder),
        "SENDFILE_BACKEND": "django_sendfile.backends.nginx",
    }


def manage(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, PROJECT / "manage.py", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_documented_environment_leaves_the_deployment_checks_nothing_to_say(tmp_path: Path) -> None:
    done = manage("check", "--deploy", "--fail-level", "WARNING", environment=production(tmp_path))
    assert (done.returncode, done.stderr.count("WARNINGS")) == (0, 0), done.stderr


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DJANGO_SECRET_KEY", None, "There is no secret key"),
        ("DJANGO_SECRET_KEY", "short", "can be guessed"),
        ("DJANGO_SECRET_KEY", "x" * 80, "can be guessed"),
        ("DJANGO_SECRET_KEY", "django-insecure-" + "abcdefghijklmnopqrstuvwxyz0123456789" * 2, "others know"),
        ("DJANGO_DEBUG", "1", "DJANGO_DEBUG=1"),
        ("DJANGO_ALLOWED_HOSTS", None, "DJANGO_ALLOWED_HOSTS is not set"),
        ("DJANGO_ALLOWED_HOSTS", " , ", "DJANGO_ALLOWED_HOSTS is not set"),
        ("DJANGO_ALLOWED_HOSTS", "tasks.example.org, *", "allows every host"),
        ("SCHEDULER_PROGRAM_ROOTS", "/srv/tasks", "name=value"),
    ],
)
@pytest.mark.parametrize("command", ["check", "poller"])
def test_what_is_missing_or_unsafe_is_refused_in_one_sentence(
    tmp_path: Path, command: str, name: str, value: str | None, expected: str
) -> None:
    environment = {key: given for key, given in {**production(tmp_path), name: value}.items() if given is not None}
    done = manage(command, environment=environment)
    assert done.returncode == 1
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_key_file_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text(secrets.token_urlsafe(60))
    environment = production(tmp_path)
    del environment["DJANGO_SECRET_KEY"]
    (tmp_path / "secret_key").chmod(0o644)
    assert "chmod o=" in manage("check", environment=environment).stderr
    (tmp_path / "secret_key").chmod(0o640)
    assert manage("check", environment=environment).returncode == 0


def test_no_key_is_made_behind_a_production_sites_back(tmp_path: Path) -> None:
    environment = production(tmp_path)
    del environment["DJANGO_SECRET_KEY"]
    assert manage("check", environment=environment).returncode == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DATABASE_URL", None, "scheduler.W007"),
        ("SENDFILE_BACKEND", None, "scheduler.W006"),
        ("DJANGO_HTTPS", None, "security.W"),
    ],
)
def test_what_is_possible_but_not_meant_for_production_is_a_warning(
    tmp_path: Path, name: str, value: str | None, expected: str
) -> None:
    environment = {key: given for key, given in {**production(tmp_path), name: value}.items() if given is not None}
    done = manage("check", "--deploy", "--fail-level", "WARNING", environment=environment)
    assert done.returncode == 1
    assert expected in done.stderr
