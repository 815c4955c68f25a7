"""Each page of the admin that is ours, in light and dark, wide and narrow, in English and German: nothing is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from .looking import Chromium, Look, looked_at, problems

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .rows import Rows

pytestmark = pytest.mark.browser

PAGES = [
    "",
    "scheduler/",
    "scheduler/task/",
    "scheduler/task/?q=nothing+like+this",
    "scheduler/task/add/",
    "scheduler/task/{task}/change/",
    "scheduler/task/{long}/change/",
    "scheduler/task/{every}/change/",
    "scheduler/task/{task}/access/",
    "scheduler/task/{mails}/delete/",
    "scheduler/task/{task}/history/",
    "scheduler/schedule/",
    "scheduler/schedule/add/",
    "scheduler/schedule/{schedule}/change/",
    "scheduler/schedule/{paused}/change/",
    "scheduler/run/",
    "scheduler/run/{done}/change/",
    "scheduler/run/{running}/change/",
    "scheduler/recurrence/",
    "scheduler/recurrence/add/",
    "scheduler/recurrence/{early}/change/",
    "scheduler/calendar/",
    "scheduler/calendar/add/",
    "scheduler/calendar/{calendar}/change/",
    "scheduler/concurrencygroup/",
    "scheduler/concurrencygroup/{group}/change/",
    "scheduler/poller/",
    "scheduler/poller/{poller}/change/",
    "scheduler/auditentry/",
    "scheduler/auditentry/{audit}/change/",
]


@looked_at(PAGES)
def test_nothing_is_wrong_with_a_page(chromium: Chromium, rows: Rows, page: str, look: Look) -> None:
    assert problems(chromium, rows.admin, f"/admin/{page.format(**rows.ids)}", look) == []


def send_nothing(page: Page) -> None:
    page.locator("[name=_save]").last.click()
    expect(page.locator(".errorlist").first).to_be_visible()


def choose_to_delete(page: Page) -> None:
    page.locator("[name=_selected_action]").first.check()
    page.locator("[name=action]").select_option("delete_selected")
    page.locator(".actions [type=submit]").click()
    expect(page.locator("[name=post]")).to_be_attached()


ACTS: dict[str, tuple[Any, str]] = {
    "an empty task": (send_nothing, "scheduler/task/add/"),
    "an empty schedule": (send_nothing, "scheduler/schedule/add/"),
    "an empty calendar": (send_nothing, "scheduler/calendar/add/"),
    "deleting tasks": (choose_to_delete, "scheduler/task/?q=Weekly"),
}


@looked_at(ACTS)
def test_nothing_is_wrong_after_somebody_did_something(chromium: Chromium, rows: Rows, page: str, look: Look) -> None:
    prepare, path = ACTS[page]
    assert problems(chromium, rows.admin, f"/admin/{path}", look, prepare=prepare) == []
