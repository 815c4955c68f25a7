"""Alarms about late, missed and far too long runs: a row, a signal and a mail, once each."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from django.core import mail
from django.core.exceptions import ValidationError
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from scheduler import signals
from scheduler.conf import scheduler_settings
from scheduler.models import Alarm, Run, RunEvent, SchedulerState, Task
from scheduler.poller.alarms import Alarms, raise_late
from scheduler.states import Status
from tests.chain import at, planned, tick

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User

pytestmark = pytest.mark.django_db


class NoServer(BaseEmailBackend):
    """A mail server that cannot be reached."""

    def send_messages(self, _messages: Any) -> int:
        raise ConnectionRefusedError("nobody listens")


@pytest.fixture
def task(task: Task) -> Task:
    task.late_after_seconds, task.alarm_addressees = 300, "ops@example.org\nnight@example.org"
    task.save()
    return task


@pytest.fixture
def heard() -> Any:
    """The alarms that a receiver of the signal was told of."""
    alarms: list[Alarm] = []

    def receiver(alarm: Alarm, **_kwargs: object) -> None:
        alarms.append(alarm)

    signals.alarm.connect(receiver)
    yield alarms
    signals.alarm.disconnect(receiver)


def test_a_run_that_waits_for_too_long_raises_one_alarm(task: Task, owner: User):
    run = task.start_now(by=owner, now=at("08:00"))
    raise_late(at("08:04:59"))
    assert not Alarm.objects.exists()
    raise_late(at("08:05"))
    raise_late(at("08:06"))
    alarm = Alarm.objects.get()
    assert (alarm.run, alarm.task, alarm.kind, alarm.at) == (run, task, Alarm.Kind.LATE, at("08:05"))
    assert str(alarm) == f"late: Nightly report #{run.pk}"


def test_what_has_started_or_is_not_watched_or_was_paused_is_not_late(
    task: Task, owner: User, make_run: Callable[..., Run]
):
    make_run(Status.PROCESSING, now=at("08:00"))
    other = Task.objects.create(name="Other", program_root="sample_tasks", program_path="countdown.py")
    other.start_now(by=owner, now=at("08:00"))
    raise_late(at("12:00"))
    task.start_now(by=owner, now=at("08:00"))
    run = Run.objects.get(task=task, status=Status.QUEUED)
    run.schedule = planned(task, anchor="2026-12-24 08:00")
    run.save()
    for each in (task, run.schedule, SchedulerState.get()):
        each.pause(by=owner, now=at("08:01"))
        raise_late(at("12:00"))
        assert not Alarm.objects.exists()
        each.resume()
    raise_late(at("12:00"))
    assert Alarm.objects.count() == 1


def test_an_alarm_is_told_once_by_signal_and_mail(task: Task, owner: User, heard: list[Alarm]):
    run = task.start_now(by=owner, now=at("08:00"))
    for now in ("08:05", "08:06"):
        Alarms().look(at(now))
    assert [alarm.run for alarm in heard] == [run]
    (message,) = mail.outbox
    assert message.to == ["ops@example.org", "night@example.org"]
    assert message.subject == "Nightly report: 1 alarm"
    assert f"Run #{run.pk}: It should have started, and still waits for its start." in message.body
    assert run.get_absolute_url() in message.body
    assert Alarm.objects.get().told_at == at("08:05")


def test_the_link_begins_with_the_address_of_the_site(task: Task, owner: User, settings: Any):
    settings.SCHEDULER = {**settings.SCHEDULER, "PUBLIC_URL": "https://example.org/"}
    assert scheduler_settings().public_url == "https://example.org"
    run = task.start_now(by=owner, now=at("08:00"))
    Alarms().look(at("08:05"))
    assert f"https://example.org{run.get_absolute_url()}" in mail.outbox[0].body


def test_several_alarms_of_a_task_are_one_mail(task: Task):
    for anchor in ("08:00", "08:20"):
        planned(task, anchor=anchor)
    tick(at("12:30"))
    Alarms().look(at("12:30"))
    assert [message.subject for message in mail.outbox] == [
        "Nightly report: 3 alarms"
    ]  # two gaps, and the slot of 12:00 still waits
    assert "no poller was up" in mail.outbox[0].body


def test_an_alarm_without_addressees_is_a_row_and_a_signal(task: Task, owner: User, heard: list[Alarm]):
    Task.objects.update(alarm_addressees="")
    task.start_now(by=owner, now=at("08:00"))
    Alarms().look(at("08:05"))
    assert len(heard) == 1
    assert mail.outbox == []


def test_a_receiver_that_fails_and_a_mail_server_that_is_down_stop_nobody(
    task: Task, owner: User, heard: list[Alarm], caplog: pytest.LogCaptureFixture
):
    def bad(**_kwargs: object) -> None:
        raise RuntimeError("broken receiver")

    task.start_now(by=owner, now=at("08:00"))
    signals.alarm.connect(bad)
    try:
        with (
            caplog.at_level(logging.WARNING),
            override_settings(EMAIL_BACKEND="tests.test_alarms.NoServer"),
        ):
            Alarms().look(at("08:05"))
    finally:
        signals.alarm.disconnect(bad)
    assert len(heard) == 1
    assert "nobody listens" in caplog.text
    assert "broken receiver" in caplog.text


def test_an_address_that_is_none_is_refused_in_the_form(task: Task):
    task.alarm_addressees = "ops@example.org, nobody"
    with pytest.raises(ValidationError) as raised:
        task.clean()
    assert "“nobody” is not an e-mail address." in raised.value.message_dict["alarm_addressees"][0]


# Far longer than usual

HERE = UUID(int=1)


@pytest.fixture
def took(task: Task, make_run: Callable[..., Run]) -> Callable[..., None]:
    """Completed runs of the task that took so many seconds each, the last one last."""

    def make(*seconds: float, status: Status = Status.COMPLETED) -> None:
        for each in seconds:
            make_run(status, started_at=at("06:00"), finished_at=at("06:00") + timedelta(seconds=each))

    return make


@pytest.fixture
def running(make_run: Callable[..., Run]) -> Callable[[], Run]:
    """A run of the task on this host, in progress since 08:00."""
    return lambda: make_run(Status.PROCESSING, now=at("08:00"), host=HERE)


def test_a_run_that_takes_far_longer_than_usual_raises_one_alarm_with_a_mail_and_a_line_in_its_history(
    task: Task, took: Callable[..., None], running: Callable[[], Run], heard: list[Alarm]
):
    took(90, 110, 100, 100, 5000)
    run, alarms = running(), Alarms()
    alarms.raise_long(HERE, at("08:04:59"))
    assert not Alarm.objects.exists()
    for each in (alarms, alarms, Alarms()):  # another poller, or the next one after a restart, too
        each._next_look = 0.0
        each.look(at("08:05"), host=HERE)
    alarm = Alarm.objects.get()
    assert (alarm.run, alarm.kind, alarm.at) == (run, Alarm.Kind.LONG, at("08:05"))
    assert alarm.sentence == "It runs for far longer than usual: the last ones took about 0:01:40."
    assert heard == [alarm]
    assert f"Run #{run.pk}: It runs for far longer than usual" in mail.outbox[0].body
    assert run.get_absolute_url() in mail.outbox[0].body
    assert list(run.events.filter(what=RunEvent.What.ALARM).values_list("text", flat=True)) == ["long"]


def test_a_program_of_seconds_may_take_a_minute_more(took: Callable[..., None], running: Callable[[], Run]):
    took(1, 1, 1, 1, 1)
    running()
    alarms = Alarms()
    alarms.raise_long(HERE, at("08:01:00"))
    assert not Alarm.objects.exists()
    alarms.raise_long(HERE, at("08:01:01"))
    assert Alarm.objects.count() == 1


def test_what_is_usual_is_known_after_five_completed_runs_and_forgotten_after_twenty_others(
    task: Task, took: Callable[..., None], running: Callable[[], Run]
):
    took(1, 1, 1, 1)
    took(1, 1, 1, status=Status.FAILED)
    running()
    Alarms().raise_long(HERE, at("12:00"))
    assert not Alarm.objects.exists()
    took(1)
    took(*[9000] * 20)
    Alarms().raise_long(HERE, at("12:00"))
    assert not Alarm.objects.exists()
    Alarms().raise_long(HERE, at("16:00"))
    assert Alarm.objects.count() == 1


def test_a_run_of_another_host_is_that_ones_to_watch(took: Callable[..., None], running: Callable[[], Run]):
    took(1, 1, 1, 1, 1)
    running()
    Alarms().raise_long(UUID(int=2), at("12:00"))
    assert not Alarm.objects.exists()


def test_what_is_usual_is_asked_once_a_run_and_nothing_is_asked_where_nothing_runs(
    took: Callable[..., None], running: Callable[[], Run]
):
    def queries(alarms: Alarms, host: UUID | None) -> int:
        alarms._next_look = 0.0
        with CaptureQueriesContext(connection) as captured:
            alarms.look(at("08:02"), host=host)
        return len(captured)

    took(100, 100, 100, 100, 100)
    for _number in range(3):
        running()
    alarms = Alarms()
    idle = queries(alarms, None)
    assert queries(alarms, HERE) == idle + 1 + 3
    assert queries(alarms, HERE) == idle + 1
