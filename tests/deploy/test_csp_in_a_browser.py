"""No page of the site breaks its own Content-Security-Policy: looked at with a real browser, through nginx."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from playwright.sync_api import sync_playwright

from scheduler.states import Status
from tests import servers

from .conftest import session_of
from .site import need

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from playwright.sync_api import ConsoleMessage, Page

    from scheduler.models import Poller, Recurrence, Run, Task

    from .site import Site

T = TypeVar("T")

pytestmark = [pytest.mark.processes, pytest.mark.browser]


def in_browser(act: Callable[[Page], T], *, cookie: dict[str, Any] | None = None) -> T:
    """Do something with a fresh page of a real browser, in a thread: playwright's loop keeps Django out of its own."""
    need("chromium")

    def work() -> T:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(servers.program("chromium")), args=flags)
            context = browser.new_context(ignore_https_errors=True)  # the certificate is our own
            if cookie:
                context.add_cookies([cookie])  # type: ignore[list-item]
            try:
                return act(context.new_page())
            finally:
                browser.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def complaints(site: Site, paths: list[str], user: User | None) -> list[str]:
    """What the browser complains about while it shows the pages: refused code, errors, missing files."""
    cookie = None
    if user is not None:
        name, _, value = session_of(user).partition("=")
        cookie = {"name": name, "value": value, "url": site.address, "secure": True}

    def look(page: Page) -> list[str]:
        said: list[str] = []

        def hear(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                said.append(f"{page.url}: {message.text}")

        page.on("console", hear)
        page.on("pageerror", lambda error: said.append(f"{page.url}: {error}"))
        for path in paths:
            answer = page.goto(f"{site.address}{path}", wait_until="load")
            assert answer is not None
            assert answer.status == 200, path
        return said

    return in_browser(look, cookie=cookie)


def test_the_pages_for_staff(
    whole_site: Site,
    admin: User,
    task: Task,
    recurrence: Recurrence,
    poller: Poller,
    make_run: Callable[..., Run],
) -> None:
    runs = [make_run(), make_run(Status.FAILED), make_run(Status.PROCESSING)]
    paths = ["/", "/scheduler/", "/scheduler/schedule/", *(f"/scheduler/runs/{run.pk}/" for run in runs)]
    paths += [f"/scheduler/runs/{runs[0].pk}/again/change/", f"/scheduler/runs/{runs[0].pk}/delete/"]
    paths += [task.get_absolute_url(), "/scheduler/timeline/", f"/scheduler/schedule/?task={task.pk}"]
    paths += ["/admin/", "/admin/scheduler/", "/admin/auth/user/", f"/admin/auth/user/{admin.pk}/change/"]
    for model, row in {"task": task.pk, "recurrence": recurrence.pk}.items():
        paths += [f"/admin/scheduler/{model}/{page}" for page in ("", "add/", f"{row}/change/", f"{row}/history/")]
    paths += ["/admin/scheduler/schedule/", "/admin/scheduler/schedule/add/", "/admin/scheduler/run/"]
    paths += [f"/admin/scheduler/run/{runs[0].pk}/change/", "/admin/scheduler/poller/"]
    paths += [f"/admin/scheduler/task/{task.pk}/delete/", "/admin/password_change/"]
    assert complaints(whole_site, paths, admin) == []


def test_the_pages_for_everybody(whole_site: Site) -> None:
    assert complaints(whole_site, ["/", "/accounts/login/", "/admin/login/"], None) == []


def test_code_in_a_page_would_not_run(whole_site: Site) -> None:
    def put_code_into(page: Page) -> object:
        page.goto(f"{whole_site.address}/accounts/login/")
        page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.wasRun = true";
                document.body.append(script);
                const image = document.createElement("img");
                image.setAttribute("onerror", "window.wasRun = true");
                image.src = "/nowhere.png";
                document.body.append(image);
                return new Promise(resolve => image.addEventListener("error", () => resolve()));
            }"""
        )
        return page.evaluate("() => window.wasRun")

    assert in_browser(put_code_into) is None
