"""A run's page in a real browser: its log, its files, and starting it once more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import expect, sync_playwright

from scheduler import outputs
from scheduler.models import Run
from scheduler.states import Reason, Status
from tests import servers

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from playwright.sync_api import Page

    MakeRun = Callable[..., Run]

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PATIENCE = 60_000  # ms


def write(run: Run, content: bytes, *, more: bool = False) -> None:
    path = outputs.log_path(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab" if more else "wb") as file:
        file.write(content)


def look(
    address: str,
    user: User,
    act: Callable[[Page], None],
    *,
    width: int = 1280,
    scheme: str = "light",
    expected: str = "nothing",
) -> None:
    """Act with a real browser, logged in; fails when the browser complains, or a page is wider than the window.

    ``expected`` is a part of the complaints that are none.
    """
    if servers.program("chromium") is None:
        (pytest.fail if servers.in_ci() else pytest.skip)("Chromium is not installed: NOT TESTED HERE")
    client = Client()
    client.force_login(user)
    cookie: Any = {
        "name": settings.SESSION_COOKIE_NAME,
        "value": client.cookies[settings.SESSION_COOKIE_NAME].value,
        "url": address,
    }

    def work() -> list[str]:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=str(servers.program("chromium")),
                args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            )
            try:
                context = browser.new_context(
                    viewport={"width": width, "height": 800}, color_scheme="dark" if scheme == "dark" else "light"
                )
                context.add_cookies([cookie])
                page = context.new_page()
                page.set_default_timeout(PATIENCE)
                expect.set_options(timeout=PATIENCE)
                said: list[str] = []
                page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
                page.on("pageerror", lambda error: said.append(str(error)))
                act(page)
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                return said
            finally:
                browser.close()

    with ThreadPoolExecutor(1) as thread:
        assert [line for line in thread.submit(work).result() if expected not in line] == []


def test_a_log_is_searched_and_read_at_any_place(owner: User, make_run: MakeRun, live_server: Any) -> None:
    run = make_run(Status.FAILED)
    lines = [f"line {number:05d} copied\n" for number in range(9000)]
    lines[4000] = "\x1b[31mValueError:\x1b[0m the disk is full\n"
    lines[6000] = "a second error\n"
    write(run, "".join(lines).encode())

    def act(page: Page) -> None:
        page.goto(f"{live_server.url}{run.get_absolute_url()}")
        log = page.locator("pre.log")
        expect(log).to_contain_text("line 08999")
        page.get_by_role("link", name="First error").click()
        expect(page.locator(".target")).to_have_text("ValueError: the disk is full\n")
        expect(page.locator(".target")).to_be_in_viewport()
        red = page.locator(".target .ink-1").evaluate("each => getComputedStyle(each).color")
        assert red != page.locator(".target").evaluate("each => getComputedStyle(each).color")
        page.get_by_role("link", name="Next error").click()
        expect(page.locator(".target")).to_have_text("a second error\n")
        page.go_back()
        expect(page.locator(".target")).to_have_text("ValueError: the disk is full\n")

        page.get_by_label("Search the whole log").fill("DISK")
        page.get_by_label("Search the whole log").press("Enter")
        expect(page.locator("#log-found")).to_have_text("1 line with “DISK”.")
        page.locator(".matches a").click()
        expect(page.locator(".target mark")).to_have_text("disk")
        page.get_by_role("link", name="All lines with “DISK”").click()
        expect(page.locator(".matches li")).to_have_count(1)

        page.get_by_label("Go to").fill("50 %")
        page.get_by_role("button", name="Go", exact=True).click()
        expect(page.locator(".target")).to_contain_text("line 04499")
        first = page.locator(".line").first.get_attribute("id")
        page.get_by_role("link", name="Later").click()
        expect(page.locator(f"#{first}")).to_have_count(0)
        page.get_by_role("link", name="Start", exact=True).click()
        expect(log).to_contain_text("line 00000")
        assert "after=0" in page.url
        page.get_by_role("link", name="End", exact=True).click()
        expect(log).to_contain_text("line 08999")
        page.reload()
        expect(log).to_contain_text("line 08999")

    look(live_server.url, owner, act)


def test_a_log_is_followed_and_only_its_newest_lines_are_kept(owner: User, make_run: MakeRun, live_server: Any) -> None:
    run = make_run(Status.PROCESSING)

    def act(page: Page) -> None:
        page.goto(f"{live_server.url}{run.get_absolute_url()}")
        expect(page.locator("#log-empty")).to_have_text("Nothing has been written to the log.")
        write(run, b"first line\n10 %\r")
        log = page.locator("pre.log")
        expect(log).to_have_text("first line\n10 %")
        write(run, b"20 %\r\x1b[32m100 %", more=True)
        expect(log).to_have_text("first line\n100 %")
        expect(page.get_by_label("Follow")).to_be_checked()
        write(run, b"\n" + b"".join(b"line %d\n" % number for number in range(7000)), more=True)
        expect(log).to_contain_text("line 6999")
        assert page.locator(".line").count() == 5000
        page.wait_for_function(
            "() => { const log = document.querySelector('pre.log');"
            " return log.scrollTop + log.clientHeight >= log.scrollHeight - 8; }"
        )
        # Whoever scrolls up is left alone.
        log.evaluate("each => each.scrollTo(0, 100)")
        expect(page.get_by_label("Follow")).not_to_be_checked()
        write(run, b"the last line\n", more=True)
        expect(log).to_contain_text("the last line")
        assert log.evaluate("each => each.scrollTop") < 1000
        page.get_by_role("link", name="Earlier").click()
        expect(log).to_contain_text("line 1000\n")
        expect(log).not_to_contain_text("the last line")

    look(live_server.url, owner, act, width=360, scheme="dark")


def test_a_run_that_is_deleted_while_one_looks_at_it_is_told(owner: User, make_run: MakeRun, live_server: Any) -> None:
    run = make_run(Status.PROCESSING)

    def act(page: Page) -> None:
        page.goto(f"{live_server.url}{run.get_absolute_url()}")
        write(run, b"what was read last\n")
        expect(page.locator("pre.log")).to_contain_text("what was read last")
        delete()
        expect(page.get_by_role("alert")).to_contain_text("not there any more")
        # What was read stays readable.
        expect(page.locator("pre.log")).to_contain_text("what was read last")

    def delete() -> None:
        with ThreadPoolExecutor(1) as thread:  # away from the browser's own loop
            thread.submit(_delete, run).result()

    look(live_server.url, owner, act, expected="404")


def _delete(run: Run) -> None:
    from django.db import connection

    Run.objects.filter(pk=run.pk).update(status=Status.FAILED, reason=Reason.LOST, finished_at=run.queued_at)
    Run.objects.filter(pk=run.pk).delete()
    connection.close()
