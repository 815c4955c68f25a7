"""The calendar: what will run, over all tasks that one may see, and where it piles up."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.utils import timezone

from scheduler import forecast
from scheduler.models import Calendar, Recurrence, Run, Schedule, SchedulerState, Task
from scheduler.states import Status
from scheduler.views import calendar
from scheduler.views.calendar import DAY, WEEK, Outlook, look
from tests.chain import at, every, planned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.contrib.auth.models import User
    from django.test import Client

pytestmark = pytest.mark.django_db

URL = "/scheduler/calendar/"
NOW = at("07:30:20")


def counts(outlook: Outlook) -> dict[str, tuple[int, int, int]]:
    """When -> runs, blocked and paused, of the bars in which there is anything."""
    return {f"{bar.begin:%a %H:%M}": (bar.runs, bar.blocked, bar.paused) for bar in outlook.bars if bar.total}


def cron(line: str) -> Recurrence:
    return Recurrence.objects.get_or_create(name=line, kind="cron", cron=line)[0]


def scheduled(task: Task, line: str, **values: object) -> Schedule:
    columns = {"anchor": at("2026-01-01"), "time_zone": "UTC", **values}
    return Schedule.objects.create(task=task, recurrence=cron(line), **columns)


def test_the_next_day_is_counted_by_the_quarter_of_an_hour(owner: User, task: Task) -> None:
    planned(task, minutes=480, anchor="00:00")  # every 8 hours
    scheduled(task, "5 16 * * *")
    outlook = look(owner, NOW, DAY)
    assert counts(outlook) == {"Tue 08:00": (1, 0, 0), "Tue 16:00": (2, 0, 0), "Wed 00:00": (1, 0, 0)}
    assert len(outlook.bars) == 96
    assert outlook.window.begin == at("07:31")


def test_the_next_week_is_counted_by_the_hour(owner: User, task: Task) -> None:
    scheduled(task, "30 2 * * 3,5")
    scheduled(task, "45 2 * * 5")
    outlook = look(owner, NOW, WEEK)
    assert counts(outlook) == {"Wed 02:00": (1, 0, 0), "Fri 02:00": (2, 0, 0)}
    assert outlook.busiest == (at("2026-11-25 02:30"), 1)


def test_the_minute_in_which_most_start_is_named(client: Client, owner: User) -> None:
    for number in range(7):
        task = Task.objects.create(
            name=f"T{number}", owner=owner, program_root="sample_tasks", program_path="countdown.py"
        )
        scheduled(task, "0 3 * * *")
        scheduled(task, "0 3 * * *")
    client.force_login(owner)
    page = client.get(URL).text
    assert ": 14 in one minute." in page
    assert re.search(r"<bdi>T0</bdi>, <bdi>T1</bdi>, <bdi>T2</bdi> <span[^>]*>and 11 more schedules", page)


def test_blocked_and_paused_slots_are_marked_and_not_counted_as_runs(owner: User, task: Task) -> None:
    blackout = Calendar.objects.create(name="Night", time_zone="UTC", lines="daily 02:00-04:00")
    other = Task.objects.create(name="Other", owner=owner, program_root="sample_tasks", program_path="countdown.py")
    scheduled(task, "0 3,5 * * *", calendar=blackout)
    scheduled(task, "0 5 * * *", paused_at=at("07:00"))
    scheduled(other, "0 5 * * *")
    assert counts(look(owner, NOW, DAY)) == {"Wed 03:00": (0, 1, 0), "Wed 05:00": (2, 0, 1)}
    other.pause(by=owner, now=at("07:00"))
    assert counts(look(owner, NOW, DAY))["Wed 05:00"] == (1, 0, 2)
    Task.objects.filter(pk=task.pk).update(enabled=False)
    assert counts(look(owner, NOW, DAY))["Wed 05:00"] == (0, 0, 3)
    SchedulerState.get().pause(by=owner, now=at("07:00"))
    assert counts(look(owner, NOW, DAY)) == {"Wed 03:00": (0, 1, 0), "Wed 05:00": (0, 0, 3)}


def test_disabled_schedules_and_those_of_others_are_not_in_it(
    client: Client, viewer: User, stranger: User, task: Task
) -> None:
    hidden = Task.objects.create(name="Hidden payroll", program_root="sample_tasks", program_path="countdown.py")
    scheduled(hidden, "* * * * *")
    scheduled(task, "0 3 * * *", enabled=False)
    scheduled(task, "0 4 * * *")
    assert counts(look(viewer, NOW, DAY)) == {"Wed 04:00": (1, 0, 0)}
    assert counts(look(stranger, NOW, DAY)) == {}
    client.force_login(stranger)
    page = client.get(URL).text
    assert "Nothing is scheduled in this time." in page
    assert client.get(URL, {"task": hidden.pk}).status_code == 404
    client.force_login(viewer)
    page = client.get(URL, {"task": task.pk}).text
    assert "only “Nightly report”" in page
    assert "Hidden payroll" not in page


def test_a_schedule_counts_from_its_anchor_to_its_end(owner: User, task: Task) -> None:
    planned(task, minutes=60, anchor="2026-11-24 20:00", ends_at=at("2026-11-24 22:30"))
    scheduled(task, "0 * * * *", anchor=at("2026-11-24 20:00:01"), ends_at=at("2026-11-24 22:00"))
    found = counts(look(owner, NOW, DAY))
    assert found == {"Tue 20:00": (1, 0, 0), "Tue 21:00": (2, 0, 0), "Tue 22:00": (2, 0, 0)}


def test_runs_that_wait_for_their_time_are_in_it_once(owner: User, task: Task) -> None:
    planned(task, minutes=1440, anchor="08:00")
    task.start_at(at("09:00"), by=owner, now=NOW)
    assert counts(look(owner, NOW, DAY)) == {"Tue 08:00": (1, 0, 0), "Tue 09:00": (1, 0, 0)}


def test_a_row_that_makes_no_sense_does_not_spoil_the_page(client: Client, owner: User, task: Task) -> None:
    scheduled(task, "0 4 * * *")
    bad = scheduled(task, "0 5 * * *")
    Schedule.objects.filter(pk=bad.pk).update(time_zone="Mars/Olympus")
    broken = scheduled(task, "0 6 * * *")
    Recurrence.objects.filter(pk=broken.recurrence_id).update(cron="99 * * * *")
    assert counts(look(owner, NOW, DAY)) == {"Wed 04:00": (1, 0, 0)}
    client.force_login(owner)
    assert client.get(URL).status_code == 200


def test_too_much_is_left_out_and_told(
    client: Client, owner: User, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calendar, "SLOTS_AT_MOST", 2000)
    monkeypatch.setattr(calendar, "SCHEDULES_AT_MOST", 4)
    for line in ("* * * * *", "*/2 * * * *", "0 4 * * *", "0 5 * * *", "0 6 * * *"):
        scheduled(task, line)
    outlook = look(owner, NOW, DAY)
    assert (outlook.counted, outlook.left_out) == (3, 2)
    client.force_login(owner)
    assert "2 schedules are left out" in client.get(URL).text


def test_schedules_of_one_rule_are_computed_once(owner: User, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = every(1, "minutes")
    anchors = [at("2026-01-01") + timedelta(seconds=number) for number in range(300)]
    Schedule.objects.bulk_create(Schedule(task=task, recurrence=rule, anchor=anchor) for anchor in anchors)
    computed: list[object] = []

    def counted(plan: forecast.Plan | forecast.Steps, window: forecast.Window) -> Sequence[int]:
        computed.append(plan)
        return original(plan, window)

    original = forecast.minutes
    monkeypatch.setattr(forecast, "minutes", counted)
    outlook = look(owner, NOW, WEEK)
    assert outlook.counted == 300
    assert len(computed) == 1
    assert outlook.busiest is not None
    assert outlook.busiest[1] == 300


def test_the_drawing_has_the_numbers_of_the_table(client: Client, owner: User, task: Task) -> None:
    blackout = Calendar.objects.create(name="Always", time_zone="UTC", lines="daily")
    scheduled(task, "0 3 * * *")
    scheduled(task, "0 3 * * *", calendar=blackout)
    client.force_login(owner)
    for query in ({}, {"range": "week"}, {"range": "nonsense"}):
        page = client.get(URL, query).text
        assert re.search(
            r'<rect class="bar-runs" x="\d+" y="50.00" width="8" height="50.00"><title>[^<]+: 1 run, 1 ', page
        )
        assert '<rect class="bar-blocked"' in page
        assert "style=" not in page.partition('id="content"')[2].partition('id="footer"')[0]


def test_hostile_names_are_text(client: Client, owner: User, task: Task, make_run: Callable[..., Run]) -> None:
    scheduled(task, "0 3 * * *")
    Task.objects.filter(pk=task.pk).update(name="<script>alert(1)</script>\x1b[31m")
    client.force_login(owner)
    page = client.get(URL).text
    assert "<script>alert" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"])
def test_bars_begin_at_round_times_of_ones_own_clock(owner: User, task: Task, zone: str) -> None:
    scheduled(task, "0 3 * * *")
    with timezone.override(zone):
        outlook = look(owner, NOW, WEEK)
        assert {timezone.localtime(bar.begin).minute for bar in outlook.bars} == {0}
    assert sum(bar.runs for bar in outlook.bars) == 7


def test_a_run_that_is_due_already_is_not_to_come(owner: User, make_run: Callable[..., Run]) -> None:
    make_run(Status.QUEUED, now=NOW - timedelta(hours=1))
    assert counts(look(owner, NOW, DAY)) == {}
