"""Each page of the scheduler, in light and dark, wide and narrow, in English and German: nothing is wrong with it."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from scheduler.models import Poller, SchedulerState

from .looking import Chromium, Look, looked_at, problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from .rows import Rows

pytestmark = pytest.mark.browser

PAGES = {
    "the main page": "/scheduler/",
    "the main page, filtered": "/scheduler/?text=nobody&owner=olivia",
    "the main page, filtered by status": "/scheduler/?status=failed",
    "the main page of a task": "/scheduler/?task={task}",
    "the form": "/scheduler/schedule/",
    "the form with a program's arguments": "/scheduler/schedule/?task={every}",
    "the timeline": "/scheduler/timeline/",
    "the timeline by host": "/scheduler/timeline/?by=host",
    "the timeline of an empty day": "/scheduler/timeline/?day=2001-02-03",
    "the calendar": "/scheduler/calendar/",
    "the calendar of a task": "/scheduler/calendar/?task={task}",
    "a task": "/scheduler/tasks/{task}/",
    "a task with a long name": "/scheduler/tasks/{long}/",
    "a task's slots": "/scheduler/tasks/{task}/slots/",
    "a task's slots that did not run": "/scheduler/tasks/{task}/slots/?not_run=1",
    "a paused schedule's slots": "/scheduler/tasks/{long}/slots/",
    "pausing a task": "/scheduler/tasks/{task}/pause/",
    "resuming a task": "/scheduler/tasks/{mails}/pause/",
    "pausing a schedule": "/scheduler/schedules/{schedule}/pause/",
    "pausing everything": "/scheduler/pause/",
    "alarms": "/scheduler/alarms/",
    "all alarms": "/scheduler/alarms/?all=1",
    "a run that is processed": "/scheduler/runs/{running}/",
    "a run that waits": "/scheduler/runs/{queued}/",
    "a run that failed": "/scheduler/runs/{failed}/",
    "the first error of a log": "/scheduler/runs/{failed}/?error=0",
    "a search in a log": "/scheduler/runs/{failed}/?find=0001",
    "a search in vain": "/scheduler/runs/{failed}/?find=nothing",
    "a run that is lost": "/scheduler/runs/{lost}/",
    "a run with files": "/scheduler/runs/{done}/",
    "a run with 10,000 files": "/scheduler/runs/{many}/",
    "a run with an archive under way": "/scheduler/runs/{packing}/",
    "a run without its log": "/scheduler/runs/{purged}/",
    "a run that was skipped": "/scheduler/runs/{skipped}/",
    "a run that was cancelled": "/scheduler/runs/{cancelled}/",
    "running again": "/scheduler/runs/{done}/again/change/",
    "deleting a run": "/scheduler/runs/{done}/delete/",
    "a picture": "/scheduler/files/{picture}/preview/",
    "a table": "/scheduler/files/{table}/preview/",
    "a text": "/scheduler/files/{page}/preview/",
    "a file that cannot be shown": "/scheduler/files/{binary}/preview/",
    "a file that is not in the store": "/scheduler/files/{gone}/preview/",
}


@looked_at(PAGES)
def test_nothing_is_wrong_with_a_page(chromium: Chromium, rows: Rows, page: str, look: Look) -> None:
    assert problems(chromium, rows.admin, PAGES[page].format(**rows.ids), look) == []


OF_OTHERS: dict[str, tuple[str, str, int]] = {
    "the main page for who sees no task": ("stranger", "/scheduler/", 200),
    "the main page for who may start nothing": ("viewer", "/scheduler/", 200),
    "a task for who may only see it": ("viewer", "/scheduler/tasks/{task}/", 200),
    "a run whose log one may not read": ("viewer", "/scheduler/runs/{done}/", 200),
    "what is not there": ("admin", "/scheduler/runs/999999/", 404),
    "a file that is not in the store, downloaded": ("admin", "/scheduler/files/{gone}/", 404),
    "what one may not do": ("viewer", "/scheduler/runs/{done}/again/change/", 403),
    "a page of staff's": ("visitor", "/scheduler/", 403),
    "the admin's log-in": ("nobody", "/admin/login/", 200),
    "the site's log-in": ("nobody", "/accounts/login/", 200),
    "the site's own page": ("visitor", "/", 200),
    "the site's own page for staff": ("admin", "/", 200),
}


@looked_at(OF_OTHERS)
def test_nothing_is_wrong_with_what_others_see(chromium: Chromium, rows: Rows, page: str, look: Look) -> None:
    name, path, status = OF_OTHERS[page]
    user = getattr(rows, name, None)
    assert problems(chromium, user, path.format(**rows.ids), look, status=status) == []


@contextmanager
def no_poller() -> Iterator[None]:
    long_ago = timezone.now() - timedelta(hours=1)
    (seen_at,) = Poller.objects.values_list("seen_at", flat=True)
    Poller.objects.update(seen_at=long_ago)
    yield
    Poller.objects.update(seen_at=seen_at)


@contextmanager
def full_disk() -> Iterator[None]:
    Poller.objects.update(is_out_of_room=True, free_bytes=1_000_000)
    yield
    Poller.objects.update(is_out_of_room=False, free_bytes=None)


@contextmanager
def paused() -> Iterator[None]:
    state, _created = SchedulerState.objects.get_or_create(pk=1)
    state.pause(by=None, why="The storage is moved until noon", now=timezone.now())
    yield
    state.resume()


STATES: dict[str, tuple[Any, str]] = {
    "no poller": (no_poller, "/scheduler/"),
    "a run of a host without a poller": (no_poller, "/scheduler/runs/{running}/"),
    "a full disk": (full_disk, "/scheduler/"),
    "everything is paused": (paused, "/scheduler/"),
    "resuming everything": (paused, "/scheduler/pause/"),
}


@looked_at(STATES)
def test_nothing_is_wrong_in_a_state_of_the_whole(chromium: Chromium, rows: Rows, page: str, look: Look) -> None:
    happens, path = STATES[page]
    with happens():
        assert problems(chromium, rows.admin, path.format(**rows.ids), look) == []


def show_shortcuts(page: Page) -> None:
    page.wait_for_selector(".shortcuts-hint:not([hidden])", state="attached")  # on a telephone it is not shown
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()


def send_nothing(page: Page) -> None:
    page.locator("#content form [type=submit]").first.click()
    expect(page.locator(".errorlist").first).to_be_visible()


def fill_in(page: Page) -> None:
    page.locator("[name=task]").select_option(label="Nightly report")
    page.locator("[name=when][value=recurring]").check()
    page.locator("[name=recurrence]").select_option(index=1)
    page.locator("[name=anchor]").fill("2090-03-20T00:00")
    page.locator("[name=time_zone]").select_option("Europe/Amsterdam")
    expect(page.locator("#preview td").first).to_be_visible()


def close_a_quote_badly(page: Page) -> None:
    page.get_by_role("textbox").first.fill("'open")
    send_nothing(page)


def refuse(page: Page) -> None:
    page.locator("[name=username]").fill("olivia")
    page.locator("[name=password]").fill("not this one")
    page.locator("[type=submit]").last.click()
    expect(page.locator(".errornote, .errorlist").first).to_be_visible()


def lose_the_server(page: Page) -> None:
    page.route("**fragment=1*", lambda route: route.fulfill(status=200, body=""))
    expect(page.locator("[data-lost]")).to_be_visible()


ACTS: dict[str, tuple[Any, str]] = {
    "shortcuts": (show_shortcuts, "/scheduler/"),
    "an empty form": (send_nothing, "/scheduler/schedule/"),
    "a form with its next runs": (fill_in, "/scheduler/schedule/"),
    "wrong arguments": (close_a_quote_badly, "/scheduler/runs/{done}/again/change/"),
    "a lost server": (lose_the_server, "/scheduler/"),
}


@looked_at(ACTS)
def test_nothing_is_wrong_after_somebody_did_something(chromium: Chromium, rows: Rows, page: str, look: Look) -> None:
    prepare, path = ACTS[page]
    assert problems(chromium, rows.admin, path.format(**rows.ids), look, prepare=prepare) == []


@looked_at(["/admin/login/", "/accounts/login/"])
def test_nothing_is_wrong_with_a_refused_log_in(chromium: Chromium, rows: Rows, page: str, look: Look) -> None:
    assert problems(chromium, None, page, look, prepare=refuse) == []
