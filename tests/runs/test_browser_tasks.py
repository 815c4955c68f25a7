"""A task's page and the timeline, as a person goes through them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from scheduler.models import Run, Task
from scheduler.states import Reason, Status

from .browsing import in_browser
from .test_browser import samples

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.looking import Look

    from .conftest import World

__all__ = ["samples"]

pytestmark = pytest.mark.browser


@pytest.fixture
def past(samples: World) -> Run:
    """A run of the countdown that ended a minute ago, and one that failed before it."""
    task, now = Task.objects.get(name="countdown"), timezone.now()
    for exit_code, minutes in ((1, 30), (0, 1)):
        ended = now - timedelta(minutes=minutes)
        run = Run.objects.create(
            task=task,
            status=Status.FAILED if exit_code else Status.COMPLETED,
            reason=Reason.EXIT_CODE,
            exit_code=exit_code,
            queued_at=ended,
            due_at=ended,
            ready_at=ended,
            started_at=ended - timedelta(seconds=30),
            finished_at=ended,
        )
    return run


def test_from_a_task_to_its_run_by_the_keyboard_and_back(
    samples: World, past: Run, live_server: Any, look: Look
) -> None:
    def act(page: Page) -> None:
        page.get_by_role("link", name="countdown").first.click()
        page.wait_for_url("**/scheduler/tasks/*/")
        expect(page.get_by_text("50 % completed")).to_be_visible()
        bars = page.locator(".durations a")
        expect(bars).to_have_count(2)
        bars.last.focus()
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/scheduler/runs/{past.pk}/")
        page.locator("#task-link").click()
        page.locator("summary").click()
        expect(page.get_by_text("def main(")).to_be_visible()
        page.locator("#run-now").click()
        page.wait_for_url("**/scheduler/runs/*/")

    assert in_browser(live_server.url, act, look) == []
    assert Run.objects.count() == 3


def test_a_day_is_seen_at_a_glance_and_its_runs_are_links(
    samples: World, past: Run, live_server: Any, look: Look
) -> None:
    def act(page: Page) -> None:
        page.get_by_role("link", name="Timeline").click()
        day = timezone.localdate(past.started_at).isoformat()
        page.get_by_label("Day", exact=True).fill(day)
        page.get_by_role("button", name="Show").click()
        page.wait_for_url(f"**/timeline/?day={day}*")
        page.get_by_role("link", name="By host").click()
        # What is wide scrolls inside; the page itself does not.
        chart = page.locator(".day-chart")
        assert chart.evaluate("each => each.scrollWidth > each.clientWidth") == (look.width == "narrow")
        bar = page.locator(f".lane-bars a[href='/scheduler/runs/{past.pk}/']")
        expect(bar.locator("rect")).to_be_in_viewport()
        expect(bar.locator("rect")).to_be_visible()
        page.get_by_text("As a table").click()
        page.get_by_role("link", name=f"#{past.pk}", exact=True).click()
        page.wait_for_url(f"**/scheduler/runs/{past.pk}/")

    assert in_browser(live_server.url, act, look) == []
