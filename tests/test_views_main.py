"""The main page."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from scheduler import access
from scheduler.models import Alarm, OutputFile, Poller, ProcessSample, Recurrence, Run, Schedule, SchedulerState, Task
from scheduler.states import Reason, Status
from scheduler.views import keyset, main, past, selection

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.test import Client

    MakeRun = Callable[..., Run]

pytestmark = pytest.mark.django_db

URL = "/scheduler/"
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202egnp\nline two"


def shown(client: Client, url: str = URL) -> list[int]:
    """The ids of the runs on the page, from top to bottom."""
    return [int(pk) for pk in re.findall(r'<tr id="run-(\d+)">', client.get(url).text)]


def link(client: Client, url: str | None, name: str) -> str:
    """Where a link with this id leads to; empty when the page has none."""
    found = re.search(rf'<a href="([^"]+)" (?:class="small" )?id="{name}"', client.get(url or "").text)
    return found[1].replace("&amp;", "&") if found else ""


def shown_on_all_pages(client: Client, *, at_most: int) -> list[int]:
    """The same of this page and all that follow it; no more than there are runs, or a page leads back."""
    seen: list[int] = []
    url = URL
    while url:
        seen += shown(client, url)
        url = link(client, url, "older-page")
        assert len(seen) <= at_most
    return seen


def add_files(run: Run, count: int) -> None:
    for number in range(count):
        name = f"file {number}.csv"
        OutputFile.objects.create(run=run, name=name, size=1, sha256="0" * 64, created_at=run.due_at)


def test_what_runs_stands_before_what_waits_and_what_is_over(client: Client, owner: User, make_run: MakeRun) -> None:
    client.force_login(owner)
    now = timezone.now()
    old = make_run(Status.COMPLETED, finished_at=now - timedelta(hours=2))
    later = make_run(Status.QUEUED, due_at=now + timedelta(hours=2))
    soon = make_run(Status.QUEUED, due_at=now + timedelta(hours=1))
    new = make_run(Status.FAILED, finished_at=now - timedelta(hours=1))
    running = make_run(Status.PROCESSING)
    assert shown(client) == [running.pk, soon.pk, later.pk, new.pk, old.pk]


def test_only_runs_of_visible_tasks_are_shown_and_counted(client: Client, viewer: User, make_run: MakeRun) -> None:
    hidden = Task.objects.create(name="Hidden payroll", program_root="sample_tasks", program_path="countdown.py")
    make_run(Status.PROCESSING, task=hidden)
    make_run(Status.COMPLETED, task=hidden)
    mine = make_run(Status.COMPLETED)
    client.force_login(viewer)
    page = client.get(URL).text
    assert shown(client) == [mine.pk]
    assert "Hidden payroll" not in page
    assert "0 processing" in page


def test_nothing_to_see_is_told(client: Client, stranger: User) -> None:
    client.force_login(stranger)
    page = client.get(URL).text
    assert "Nothing runs now." in page
    assert "Nothing is scheduled." in page
    assert "Nothing has finished yet." in page
    assert "There is no task that you may see." in page
    assert 'id="schedule-task"' not in page


def test_the_page_says_that_a_full_disk_keeps_runs_waiting(client: Client, owner: User, poller: Poller) -> None:
    client.force_login(owner)
    assert "nearly full" not in client.get(URL).text
    Poller.objects.update(is_out_of_room=True, free_bytes=12 * 1024**2)
    page = client.get(URL).text
    assert "The disk of here is nearly full (12.0\xa0MB are free): no run is started there." in page
    Poller.objects.update(ended_at=timezone.now())
    assert "nearly full" not in client.get(URL).text


def test_without_a_poller_the_page_says_that_nothing_starts(client: Client, owner: User, poller: Poller) -> None:
    client.force_login(owner)
    assert "1 poller up" in client.get(URL).text
    assert "nothing will start" not in client.get(URL).text
    Poller.objects.update(seen_at=timezone.now() - timedelta(minutes=1))
    page = client.get(URL).text
    assert "nothing will start" in page
    assert "<code>manage.py poller</code>" in page


def test_a_run_on_a_host_that_is_silent_is_unconfirmed(
    client: Client, owner: User, make_run: MakeRun, poller: Poller
) -> None:
    client.force_login(owner)
    make_run(Status.PROCESSING, host=poller.host)
    assert "Unconfirmed" not in client.get(URL).text
    Poller.objects.update(seen_at=timezone.now() - timedelta(days=1))
    Poller.objects.create(
        **{field: getattr(poller, field) for field in ("pid", "boot_id", "start_ticks", "version", "capacity")},
        host=uuid.uuid4(),
        host_name="other",
        started_at=timezone.now(),
        seen_at=timezone.now(),
    )
    page = client.get(URL).text
    since = timezone.localtime(timezone.now() - timedelta(days=1)).strftime("%Y-%m-%d %H:%M")
    assert f"Unconfirmed since {since}"[:-1] in page
    assert "1 poller up" in page


@pytest.mark.parametrize(
    ("status", "values", "sentence"),
    [
        (Status.FAILED, {"exit_code": 3}, "the program ended with exit code 3"),
        (
            Status.SKIPPED,
            {"reason": Reason.OVERLAP},
            "previous run was not over.",
        ),
        (Status.CANCELLED, {"cancel_requested_by_name": "olivia"}, "Cancelled by olivia before it started."),
        (Status.QUEUED, {"ready_at": None}, "Is due; waits for a poller."),
        (Status.QUEUED, {}, "Waits for a free place."),
    ],
)
def test_a_status_that_needs_a_reason_has_its_sentence(
    client: Client, owner: User, make_run: MakeRun, status: Status, values: dict[str, Any], sentence: str
) -> None:
    client.force_login(owner)
    make_run(status, **values)
    assert sentence in client.get(URL).text


def test_the_newest_message_and_the_progress_are_shown_while_it_runs(
    client: Client, owner: User, make_run: MakeRun
) -> None:
    client.force_login(owner)
    make_run(Status.PROCESSING, message="Reading", progress_done=3, progress_total=12, progress_label="files")
    page = client.get(URL).text
    assert "Reading" in page
    assert 'value="25"' in page
    assert "3 of 12" in page


def test_files_are_named_when_they_are_few_and_counted_when_they_are_many(
    client: Client, owner: User, make_run: MakeRun
) -> None:
    client.force_login(owner)
    few, many = make_run(), make_run()
    add_files(few, 2)
    add_files(many, 4)
    page = client.get(URL).text
    assert page.count("/scheduler/files/") == 2
    assert f'<a href="{many.get_absolute_url()}#files" id="run-{many.pk}-files">4 files</a>' in page


def test_files_are_not_even_counted_for_those_who_may_not_view_output(
    client: Client, viewer: User, make_run: MakeRun
) -> None:
    client.force_login(viewer)
    add_files(make_run(), 2)
    add_files(make_run(), 5)
    page = client.get(URL).text
    assert "file 0.csv" not in page
    assert "5 files" not in page


@pytest.mark.parametrize(("role", "buttons"), [("viewer", []), ("runner", ["again"]), ("stopper", ["stop", "stop"])])
def test_only_what_one_may_do_is_offered(
    client: Client, request: pytest.FixtureRequest, make_run: MakeRun, role: str, buttons: list[str]
) -> None:
    client.force_login(request.getfixturevalue(role))
    for status in (Status.PROCESSING, Status.QUEUED, Status.COMPLETED):
        make_run(status)
    assert re.findall(r'formaction="/scheduler/runs/\d+/(\w+)/"', client.get(URL).text) == buttons


def test_a_disabled_task_is_not_offered_again(client: Client, owner: User, task: Task, make_run: MakeRun) -> None:
    client.force_login(owner)
    make_run(Status.COMPLETED)
    task.enabled = False
    task.save()
    assert "/again/" not in client.get(URL).text


def test_hostile_text_is_shown_and_does_nothing(client: Client, owner: User, task: Task, make_run: MakeRun) -> None:
    client.force_login(owner)
    Task.objects.filter(pk=task.pk).update(name=HOSTILE)
    run = make_run(Status.COMPLETED, message=HOSTILE)
    OutputFile.objects.create(run=run, name=HOSTILE, size=1, sha256="0" * 64, created_at=run.due_at)
    make_run(Status.FAILED, reason=Reason.LAUNCH_ERROR, detail=HOSTILE)
    for url in (URL, f"{URL}?task={task.pk}"):
        page = client.get(url).text
        assert "<script>alert" not in page
        assert "\x1b" not in page
        assert "\u202e" not in page
        assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;&lt;U+202E&gt;gnp") >= 4


# Pages of what is over


def test_finished_runs_come_in_pages_that_lose_and_repeat_nothing(
    client: Client, owner: User, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "FINISHED_A_PAGE", 4)
    client.force_login(owner)
    now = timezone.now()
    # Several end in the same instant, and one has no microseconds.
    times = [now, now, now, now, now, now - timedelta(hours=1), now.replace(microsecond=0) - timedelta(hours=2)]
    runs = [make_run(Status.COMPLETED, finished_at=at) for at in times]
    seen: list[int] = []
    url: str | None = URL
    while url:
        seen += shown(client, url)
        older = re.search(r'<a href="([^"]+)" class="small" id="older-page" rel="next">', client.get(url).text)
        url = older and older[1].replace("&amp;", "&")
        assert len(seen) <= len(runs)
    assert seen == [run.pk for run in sorted(runs, key=lambda run: (run.finished_at, run.pk), reverse=True)]


@pytest.mark.parametrize("before", ["x", "1-", "-1", "9" * 30 + "-1", "1-" + "9" * 30, "1e9-2", "٣-٤"])
def test_a_position_that_makes_no_sense_is_no_error(
    client: Client, owner: User, make_run: MakeRun, before: str
) -> None:
    client.force_login(owner)
    make_run()
    assert client.get(URL, {"before": before}).status_code == 200


def test_older_pages_show_only_what_is_over(client: Client, owner: User, make_run: MakeRun) -> None:
    client.force_login(owner)
    make_run(Status.PROCESSING)
    over = make_run(Status.COMPLETED)
    assert shown(client, f"{URL}?before=99999999999999999-99") == [over.pk]


def test_a_long_queue_is_cut_with_a_sentence(
    client: Client, owner: User, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "NEXT_AT_MOST", 2)
    client.force_login(owner)
    running = make_run(Status.PROCESSING)
    queued = [make_run(Status.QUEUED) for _ in range(4)]
    assert shown(client) == [running.pk, queued[0].pk, queued[1].pk]
    page = client.get(URL).text
    assert "Only the next 2 are shown" in page
    more = re.search(r'<a href="([^"]+)" id="whole-queue">', page)
    assert more is not None
    assert shown(client, more[1]) == [run.pk for run in queued]


def test_newer_and_older_pages_lead_to_each_other(
    client: Client, owner: User, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "FINISHED_A_PAGE", 2)
    client.force_login(owner)
    now = timezone.now()
    runs = [make_run(Status.COMPLETED, finished_at=now - timedelta(hours=hours)).pk for hours in range(6)]
    older = link(client, URL, "older-page")
    oldest = link(client, older, "older-page")
    assert shown(client, oldest) == runs[4:]
    back = link(client, oldest, "newer-page")
    assert shown(client, back) == runs[2:4]
    assert shown(client, link(client, back, "older-page")) == runs[4:]
    # What is before the second page is the first one, whole and without a position of its own.
    assert shown(client, link(client, back, "newer-page")) == runs[:2]
    assert link(client, oldest, "newest-page") == URL


@pytest.mark.parametrize(("few", "walked"), [(0, 1), (0, 2000), (300, 1)])
def test_somebody_with_few_tasks_gets_their_runs_in_the_same_order(
    client: Client, viewer: User, task: Task, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, few: int, walked: int
) -> None:
    """Whether they are found by walking through all runs, or task by task."""
    monkeypatch.setattr(main, "FINISHED_A_PAGE", 3)
    monkeypatch.setattr(access, "FEW", few)
    monkeypatch.setattr(selection, "WALKED_AT_MOST", walked)
    client.force_login(viewer)
    now = timezone.now()
    tasks = [task]
    for number in range(3):
        other = Task.objects.create(name=f"T{number}", program_root="sample_tasks", program_path="countdown.py")
        other.grant(viewer, "view_task")
        tasks.append(other)
    hidden = Task.objects.create(name="Hidden", program_root="sample_tasks", program_path="countdown.py")
    make_run(task=hidden)
    # Several of different tasks end in the same instant.
    ends = [now - timedelta(minutes=number // 3) for number in range(14)]
    runs = [make_run(task=tasks[number % 3], finished_at=at) for number, at in enumerate(ends)]
    seen = shown_on_all_pages(client, at_most=len(runs))
    newest_first = [run.pk for run in sorted(runs, key=lambda run: (run.finished_at, run.pk), reverse=True)]
    assert seen == newest_first
    back = f"{URL}?after={keyset.write(runs[-1].finished_at or now, runs[-1].pk)}"
    assert shown(client, back) == newest_first[newest_first.index(runs[-1].pk) - 3 :][:3]


@pytest.mark.parametrize("few", [0, 300])
def test_tasks_whose_runs_ended_in_the_same_instant_all_come_to_their_turn(
    client: Client, viewer: User, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(main, "FINISHED_A_PAGE", 1)
    monkeypatch.setattr(access, "FEW", few)
    monkeypatch.setattr(selection, "WALKED_AT_MOST", 1)
    client.force_login(viewer)
    now, runs = timezone.now(), []
    for number in range(7):
        other = Task.objects.create(name=f"T{number}", program_root="sample_tasks", program_path="countdown.py")
        other.grant(viewer, "view_task")
        runs.append(make_run(task=other, finished_at=now).pk)
    assert shown_on_all_pages(client, at_most=len(runs)) == sorted(runs, reverse=True)


# Filters


@pytest.fixture
def mixed(task: Task, owner: User, make_run: MakeRun) -> dict[str, int]:
    """Runs that differ, by name."""
    other = Task.objects.create(
        name="Weekly mail", owner=User.objects.create_user("mia"), program_root="sample_tasks", program_path="fails.py"
    )
    other.grant(owner, "view_task")
    old = timezone.now() - timedelta(days=10)
    runs = {
        "failed": make_run(Status.FAILED, trigger=Run.Trigger.SCHEDULE),
        "manual": make_run(Status.COMPLETED),
        "old": make_run(Status.COMPLETED, finished_at=old, trigger=Run.Trigger.RETRY),
        "mail": make_run(Status.COMPLETED, task=other, trigger=Run.Trigger.SCHEDULE),
        "running": make_run(Status.PROCESSING, task=other, trigger=Run.Trigger.SCHEDULE),
        "waiting": make_run(Status.QUEUED, trigger=Run.Trigger.SCHEDULE),
    }
    return {name: run.pk for name, run in runs.items()}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"status": "failed"}, {"failed"}),
        ({"status": "processing"}, {"running"}),
        ({"status": "queued"}, {"waiting"}),
        ({"status": "completed"}, {"manual", "old", "mail"}),
        ({"trigger": "retry"}, {"old"}),
        ({"text": "weekly"}, {"mail", "running"}),
        ({"text": "fails.py"}, {"mail", "running"}),
        ({"owner": "mia"}, {"mail", "running"}),
        ({"owner": "mi"}, set()),
        ({"until": "{yesterday}"}, {"old"}),
        ({"since": "{yesterday}", "text": "nightly"}, {"failed", "manual", "waiting"}),
        ({"status": "completed", "trigger": "schedule", "owner": "mia", "text": "mail"}, {"mail"}),
        ({"text": ""}, {"failed", "manual", "old", "mail", "running", "waiting"}),
    ],
)
@pytest.mark.parametrize("role", ["admin", "owner"])
def test_runs_are_narrowed_down_by_what_the_address_says(
    client: Client,
    request: pytest.FixtureRequest,
    mixed: dict[str, int],
    query: dict[str, str],
    names: set[str],
    role: str,
) -> None:
    client.force_login(request.getfixturevalue(role))
    yesterday = str(timezone.localdate() - timedelta(days=1))
    found = shown(
        client, f"{URL}?{urlencode({key: value.format(yesterday=yesterday) for key, value in query.items()})}"
    )
    assert set(found) == {mixed[name] for name in names}
    assert len(found) == len(names)


def test_a_run_is_found_by_its_number(client: Client, viewer: User, mixed: dict[str, int]) -> None:
    client.force_login(viewer)
    assert shown(client, f"{URL}?text=%23{mixed['failed']}") == [mixed["failed"]]
    # Not this one, whose task may not be seen.
    assert shown(client, f"{URL}?text=%23{mixed['mail']}") == []


@pytest.mark.parametrize("query", ["since=x", "status=nowhere", "trigger=%00", "text=" + "9" * 200, "since=9999-99-99"])
def test_a_filter_that_makes_no_sense_says_so_and_hides_nothing(
    client: Client, owner: User, mixed: dict[str, int], query: str
) -> None:
    client.force_login(owner)
    assert len(shown(client, f"{URL}?{query}")) == len(mixed)
    assert 'class="errorlist"' in client.get(f"{URL}?{query}").text


def test_the_last_day_of_the_calendar_is_no_error(client: Client, owner: User, mixed: dict[str, int]) -> None:
    client.force_login(owner)
    assert len(shown(client, f"{URL}?until=9999-12-31&since=0001-01-01")) == len(mixed)


def test_the_filter_is_kept_from_page_to_page(
    client: Client, owner: User, mixed: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "FINISHED_A_PAGE", 1)
    client.force_login(owner)
    url = f"{URL}?text=nightly&trigger=manual"
    assert "text=nightly" in client.get(url).text
    older = link(client, f"{URL}?text=nightly", "older-page")
    assert "text=nightly" in older
    assert "Weekly mail" not in client.get(older).text


# How the last runs went


def test_a_picture_says_how_the_last_runs_of_a_task_went(client: Client, owner: User, make_run: MakeRun) -> None:
    client.force_login(owner)
    make_run(Status.COMPLETED)
    make_run(Status.COMPLETED)
    make_run(Status.FAILED)
    make_run(Status.QUEUED)
    assert "<title>Last 3 runs: 2 completed and 1 failed</title>" in client.get(URL).text


def test_only_the_last_runs_are_in_the_picture(client: Client, owner: User, make_run: MakeRun) -> None:
    client.force_login(owner)
    make_run(Status.FAILED, finished_at=timezone.now() - timedelta(hours=1))
    for _ in range(past.LAST):
        make_run(Status.COMPLETED)
    assert f"Last {past.LAST} runs: {past.LAST} completed" in client.get(URL).text


@pytest.mark.parametrize(("elapsed", "words"), [(20, "about 40 s left"), (300, "usually 1 min")])
def test_a_run_in_progress_is_compared_with_what_is_usual(
    client: Client, owner: User, make_run: MakeRun, elapsed: int, words: str
) -> None:
    client.force_login(owner)
    now = timezone.now()
    for took in (59, 60, 70):
        make_run(Status.COMPLETED, started_at=now - timedelta(seconds=took), finished_at=now)
    make_run(Status.PROCESSING, started_at=now - timedelta(seconds=elapsed) + timedelta(milliseconds=500))
    page = client.get(URL).text
    # A test may be slow, and the time left goes down.
    assert words in page or (elapsed == 20 and re.search(r"about 3\d s left", page))


def test_a_duration_that_is_not_usual_is_pointed_out(client: Client, owner: User, make_run: MakeRun) -> None:
    client.force_login(owner)
    now = timezone.now()
    for took in (60, 60, 60, 61):
        make_run(Status.COMPLETED, started_at=now - timedelta(seconds=took), finished_at=now)
    assert "usually" not in client.get(URL).text
    make_run(Status.COMPLETED, started_at=now - timedelta(seconds=500), finished_at=now)
    assert client.get(URL).text.count("usually 1 min") == 1


def test_what_the_processes_use_is_shown_while_it_runs(client: Client, owner: User, make_run: MakeRun) -> None:
    client.force_login(owner)
    run = make_run(Status.PROCESSING)
    ProcessSample.objects.create(
        run=run, at=timezone.now(), cpu_percent=12.4, memory_bytes=48 * 1024**2, memory_peak_bytes=0
    )
    assert "CPU 12 %, 48.0\xa0MB" in client.get(URL).text


def test_what_comes_next_says_when_and_by_which_rule(
    client: Client, owner: User, task: Task, recurrence: Recurrence
) -> None:
    client.force_login(owner)
    now = timezone.now()
    schedule = Schedule.objects.create(
        task=task, recurrence=recurrence, anchor=now + timedelta(minutes=90), time_zone="Europe/Amsterdam"
    )
    schedule.plan(now)
    page = client.get(URL).text
    assert re.search(r'in <span data-until="[^"]+">1 h (29|30) min</span>', page)
    assert "every hour, counted from" in page
    assert "Europe/Amsterdam" in page


# One task only


def test_one_task_can_be_looked_at_alone(client: Client, owner: User, task: Task, make_run: MakeRun) -> None:
    client.force_login(owner)
    other = Task.objects.create(name="Other", owner=owner, program_root="sample_tasks", program_path="countdown.py")
    make_run(task=other)
    mine = make_run()
    assert shown(client, f"{URL}?task={task.pk}") == [mine.pk]


@pytest.mark.parametrize("value", ["999999", "x", "-1", "9" * 40, "٣"])
def test_a_task_that_is_not_there_is_not_found(client: Client, owner: User, value: str) -> None:
    client.force_login(owner)
    assert client.get(URL, {"task": value}).status_code == 404


def test_a_task_that_may_not_be_seen_is_not_found(client: Client, stranger: User, task: Task) -> None:
    client.force_login(stranger)
    assert client.get(URL, {"task": task.pk}).status_code == 404


# Refreshing


def test_the_fragment_is_what_the_page_shows(client: Client, owner: User, make_run: MakeRun) -> None:
    client.force_login(owner)
    make_run(Status.PROCESSING, now=timezone.now() - timedelta(hours=1))  # "for 1 h 0 min" in both, however slow it is
    fragment = client.get(URL, {"fragment": "1"}).text
    assert "<html" not in fragment
    assert fragment.strip() in client.get(URL).text


def test_an_unchanged_fragment_is_not_sent_again(client: Client, owner: User, make_run: MakeRun) -> None:
    client.force_login(owner)
    run = make_run(Status.PROCESSING)
    first = client.get(URL, {"fragment": "1"})
    again = client.get(URL, {"fragment": "1"}, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    Run.objects.filter(pk=run.pk).update(message="New")
    changed = client.get(URL, {"fragment": "1"}, headers={"If-None-Match": first.headers["ETag"]})
    assert "New" in changed.text


def test_the_page_holds_under_a_strict_content_security_policy(
    client: Client, owner: User, make_run: MakeRun, recurrence: object
) -> None:
    """No inline script, no inline style, no inline handler."""
    client.force_login(owner)
    run = make_run(Status.PROCESSING, progress_done=1, progress_total=2)
    over = make_run(Status.COMPLETED)
    pages = [
        URL,
        run.get_absolute_url(),
        reverse("scheduler:schedule"),
        reverse("scheduler:run-delete", args=[over.pk]),
    ]
    for page in [*pages, "/", "/accounts/login/", "/nowhere/"]:
        html = client.get(page).text
        assert not re.search(r"<script(?![^>]*\ssrc=)", html), page
        assert not re.search(r"<[^>]+\s(style|on\w+)\s*=", html), page
        assert "<style" not in html, page


def test_every_page_of_runs_costs_the_same_number_of_queries(
    client: Client, viewer: User, task: Task, make_run: MakeRun
) -> None:
    task.grant(viewer, "view_output", "run_task", "stop_run")
    client.force_login(viewer)

    def count() -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            client.get(URL, {"fragment": "1"})
        return len(queries)

    add_files(make_run(), 2)
    make_run(Status.PROCESSING)
    make_run(Status.QUEUED)
    few = count()
    for number in range(12):
        other = Task.objects.create(name=f"T{number}", program_root="sample_tasks", program_path="countdown.py")
        other.grant(viewer, "view_task", "view_output")
        add_files(make_run(task=other), 2)
        make_run(Status.PROCESSING, task=other)
        make_run(Status.QUEUED, task=other)
    assert count() == few
    assert few <= 22


def test_what_is_not_paused_and_no_alarm_is_asked_about_in_one_query(
    client: Client, viewer: User, task: Task, make_run: MakeRun
) -> None:
    client.force_login(viewer)

    def asked() -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            client.get(URL, {"fragment": "1"})
        return [each["sql"] for each in queries]

    quiet = asked()
    Alarm.raise_for(make_run(), Alarm.Kind.LATE, now=timezone.now())
    Task.objects.create(name="Hidden", program_root="sample_tasks", program_path="x.py", paused_at=timezone.now())
    loud = asked()
    assert len(quiet) < len(loud)
    page = client.get(URL, {"fragment": "1"})
    assert [row.alarm.task for row in page.context["alarms"]] == [task]
    assert page.context["paused_tasks"] == []  # of another's


def test_what_waits_is_not_counted_when_the_next_ones_are_shown(
    client: Client, viewer: User, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.views.main.NEXT_AT_MOST", 3)
    client.force_login(viewer)
    now = timezone.now()

    def waiting() -> tuple[int, int]:
        with CaptureQueriesContext(connection) as queries:
            page = client.get(URL, {"fragment": "1"})
        counts = [each for each in queries if "COUNT(*)" in each["sql"]]
        return page.context["health"]["waiting"], len(counts)

    for minutes in (-2, -1, 10, 20):
        make_run(Status.QUEUED, due_at=now + timedelta(minutes=minutes))
    assert waiting() == (2, 0)
    for minutes in (-4, -3):
        make_run(Status.QUEUED, due_at=now + timedelta(minutes=minutes))
    assert waiting() == (4, 1)


def test_a_page_does_not_ask_for_the_list_of_apps_that_it_does_not_show(
    client: Client, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "get_app_list", lambda *_args: pytest.fail("It was asked for."))
    client.force_login(viewer)
    assert client.get("/scheduler/").status_code == 200


def test_the_line_about_the_schedulers_health_names_pause_and_alarms(client: Client, owner: User, task: Task) -> None:
    client.force_login(owner)
    assert "health-alarms" not in client.get("/scheduler/").text
    now = timezone.now()
    Alarm.objects.create(task=task, kind=Alarm.Kind.LATE, at=now)
    SchedulerState.get().pause(by=owner, why="Upgrade", now=now)
    page = client.get("/scheduler/").text
    line = page[page.index('<p class="health">') :].split("</p>")[0]
    assert "1 alarm<" in line
    assert ">paused<" in line
