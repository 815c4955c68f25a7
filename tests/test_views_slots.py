"""“Why didn't it run?”: the page with what became of each slot of a task."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from scheduler.models import Poller, Run, Schedule, Task
from scheduler.states import Reason, Status
from tests.chain import at, planned

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

    MakeRun = Callable[..., Run]

pytestmark = pytest.mark.django_db


def url(task: Task) -> str:
    return reverse("scheduler:task-slots", args=[task.pk])


def shown(client: Client, address: str) -> list[int]:
    return [int(pk) for pk in re.findall(r'<tr id="run-(\d+)">', client.get(address).text)]


@pytest.fixture
def slot(task: Task, make_run: MakeRun) -> MakeRun:
    """Makes a run of a slot of the task's schedule: the hour of the day, and how it ended."""
    schedule = planned(task, now="23:30", anchor="00:00")

    def make(hour: int, status: Status = Status.COMPLETED, **values: object) -> Run:
        slot_at = at(f"{hour:02}:00")
        columns = {"slot_at": slot_at, "due_at": slot_at, "now": slot_at, "trigger": Run.Trigger.SCHEDULE}
        return make_run(status, **{**columns, "schedule": schedule, **values})

    return make


def test_every_slot_is_shown_the_latest_first_and_nothing_else(
    client: Client, viewer: User, task: Task, slot: MakeRun, make_run: MakeRun
) -> None:
    early, late = slot(8), slot(10)
    middle = slot(9, Status.SKIPPED)
    by_hand = make_run()
    client.force_login(viewer)
    found = shown(client, url(task))
    assert found[-3:] == [late.pk, middle.pk, early.pk]
    assert by_hand.pk not in found
    assert found[0] == task.schedules.get().next_run_id


@pytest.mark.parametrize(
    ("reason", "values", "sentence"),
    [
        (Reason.OVERLAP, {}, "previous run was not over"),
        (Reason.BLOCKED, {"detail": "Christmas"}, "blocked by the calendar “Christmas”"),
        (Reason.PAUSED, {"detail": "ann: deploy"}, "paused by ann: deploy"),
        (Reason.TOO_LATE, {}, "it was too late for it"),
        (Reason.MISSED, {}, "no poller was up at the time, and its schedule does not catch up"),
    ],
)
def test_what_was_not_run_says_why(
    client: Client, viewer: User, task: Task, slot: MakeRun, reason: Reason, values: dict[str, str], sentence: str
) -> None:
    run = slot(8, Status.SKIPPED, reason=reason, **values)
    client.force_login(viewer)
    page = client.get(url(task), {"not_run": "1"}).text
    assert sentence in page
    assert f'href="{run.get_absolute_url()}"' in page


def test_only_what_did_not_run_leaves_out_what_was_started(
    client: Client, viewer: User, task: Task, slot: MakeRun
) -> None:
    slot(7)
    slot(8, Status.FAILED)
    slot(9, Status.PROCESSING)
    skipped = slot(10, Status.SKIPPED)
    cancelled = slot(11, Status.CANCELLED, started_at=None)
    slot(12, Status.CANCELLED, started_at=at("12:00"))
    client.force_login(viewer)
    assert shown(client, url(task) + "?not_run=1") == [cancelled.pk, skipped.pk]


def test_a_long_gap_is_one_row_that_says_until_when_and_how_many(
    client: Client, viewer: User, task: Task, slot: MakeRun
) -> None:
    run = slot(2, Status.SKIPPED, reason=Reason.CATCH_UP, slot_until=at("09:00"), slot_count=8)
    client.force_login(viewer)
    assert shown(client, url(task) + "?not_run=1") == [run.pk]
    page = client.get(url(task)).text
    assert re.search(r"until <time [^>]*>2026-11-24 09:00:00</time>: 8 slots", page)
    assert "no poller was up for 8 slots until 2026-11-24 09:00:00" in page


def test_a_run_that_started_late_says_by_how_much(client: Client, viewer: User, task: Task, slot: MakeRun) -> None:
    slot(8, started_at=at("08:25"), finished_at=at("08:30"))
    slot(9, started_at=at("09:00:01"), finished_at=at("09:30"))
    client.force_login(viewer)
    page = client.get(url(task)).text
    assert re.findall(r"<span>(\d+ min[^<]*)</span>", page) == ["25 min"]


def test_slots_that_nobody_has_decided_are_counted_while_no_poller_is_up(
    client: Client, viewer: User, task: Task
) -> None:
    now = timezone.now()
    anchor = now - timedelta(hours=5, minutes=30)
    schedule = planned(task)
    Schedule.objects.filter(pk=schedule.pk).update(anchor=anchor)
    task.runs.queued().update(slot_at=anchor, due_at=anchor)
    client.force_login(viewer)
    page = client.get(url(task)).text
    assert "6 slots have come since" in page
    assert "No poller is up: nothing will start." in page


def test_pages_go_on_where_the_last_one_ended_also_between_equal_instants(
    client: Client, viewer: User, task: Task, make_run: MakeRun
) -> None:
    rules = [planned(task, now="23:30", anchor="00:00", minutes=minutes) for minutes in (60, 120)]
    for number in range(60):
        for schedule in rules:
            instant = at("08:00") - timedelta(hours=number)
            make_run(schedule=schedule, slot_at=instant, due_at=instant, now=instant)
    client.force_login(viewer)
    seen: list[int] = []
    address: str | None = url(task)
    while address is not None:
        seen += shown(client, address)
        older = re.search(r'href="([^"]+)" class="small" rel="next"', client.get(address).text)
        address = older[1].replace("&amp;", "&") if older else None
    assert len(seen) == len(set(seen)) == task.runs.of_slots().count()


@pytest.mark.parametrize("before", ["x", "1-", "-1", "9" * 40 + "-1", "1-" + "9" * 40])
def test_a_position_that_makes_no_sense_is_the_first_page(
    client: Client, viewer: User, task: Task, slot: MakeRun, before: str
) -> None:
    slot(8)
    client.force_login(viewer)
    assert client.get(url(task), {"before": before}).status_code == 200


def test_the_page_costs_as_many_queries_for_fifty_slots_as_for_one(
    client: Client, owner: User, task: Task, slot: MakeRun
) -> None:
    client.force_login(owner)

    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            client.get(url(task))
        return len(queries)

    slot(1)
    few = count()
    for hour in range(2, 20):
        slot(hour, Status.SKIPPED)
    assert count() == few


def test_who_may_only_see_gets_no_button(client: Client, owner: User, viewer: User, task: Task) -> None:
    planned(task)
    for person, is_there in ((owner, True), (viewer, False)):
        client.force_login(person)
        assert ("Pause the task" in client.get(url(task)).text) is is_there


def test_a_schedule_that_is_disabled_paused_or_over_says_so(client: Client, owner: User, task: Task) -> None:
    Poller.objects.all().delete()
    schedule = planned(task)
    client.force_login(owner)
    for values, words in (
        ({"enabled": False}, "Disabled: it has no slots."),
        ({"enabled": False, "problem": "The cron line is bad."}, "The cron line is bad."),
        ({"enabled": True, "problem": "", "ended": True}, "Over: it has no slot any more."),
    ):
        Schedule.objects.filter(pk=schedule.pk).update(**values)
        assert words in client.get(url(task)).text
    schedule.pause(by=owner, why="Broken data", now=at("08:00"))
    assert "<bdi>Broken data.</bdi>" in client.get(url(task)).text


def test_hostile_names_are_text(client: Client, owner: User, task: Task, slot: MakeRun) -> None:
    slot(8, Status.SKIPPED, reason=Reason.BLOCKED, detail="<script>alert(1)</script>\x1b[31m")
    Task.objects.filter(pk=task.pk).update(name="<script>alert(2)</script>\x1b[31m")
    client.force_login(owner)
    page = client.get(url(task)).text
    assert "<script>alert" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize(
    "query", ["", "?not_run=1", "?before=1790000000000000-5", "?not_run=1&before=1790000000000000-5"]
)
def test_the_ledger_is_read_from_its_index_in_order(client: Client, owner: User, task: Task, query: str) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL reads a table of few rows as a whole")
    client.force_login(owner)
    with CaptureQueriesContext(connection) as queries:
        client.get(url(task) + query)
    sql = next(each["sql"] for each in queries if '"scheduler_run"."slot_at" IS NOT NULL' in each["sql"])
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
        plan = [row[3] for row in cursor.fetchall()]
    index = "scheduler_run_slots_not_run" if "not_run" in query else "scheduler_run_slots"
    assert any(line.startswith(f"SEARCH scheduler_run USING INDEX {index} (task_id=?") for line in plan)
    assert not any("TEMP B-TREE" in line for line in plan)
