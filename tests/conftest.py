"""Fixtures of the tests: people first, then what they work with."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from scheduler.models import Poller, Recurrence, Run, Task
from scheduler.states import FINISHED, Reason, Status
from tests import servers

if TYPE_CHECKING:
    from collections.abc import Callable


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What pages look like and do in a browser is up to no database: on PostgreSQL only a full run has these tests."""
    if connection.vendor == "sqlite" or servers.in_full_run():
        return
    left_out = [item for item in items if "look" in getattr(item, "fixturenames", ())]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


# People: each with a name that says what they may do with `task`.


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_superuser("admin")


@pytest.fixture
def owner(db: None) -> User:
    """Staff; owns the task, and so has every permission on it."""
    return User.objects.create_user("owner", is_staff=True)


@pytest.fixture
def task(owner: User) -> Task:
    return Task.objects.create(
        name="Nightly report", owner=owner, program_root="sample_tasks", program_path="countdown.py", arguments=["3"]
    )


@pytest.fixture
def viewer(task: Task) -> User:
    return _person(task, "viewer", "view_task")


@pytest.fixture
def runner(task: Task) -> User:
    return _person(task, "runner", "view_task", "run_task")


@pytest.fixture
def stopper(task: Task) -> User:
    return _person(task, "stopper", "view_task", "stop_run")


@pytest.fixture
def reader(task: Task) -> User:
    """Not staff: downloads files and sees no page."""
    return _person(task, "reader", "view_output", is_staff=False)


@pytest.fixture
def stranger(db: None) -> User:
    """Staff, without any permission."""
    return User.objects.create_user("stranger", is_staff=True)


@pytest.fixture
def visitor(db: None) -> User:
    """Signed in: not staff, without any permission."""
    return User.objects.create_user("visitor")


def _person(task: Task, name: str, *permissions: str, is_staff: bool = True) -> User:
    user = User.objects.create_user(name, is_staff=is_staff)
    task.grant(user, *permissions)
    return user


# What they work with


@pytest.fixture
def recurrence(db: None) -> Recurrence:
    return Recurrence.objects.create(name="Every hour", kind="every", every=1, unit="hours")


@pytest.fixture
def make_run(task: Task) -> Callable[..., Run]:
    """Makes a run in a status, as the database's constraints want it, without any process."""
    return lambda status=Status.COMPLETED, **values: _run(values.pop("task", task), status, **values)


def _run(task: Task, status: Status, **values: Any) -> Run:
    now = values.pop("now", None) or timezone.now()
    columns: dict[str, Any] = {"task": task, "status": status, "trigger": Run.Trigger.MANUAL}
    columns |= {"queued_at": now, "due_at": now, "ready_at": now, "arguments": ["3"]}
    if status == Status.PROCESSING:
        columns |= {"claim_token": "token", "host": uuid.uuid4(), "host_name": "here", "pid": 4242}
        columns |= {"claimed_at": now, "started_at": now}
    elif status in FINISHED:
        reasons = {Status.CANCELLED: Reason.STOPPED_BY_USER, Status.SKIPPED: Reason.OVERLAP}
        columns |= {"finished_at": now, "reason": reasons.get(status, Reason.EXIT_CODE)}
        if status in {Status.COMPLETED, Status.FAILED}:
            columns |= {"exit_code": int(status == Status.FAILED), "started_at": now - timedelta(seconds=3)}
    return Run.objects.create(**{**columns, **values})


@pytest.fixture
def poller(db: None) -> Poller:
    """A poller that has just reported."""
    now = datetime.now(UTC)
    return Poller.objects.create(
        host=uuid.uuid4(),
        host_name="here",
        pid=1,
        boot_id="boot",
        start_ticks=1,
        version="0",
        capacity=4,
        started_at=now,
        seen_at=now,
    )


@pytest.fixture
def start_kind() -> str:
    """How programs are started; a module that tries both has a fixture of this name with the two as parameters."""
    return "cold"
