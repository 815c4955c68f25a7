"""Which version of its program a run was started with, and what is said about it."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.urls import reverse
from django.utils import timezone

from scheduler import outputs
from scheduler.models import ProgramVersion, Run
from scheduler.models import run as run_models
from scheduler.poller import versions
from scheduler.poller.versions import Versions
from scheduler.states import Status
from scheduler.supervisor import folder as protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from django.contrib.auth.models import User
    from django.test import Client
    from pytest_django import DjangoAssertNumQueries

    MakeRun = Callable[..., Run]

pytestmark = pytest.mark.django_db

LATER = timedelta(hours=1)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text("print('first')\n")
    return path


def start(make_run: MakeRun, program: object, *, at: datetime | None = None, environment: Any = ("PATH",)) -> Run:
    """A run that was claimed at an instant (in an hour), with the folder that its launch has left."""
    run = make_run(Status.PROCESSING, claimed_at=at or timezone.now() + LATER, program="programs/program.py")
    folder = outputs.run_folder(run.uuid)
    folder.make()
    folder.write(protocol.SPEC, {"argv": ["/usr/bin/python3", program, "--x"], "environment": environment})
    return run


def version_of(run: Run, known: Versions | None = None) -> ProgramVersion | None:
    key = (known or Versions()).of(run, outputs.run_folder(run.uuid))
    return None if key is None else ProgramVersion.objects.get(pk=key)


def test_content_time_interpreter_and_names_of_variables_are_noted(make_run: MakeRun, program: Path) -> None:
    version = version_of(start(make_run, str(program), environment=["PATH", "LANG"]))
    assert version is not None
    assert version.program == "programs/program.py"
    assert version.sha256 == hashlib.sha256(program.read_bytes()).hexdigest()
    assert version.size == program.stat().st_size
    assert version.modified_at == datetime.fromtimestamp(program.stat().st_mtime, UTC)
    assert version.interpreter == "/usr/bin/python3"
    assert version.environment_names == ["LANG", "PATH"]


def test_runs_of_the_same_version_share_a_row_and_ask_the_database_once(
    make_run: MakeRun, program: Path, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    known = Versions()
    first, second = start(make_run, str(program)), start(make_run, str(program))
    key = known.of(first, outputs.run_folder(first.uuid))
    with django_assert_num_queries(0):
        assert known.of(second, outputs.run_folder(second.uuid)) == key
    other_poller = version_of(start(make_run, str(program)))
    assert other_poller is not None
    assert other_poller.pk == key
    assert ProgramVersion.objects.count() == 1


@pytest.mark.parametrize("change", ["content", "environment", "time"])
def test_what_has_changed_is_another_version(make_run: MakeRun, program: Path, change: str) -> None:
    known = Versions()
    first = version_of(start(make_run, str(program)), known)
    names = ["PATH"]
    if change == "content":
        program.write_text("print('second')\n")
    elif change == "time":
        os.utime(program, (1, 1))
    else:
        names = ["LANG"]
    second = version_of(start(make_run, str(program), environment=names), known)
    assert first is not None
    assert second is not None
    assert first != second
    assert (first.sha256 == second.sha256) == (change != "content")


def test_a_program_that_was_changed_since_the_claim_is_not_told(make_run: MakeRun, program: Path) -> None:
    assert version_of(start(make_run, str(program), at=timezone.now() - LATER)) is None


@pytest.mark.parametrize("what", ["missing", "folder", "fifo", "link", "too large"])
def test_what_is_no_file_to_be_read_has_no_version(
    make_run: MakeRun, program: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "other"
    match what:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)  # whoever opened it would wait for ever
        case "link":
            path.symlink_to(program)
        case "too large":
            monkeypatch.setattr(versions, "PROGRAM_BYTES", 3)
            path = program
    assert version_of(start(make_run, str(path))) is None


@pytest.mark.parametrize(
    ("argv", "environment"),
    [(5, ["PATH"]), (["python"], ["PATH"]), (["python", 5], ["PATH"]), (["python", "a\0b"], ["PATH"]), (None, None)],
)
def test_a_run_folder_that_was_spoilt_has_no_version(make_run: MakeRun, argv: object, environment: object) -> None:
    run = start(make_run, "x")
    outputs.run_folder(run.uuid).write(protocol.SPEC, {"argv": argv, "environment": environment})
    assert version_of(run) is None


# The page


def version(sha256: str, *, environment: list[str] | None = None) -> ProgramVersion:
    return ProgramVersion.of(
        program="programs/program.py",
        sha256=sha256 * 64,
        size=100,
        modified_at=timezone.now(),
        interpreter="/usr/bin/python3",
        environment=environment or ["PATH"],
    )


@pytest.fixture
def page(client: Client, owner: User) -> Callable[[Run], str]:
    client.force_login(owner)
    return lambda run: client.get(run.get_absolute_url()).text


def test_a_program_that_has_changed_since_the_last_success_is_told(
    make_run: MakeRun, page: Callable[[Run], str]
) -> None:
    success = make_run(Status.COMPLETED, version=version("a", environment=["PATH", "LANG"]))
    make_run(Status.FAILED, version=version("b"))
    failed = make_run(Status.FAILED, version=version("b", environment=["PATH", "TOKEN"]))
    shown = page(failed)
    assert 'id="program-changed"' in shown
    assert f'last success, <a href="{success.get_absolute_url()}">run #{success.pk}</a>' in shown
    assert f'<code title="{"a" * 64}">' in shown
    assert f'<code title="{"b" * 64}">' in shown
    assert "TOKEN was not set in the last success." in shown
    assert "LANG was set in the last success." in shown


def test_where_the_interpreter_lies_is_for_those_who_may_see_the_output(
    make_run: MakeRun, page: Callable[[Run], str], client: Client, viewer: User
) -> None:
    run = make_run(Status.FAILED, version=version("a"))
    assert "/usr/bin/python3" in page(run)
    client.force_login(viewer)
    shown = client.get(run.get_absolute_url()).text
    assert f'<code title="{"a" * 64}">' in shown
    assert "/usr/bin/python3" not in shown


def test_a_program_that_is_the_same_is_told_too(make_run: MakeRun, page: Callable[[Run], str]) -> None:
    assert "There is no earlier success to compare with." in page(make_run(Status.FAILED, version=version("a")))
    make_run(Status.COMPLETED)
    assert "the version is not known" in page(make_run(Status.FAILED, version=version("a")))
    make_run(Status.COMPLETED, version=version("a"))
    shown = page(make_run(Status.FAILED, version=version("a")))
    assert "The same as in the last success" in shown
    assert 'id="program-changed"' not in shown
    assert "Its version is not known" in page(make_run(Status.FAILED))
    assert "Its version is not known" not in page(make_run(Status.SKIPPED))


def test_the_admin_names_the_version_too(make_run: MakeRun, client: Client, owner: User) -> None:
    client.force_login(owner)
    run = make_run(Status.FAILED, version=version("c"))
    assert "programs/program.py cccccccccccc" in client.get(reverse("admin:scheduler_run_change", args=[run.pk])).text


def test_the_last_success_is_one_of_the_last_runs_of_the_same_task(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_models, "LAST_RUNS", 2)
    success = make_run(Status.COMPLETED)
    first, second, third = (make_run(Status.FAILED) for _ in range(3))
    make_run(Status.COMPLETED)
    assert Run.objects.last_success_before(success) is None
    assert Run.objects.last_success_before(first) == success
    assert Run.objects.last_success_before(second) == success
    assert Run.objects.last_success_before(third) is None
