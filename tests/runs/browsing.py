"""A person at a browser: what they do, in one look, and what the browser complained about meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from playwright.sync_api import expect, sync_playwright

from tests import servers
from tests.browser.looking import ARGUMENTS, FULL, STILL, WIDER, listen, require_chromium, session, violations

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from playwright.sync_api import Page

    from tests.browser.looking import Look

PASSWORD = "a long pass phrase"
PATIENCE = 60_000  # ms


def in_browser(
    address: str, act: Callable[[Page], None], look: Look, *, user: User | None = None, javascript: bool = True
) -> list[str]:
    """Act with a real browser, in a thread of its own; what is wrong with what was seen, as lines of text.

    ``user`` is logged in already; without one olivia logs in, and is on the main page. The page that is left is looked
    at: nothing makes it wider than the window, and in a full run axe-core finds nothing.
    """
    require_chromium()
    cookies = session(user, address) if user is not None else []

    def work() -> list[str]:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(servers.program("chromium")), args=ARGUMENTS)
            try:
                context = browser.new_context(**look.context, java_script_enabled=javascript)
                context.set_default_timeout(PATIENCE)
                expect.set_options(timeout=PATIENCE)
                context.add_cookies(cookies)  # type: ignore[arg-type]
                page = context.new_page()
                said = listen(page)
                if user is None:
                    page.goto(f"{address}/scheduler/")
                    page.get_by_label("Username").fill("olivia")
                    page.get_by_label("Password").fill(PASSWORD)
                    page.get_by_role("button", name="Log in").click()
                act(page)
                page.wait_for_load_state()
                said += page.evaluate(WIDER)
                if FULL and javascript:
                    page.evaluate(STILL)
                    said += violations(page)
                return said
            finally:
                browser.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()
