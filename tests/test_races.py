"""Two who do something at the same instant: pauses and claims, arrows of follow-ups, edits and decisions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from scheduler.models import FollowUp, Recurrence, Run, RunEvent, Schedule, SchedulerState, Task, decide_together
from scheduler.states import Status
from tests.chain import at, end, every, ledger, planned, start, tick
from tests.runs.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from django.contrib.auth.models import User
    from django.test import Client

SECONDS = 60


@pytest.fixture
def elsewhere(transactional_db: None) -> Iterator[Callable[[Callable[[], Any]], Future[Any]]]:
    """Does something on a connection of its own, on PostgreSQL: SQLite has one writer at a time anyway."""
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL: this is about its locks")

    def do(act: Callable[[], Any]) -> Any:
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        yield lambda act: pool.submit(do, act)


@contextmanager
def held_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Iterator[Event]:
    """Hold whoever calls this, in the middle of a transaction, until the block ends; the event says who is there."""
    whole, there, go_on = getattr(owner, name), Event(), Event()

    def held(*args: Any, **kwargs: Any) -> Any:
        there.set()
        assert go_on.wait(SECONDS)
        return whole(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, held)
        try:
            yield there
        finally:
            go_on.set()


def somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        return bool(cursor.fetchone()[0])


# Pauses


@pytest.mark.parametrize("what", ["scheduler", "task", "schedule"])
def test_a_pause_waits_for_the_claim_that_is_under_way_and_no_claim_comes_after_it(
    elsewhere: Callable[..., Future[Any]], task: Task, owner: User, monkeypatch: pytest.MonkeyPatch, what: str
):
    schedule = planned(task)
    tick(at("08:00"))
    first = schedule.runs.ready(at("08:00")).get()
    paused = {"scheduler": SchedulerState.get(), "task": task, "schedule": schedule}[what]
    with held_at(monkeypatch, RunEvent, "write") as in_the_middle:
        claim = elsewhere(lambda: first.claim(host=first.uuid, host_name="here", now=at("08:00")))
        assert in_the_middle.wait(SECONDS)
        pause = elsewhere(lambda: paused.pause(by=owner, now=at("08:00")))
        wait_until(somebody_waits_for_a_lock, "the pause waits for the claim")
        assert type(paused)._default_manager.filter(paused_at__isnull=False).count() == 0
    assert claim.result(SECONDS)
    assert pause.result(SECONDS)
    with transaction.atomic():
        end(first, at("08:10"))
    second = Run.objects.create(
        task=task, schedule=schedule, due_at=at("08:20"), ready_at=at("08:20"), queued_at=at("08:20"), trigger="retry"
    )
    assert not second.claim(host=second.uuid, host_name="here", now=at("08:20"))


def test_a_claim_waits_for_the_pause_of_all_that_is_being_committed(
    elsewhere: Callable[..., Future[Any]], task: Task, owner: User
):
    run = task.start_now(by=owner, now=at("08:00"))
    with transaction.atomic():
        assert SchedulerState.get().pause(by=owner, now=at("08:00"))
        claim = elsewhere(lambda: run.claim(host=run.uuid, host_name="here", now=at("08:00")))
        wait_until(somebody_waits_for_a_lock, "the claim waits for the pause")
    assert not claim.result(SECONDS)
    assert Run.objects.get().status == Status.QUEUED


@pytest.mark.django_db
def test_what_waits_of_a_paused_schedule_waits_on_and_holds_nothing_else_up(task: Task, owner: User):
    schedule, other = planned(task, catch_up="all"), planned(task, anchor="08:30")
    tick(at("10:00"))
    assert schedule.pause(by=owner, now=at("10:01"))
    waiting = schedule.runs.queued().earliest("slot_at")
    assert waiting.ready_at is not None
    assert waiting.sentence == "Waits until its schedule is resumed."
    assert Run.objects.explained().get(pk=waiting.pk).sentence == waiting.sentence
    assert [run.schedule for run in Run.objects.next_startable(at("10:01"), 9)] == []
    assert not waiting.claim(host=waiting.uuid, host_name="here", now=at("10:01"))
    tick(at("10:30"))
    assert [run.schedule for run in Run.objects.next_startable(at("10:30"), 9)] == [other]
    assert schedule.resume()
    start(waiting, at("10:31"))


# Follow-ups


def test_of_two_follow_ups_that_would_be_a_circle_together_one_is_refused(
    elsewhere: Callable[..., Future[Any]], task: Task
):
    """Four tasks: the two new arrows have no task in common."""
    second, third, fourth = (
        Task.objects.create(name=name, program_root="sample_tasks", program_path="countdown.py")
        for name in ("Upload", "Notify", "Tidy")
    )
    FollowUp.objects.create(task=second, then=third)
    FollowUp.objects.create(task=fourth, then=task)

    def form_of_another_admin() -> list[str]:
        with transaction.atomic():  # as the admin's pages are
            arrow = FollowUp(task=third, then=fourth)
            try:
                arrow.full_clean()
            except ValidationError as error:
                return error.messages
            arrow.save()
            return []

    with transaction.atomic():
        FollowUp.objects.create(task=task, then=second)
        refused = elsewhere(form_of_another_admin)
        wait_until(somebody_waits_for_a_lock, "the other form waits for this one")
    (sentence,) = refused.result(SECONDS)
    assert "This would be a circle that runs for ever: " in sentence
    assert FollowUp.objects.count() == 3


# Edits


@pytest.mark.django_db
def test_saving_a_recurrence_costs_the_same_however_many_schedules_use_it(task: Task):
    def cost(rule: Recurrence) -> int:
        with CaptureQueriesContext(connection) as captured:
            rule.every = 5
            rule.save()
        return len(captured)

    few, many = used_by(task, 2, minutes=30), used_by(task, 300, minutes=60)
    assert cost(many) == cost(few)
    assert Schedule.objects.stale().count() == 302


@pytest.mark.django_db
def test_its_page_costs_the_same_however_many_schedules_use_it(task: Task, admin: User, client: Client):
    client.force_login(admin)

    def cost(rule: Recurrence) -> int:
        page = reverse("admin:scheduler_recurrence_change", args=[rule.pk])
        with CaptureQueriesContext(connection) as captured:
            assert client.get(page).status_code == 200
            answer = client.post(page, {"name": rule.name, "kind": "every", "every": 5, "unit": "minutes"})
        assert answer.status_code == 302, answer.content
        return len(captured)

    few, many = used_by(task, 2, minutes=30), used_by(task, 300, minutes=60)
    cost(used_by(task, 1, minutes=10))  # what is asked once a process
    assert cost(many) == cost(few)
    assert Schedule.objects.stale().count() == 303


def used_by(task: Task, count: int, *, minutes: int) -> Recurrence:
    rule = every(minutes, "minutes")
    Schedule.objects.bulk_create(
        Schedule(task=task, recurrence=rule, anchor=at("08:00"), time_zone="UTC") for _number in range(count)
    )
    return rule


@pytest.mark.django_db
def test_nothing_is_run_by_the_old_rule_after_the_save_whatever_the_poller_has_seen(
    task: Task, monkeypatch: pytest.MonkeyPatch
):
    """The slots of 08:00 are due, and no poller has recomputed anything; 20 schedules of their own tasks."""
    tasks = Task.objects.bulk_create(
        Task(name=f"task {number}", program_root="sample_tasks", program_path="countdown.py") for number in range(20)
    )
    schedules = [planned(each, minutes=60, anchor="07:00", now="07:30") for each in tasks]
    rule = every(60, "minutes")
    rule.every = 90  # 07:00, 08:30
    monkeypatch.setattr("django.utils.timezone.now", lambda: at("07:45"))
    rule.save()
    decided, left = decide_together(list(Run.objects.due(at("08:00"))), at("08:00"))
    assert (decided, len(left)) == (0, 20)
    for run in left:
        run.decide(at("08:00"))
    assert not Run.objects.ready(at("08:00")).exists()
    for schedule in schedules:
        assert [slot for slot, *_rest in ledger(schedule)] == ["08:30"]


def test_the_save_of_a_recurrence_waits_for_the_decision_that_is_under_way(
    elsewhere: Callable[..., Future[Any]], task: Task, monkeypatch: pytest.MonkeyPatch
):
    schedule = planned(task)
    run = schedule.runs.get()
    rule = Recurrence.objects.get()
    rule.every = 7
    with held_at(monkeypatch, Schedule, "insert_next") as in_the_middle:
        decision = elsewhere(lambda: run.decide(at("08:00")))
        assert in_the_middle.wait(SECONDS)
        save = elsewhere(rule.save)
        wait_until(somebody_waits_for_a_lock, "the save waits for the decision")
        assert Recurrence.objects.get().every == 60
    assert decision.result(SECONDS)
    save.result(SECONDS)
    assert Schedule.objects.stale().get() == schedule


# People who leave, rows that go


@pytest.mark.django_db
def test_deleting_the_account_of_whoever_made_and_edited_it_changes_nothing(task: Task, owner: User):
    schedule = planned(task)
    rows = list(Schedule.objects.values()), list(Run.objects.values())
    task.start_at(at("12:00"), by=owner, now=at("07:50"))
    owner.delete()
    assert (list(Schedule.objects.values()), list(Run.objects.undecided().values())) == rows
    tick(at("08:00"))
    start(schedule.runs.ready(at("08:00")).get(), at("08:00"))
    assert ledger(schedule) == [("08:00", "processing", ""), ("09:00", "queued", "")]
    assert Run.objects.get(trigger="manual").requested_by_name == "owner"


@pytest.mark.django_db
@pytest.mark.parametrize("way", ["cancel", "delete", "purge", "delete all rows"])
def test_a_queued_row_that_goes_never_breaks_the_chain(task: Task, owner: User, way: str):
    schedule = planned(task)
    tick(at("08:00"))
    for now in ("08:10", "08:20"):
        head = schedule.runs.undecided().get()
        match way:
            case "cancel":
                assert head.cancel(by=owner, now=at(now))
            case "delete":
                head.delete()
            case "purge":
                Run.objects.filter(pk=head.pk).delete()
            case "delete all rows":
                schedule.runs.all().delete()
        tick(at(now))
        schedule.refresh_from_db()
        assert schedule.next_run == schedule.runs.undecided().get()
    waits_for = {"cancel": at("11:00")}.get(way, at("09:00"))
    assert schedule.runs.undecided().get().slot_at == waits_for
    tick(waits_for)
    assert Run.objects.filter(slot_at=waits_for).get().status in {Status.QUEUED, Status.SKIPPED}
    assert schedule.runs.undecided().get().slot_at == waits_for + (at("09:00") - at("08:00"))
