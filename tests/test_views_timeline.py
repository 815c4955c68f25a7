"""The timeline: a day of runs, a lane for each task or host."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.test.utils import override_script_prefix
from django.urls import reverse
from django.utils import timezone

from scheduler.models import Task
from scheduler.states import Status
from scheduler.views import timeline
from scheduler.views.charts import LANE_GAP, LANE_HEIGHT, NARROWEST_BAR, Span, lane
from scheduler.views.page import run_urls
from scheduler.views.timeline import Day

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client
    from pytest_django import DjangoAssertNumQueries

    from scheduler.models import Run

pytestmark = pytest.mark.django_db

URL = "/scheduler/timeline/"
DAY = datetime(2026, 3, 10, tzinfo=UTC)


def at(hour: float) -> datetime:
    return DAY + timedelta(hours=hour)


@pytest.fixture
def ran(make_run: Callable[..., Run]) -> Callable[..., Run]:
    """A run from one hour of the day to another."""
    return lambda start, end, **values: make_run(
        **{"started_at": at(start), "finished_at": at(end), "due_at": at(start), "host_name": "web1", **values}
    )


def shown(client: Client, user: User, **query: str) -> Any:
    client.force_login(user)
    response = client.get(URL, {"day": "2026-03-10", **query})
    assert response.status_code == 200
    return response


# Bars


def test_a_bar_stands_where_its_run_was(client: Client, viewer: User, ran: Callable[..., Run]) -> None:
    run = ran(2, 3.5)
    response = shown(client, viewer)
    (named,) = response.context["lanes"]
    (bar,) = named.lane.bars
    assert (bar.x, bar.width, named.lane.width) == (120, 90, 1440)
    assert (
        f'<a href="{run.get_absolute_url()}" aria-label="#{run.pk} Nightly report: completed, 02:00:00' in response.text
    )
    assert "(1 h 30 min)" in response.text


def test_runs_that_overlap_stand_one_above_the_other(client: Client, viewer: User, ran: Callable[..., Run]) -> None:
    for start, end in ((1, 4), (2, 3), (3.5, 5), (4, 6)):
        ran(start, end)
    (named,) = shown(client, viewer).context["lanes"]
    step = LANE_HEIGHT + LANE_GAP
    assert [(bar.y - LANE_GAP) // step for bar in named.lane.bars] == [0, 1, 1, 0]


def test_a_short_run_is_still_seen_and_stays_within_the_day(make_run: Callable[..., Run]) -> None:
    run = make_run()
    end = DAY + timedelta(days=1)
    late = Span(run, end - timedelta(seconds=1), end, ran=True, url="/", title="late")
    (bar,) = lane([late], start=DAY, end=end).bars
    assert (bar.x, bar.width) == (1440 - NARROWEST_BAR, NARROWEST_BAR)


def test_runs_across_midnight_are_cut_at_it(client: Client, viewer: User, ran: Callable[..., Run]) -> None:
    ran(-2, 1)
    ran(23, 30)
    (named,) = shown(client, viewer).context["lanes"]
    assert [(bar.x, bar.width) for bar in named.lane.bars] == [(0, 60), (1380, 60)]


def test_runs_of_other_days_are_not_shown(client: Client, viewer: User, ran: Callable[..., Run]) -> None:
    ran(-5, -1)
    ran(24, 25)
    assert "Nothing ran on this day, and nothing is due." in shown(client, viewer).text


def test_slots_that_were_not_run_are_marked(
    client: Client, viewer: User, make_run: Callable[..., Run], ran: Callable[..., Run]
) -> None:
    make_run(Status.SKIPPED, slot_at=at(5), slot_until=at(7), slot_count=3, due_at=at(5), finished_at=at(8))
    make_run(Status.SKIPPED, due_at=at(9), finished_at=at(9))
    (named,) = shown(client, viewer).context["lanes"]
    assert [(bar.x, bar.width) for bar in named.lane.bars] == [(300, 120), (540, NARROWEST_BAR)]


def test_today_shows_what_is_in_progress_and_what_is_to_come(
    client: Client, viewer: User, make_run: Callable[..., Run]
) -> None:
    now = timezone.now()
    day = Day.of(timezone.localdate(now))
    running = make_run(Status.PROCESSING, claimed_at=now, started_at=now)
    waiting = make_run(Status.QUEUED, due_at=day.end - timedelta(seconds=1))
    client.force_login(viewer)
    response = client.get(URL)
    assert {span.run for span in response.context["spans"]} == {running, waiting}
    assert '<path class="now"' in response.text
    assert '<path class="now"' not in shown(client, viewer).text


def test_by_host_each_host_has_its_lane(client: Client, viewer: User, ran: Callable[..., Run]) -> None:
    ran(1, 2)
    ran(1, 2, host_name="worker2")
    ran(1, 2, host_name="")
    lanes = shown(client, viewer, by="host").context["lanes"]
    assert [named.name for named in lanes] == ["on no host", "web1", "worker2"]


def test_the_table_says_the_same(client: Client, viewer: User, ran: Callable[..., Run]) -> None:
    run = ran(2, 3.5)
    text = shown(client, viewer).text
    table = text[text.index("<table") : text.index("</table>")]
    for part in (f"#{run.pk}</a>", "Nightly report", "web1", "completed", "2026-03-10 02:00:00", "1 h 30 min"):
        assert part in table


# Days


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Amsterdam", "2026-03-29", 23),
        ("Europe/Amsterdam", "2026-10-25", 25),
        ("UTC", "2026-03-29", 24),
    ],
)
def test_a_day_has_as_many_hours_as_its_clocks_show(
    client: Client, viewer: User, settings: Any, zone: str, day: str, hours: int
) -> None:
    with timezone.override(zone):
        found = Day.of(datetime.fromisoformat(day).date())
    assert found.minutes == hours * 60
    with timezone.override(zone):
        assert len(found.hours) == hours
        assert found.hours[0] == "00"
        assert found.hours[-1] == "23"


@pytest.mark.parametrize("day", ["", "yesterday", "2026-02-30", "0001-01-01", "9999-12-31", "2026-03-10T00:00"])
def test_a_day_that_is_none_is_today(client: Client, viewer: User, day: str) -> None:
    client.force_login(viewer)
    assert client.get(URL, {"day": day}).context["day"].day == timezone.localdate()


def test_the_days_before_and_after_keep_the_rest_of_the_address(client: Client, viewer: User, task: Task) -> None:
    context = shown(client, viewer, by="host", task=str(task.pk)).context
    assert context["before_url"] == f"{URL}?day=2026-03-09&by=host&task={task.pk}"
    assert context["after_url"] == f"{URL}?day=2026-03-11&by=host&task={task.pk}"


# Who sees what, and how much


def test_only_runs_of_tasks_that_one_may_see(
    client: Client, viewer: User, stranger: User, task: Task, ran: Callable[..., Run]
) -> None:
    hidden = Task.objects.create(name="Payroll of the board", program_root="x", program_path="y.py")
    ran(1, 2)
    ran(1, 2, task=hidden)
    assert "Payroll" not in shown(client, viewer).text
    assert "Nightly report" in shown(client, viewer).text
    assert "Nightly report" not in shown(client, stranger).text
    client.force_login(viewer)
    assert client.get(URL, {"task": hidden.pk}).status_code == 404


def test_what_is_too_much_is_counted_in_words(
    client: Client, viewer: User, ran: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "BARS_AT_MOST", 3)
    for hour in range(5):
        ran(hour, hour + 0.5)
    text = shown(client, viewer).text
    assert "Only 3 of 5 runs are shown" in text
    assert text.count('<rect class="bar bar-completed" x=') == 3


def test_lanes_beyond_the_limit_are_in_the_table_only(
    client: Client, admin: User, ran: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "LANES_AT_MOST", 1)
    for name in ("A", "B"):
        ran(1, 2, task=Task.objects.create(name=name, program_root="x", program_path="y.py"))
    response = shown(client, admin)
    assert len(response.context["lanes"]) == 1
    assert "1 lane more is not drawn" in response.text


def test_hostile_names_do_nothing(client: Client, viewer: User, task: Task, ran: Callable[..., Run]) -> None:
    ran(1, 2, host_name='"><script>alert(1)</script>')
    Task.objects.update(name='"><script>alert(2)</script>')
    for by in ("task", "host"):
        assert "<script>alert" not in shown(client, viewer, by=by).text


def test_a_full_day_costs_as_many_queries_as_a_single_run(
    client: Client, viewer: User, ran: Callable[..., Run], django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    ran(0, 0.5)
    shown(client, viewer)
    with django_assert_max_num_queries(40) as single:
        shown(client, viewer)
    for hour in range(1, 20):
        ran(hour, hour + 0.5)
    with django_assert_max_num_queries(40) as full:
        shown(client, viewer)
    assert len(single) == len(full)


def test_addresses_that_are_looked_up_once_are_those_of_the_runs(ran: Callable[..., Run]) -> None:
    runs = [ran(1, 2), ran(3, 4)]
    url_of = run_urls()
    assert [url_of(run.pk) for run in runs] == [run.get_absolute_url() for run in runs]
    with override_script_prefix("/under/"):
        assert run_urls()(runs[0].pk) == runs[0].get_absolute_url() == f"/under/scheduler/runs/{runs[0].pk}/"


def test_the_page_is_linked_from_the_main_page_and_the_tasks(client: Client, viewer: User, task: Task) -> None:
    client.force_login(viewer)
    for url in (reverse("scheduler:index"), task.get_absolute_url()):
        assert f'href="{URL}' in client.get(url).text
