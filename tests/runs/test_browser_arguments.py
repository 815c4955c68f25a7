"""Arguments as a person gives them: by fields, as a line, and back again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from scheduler.models import Run, Task

from .browsing import in_browser
from .test_browser import samples

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

    from tests.browser.looking import Look

    from .conftest import World

__all__ = ["samples"]

pytestmark = pytest.mark.browser


def test_the_fields_come_once_the_program_has_answered_and_say_the_same_as_the_line(
    samples: World, live_server: Any, look: Look
) -> None:
    def act(page: Page) -> None:
        page.goto(f"{live_server.url}/scheduler/schedule/")
        expect(page.get_by_label("One by one")).to_have_count(0)
        page.get_by_label("Task", exact=False).first.select_option(label="machine_report")
        # No reload: the poller asks the program, and the page follows.
        page.get_by_label("One by one").check()
        page.get_by_label("--processes").fill("5")
        page.get_by_label("As a line", exact=True).check()
        expect(page.get_by_label("Arguments as a line")).to_have_value("--processes 5")
        page.get_by_label("Arguments as a line").fill("--processes 6")
        page.get_by_label("One by one").check()
        expect(page.get_by_label("--processes")).to_have_value("6")
        page.get_by_label("--processes").fill("7")
        page.locator("#content form [type=submit]").first.click()
        page.wait_for_url("**/scheduler/runs/*/")

    said = in_browser(live_server.url, act, look)
    assert said == []
    assert Run.objects.get().arguments == ["--processes", "7"]


def test_the_admin_has_the_same_fields(samples: World, live_server: Any, look: Look) -> None:
    task = Task.objects.get(name="countdown")

    def act(page: Page) -> None:
        page.goto(f"{live_server.url}/admin/scheduler/task/{task.pk}/change/")
        expect(page.locator("#id_arguments-of-seconds")).to_have_value("300")
        page.locator("#id_arguments-of-seconds").fill("20")
        page.get_by_role("button", name="Save", exact=True).click()
        page.wait_for_url("**/admin/scheduler/task/")

    assert in_browser(live_server.url, act, look) == []
    task.refresh_from_db()
    assert task.arguments == ["20"]


def test_a_form_that_is_sent_at_once_waits_for_the_arguments_of_its_task(
    samples: World, live_server: Any, look: Look
) -> None:
    def act(page: Page) -> None:
        page.goto(f"{live_server.url}/scheduler/schedule/")
        tasks = page.get_by_label("Task", exact=False).first
        tasks.select_option(label="machine_report")
        page.get_by_label("One by one").check()
        held: list[Route] = []
        page.route("**/arguments/", lambda route: held.append(route))
        with page.expect_request("**/arguments/"):
            tasks.select_option(label="countdown")
        page.locator("#content form [type=submit]").first.click()
        held[0].continue_()
        page.unroute("**/arguments/")
        page.wait_for_url("**/scheduler/runs/*/")

    assert in_browser(live_server.url, act, look) == []
    assert Run.objects.get().task.name == "countdown"
