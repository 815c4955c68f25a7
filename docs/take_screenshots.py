#!/usr/bin/env python
"""Take the pictures in docs/screenshots: ``.venv/bin/python docs/take_screenshots.py`` (needs Chromium).

Starts the demo on data of its own, lets some tasks run, and looks at the pages as people would.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROJECT = Path(__file__).resolve().parent.parent
PICTURES = PROJECT / "docs" / "screenshots"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def main() -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium is not installed. Install it: apt-get install chromium")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="scheduler-pictures-") as var:
        environment = {**os.environ, "SCHEDULER_VAR": var}
        demo = subprocess.Popen([PROJECT / "demo" / "run", "--port", str(port)], env=environment)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/accounts/login/", demo)
            password = re.search(r"^admin\s+(\S+)", (Path(var) / "demo_logins").read_text(), re.MULTILINE)
            assert password is not None
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                _take_all(browser, address, password[1])
                browser.close()
        finally:
            demo.send_signal(signal.SIGTERM)
            demo.wait()


def _wait_for(address: str, demo: subprocess.Popen[bytes]) -> None:
    while demo.poll() is None:
        try:
            urllib.request.urlopen(address).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    sys.exit("The demo did not start; what it said stands above.")


def _take_all(browser: Browser, address: str, password: str) -> None:
    page = _logged_in(browser, address, password, width=1280, scheme="light")
    for task, name in (("Fails on purpose", "run-failed"), ("Web log report", ""), ("Machine report", "run")):
        _start(page, address, task)
        page.locator("[data-finished=yes]").wait_for(timeout=60_000)
        if name == "run-failed":
            page.get_by_role("link", name="First error in the log").click()
            page.locator(".target").wait_for()
        if name:
            _picture(page, name)
    finished = page.url
    page.get_by_role("link", name="Preview of machine_report.csv").click()
    _picture(page, "file-preview")
    _tell_when_late(page, address, "Countdown")
    _start(page, address, "Countdown")
    running = page.url
    page.locator("progress").first.wait_for(timeout=60_000)
    _start(page, address, "Countdown")  # it waits for the first one
    page.goto(f"{address}/scheduler/alarms/")
    while not page.get_by_role("button", name="Dismiss alarm").count():
        page.wait_for_timeout(500)
        page.reload()
    _picture(page, "alarms")
    page.goto(running)
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 360)):
        look = _logged_in(browser, address, password, width=width, scheme=scheme)
        kind = ("-dark" if scheme == "dark" else "") + ("-narrow" if width == 360 else "")
        _picture(look, f"main{kind}")
        if kind:
            look.goto(page.url)
            look.locator("#processes-heading").wait_for(timeout=60_000)
            _picture(look, f"run{kind}")
    _preview(page, address)
    _pause(page, address, "Machine report", "The disk is nearly full")
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 360)):
        look = _logged_in(browser, address, password, width=width, scheme=scheme)
        look.goto(f"{address}/scheduler/calendar/")
        _picture(look, "calendar" + ("-dark" if scheme == "dark" else "") + ("-narrow" if width == 360 else ""))
    page.goto(f"{address}/scheduler/schedule/")
    page.select_option("[name=task]", label="Purge old runs")
    page.get_by_label("One by one").check()
    page.get_by_label("--dry-run").check()
    _picture(page, "arguments")
    for name, path in (
        ("slots", "/scheduler/tasks/2/slots/"),
        ("admin-schedule", "/admin/scheduler/schedule/1/change/"),
        ("schedule", "/scheduler/schedule/"),
        ("task", "/scheduler/tasks/1/"),
        ("timeline", "/scheduler/timeline/"),
        ("admin-tasks", "/admin/scheduler/task/"),
        ("admin-task", "/admin/scheduler/task/1/change/"),
        ("admin-access", "/admin/scheduler/task/1/access/"),
        ("admin-schedules", "/admin/scheduler/schedule/"),
        ("admin-runs", "/admin/scheduler/run/"),
        ("admin-run", "/admin/scheduler/run/1/change/"),
        ("admin-recurrences", "/admin/scheduler/recurrence/"),
        ("admin-recurrence", "/admin/scheduler/recurrence/7/change/"),
        ("admin-calendar", "/admin/scheduler/calendar/add/"),
        ("admin-group", "/admin/scheduler/concurrencygroup/add/"),
        ("admin-pollers", "/admin/scheduler/poller/"),
        ("admin-audit", "/admin/scheduler/auditentry/"),
        ("again", f"{finished}again/change/"),
        ("delete", f"{finished}delete/"),
        ("pause", "/scheduler/pause/"),
        ("not-found", "/scheduler/runs/999999/"),
        ("site", "/"),
    ):
        page.goto(urljoin(address, path))
        _picture(page, name)
    stranger = browser.new_page(viewport={"width": 1280, "height": 800})
    stranger.goto(f"{address}/scheduler/")
    _picture(stranger, "log-in")


def _logged_in(browser: Browser, address: str, password: str, *, width: int, scheme: str) -> Page:
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    page.goto(f"{address}/scheduler/")
    page.fill("[name=username]", "admin")
    page.fill("[name=password]", password)
    page.locator("#content [type=submit]").click()
    page.wait_for_url("**/scheduler/")
    return page


def _start(page: Page, address: str, task: str) -> None:
    page.goto(f"{address}/scheduler/schedule/")
    page.select_option("[name=task]", label=task)
    page.locator("#content form [type=submit]").first.click()
    page.wait_for_url("**/scheduler/runs/*/")


def _preview(page: Page, address: str) -> None:
    """The form's preview, over a change of the clocks."""
    page.goto(f"{address}/scheduler/schedule/")
    page.select_option("[name=task]", label="Export users")
    page.check("[name=when][value=recurring]")
    page.locator("[name=recurrence]").select_option(label="Daily at 02:00 (cron) (every day at 02:00)")
    page.select_option("[name=time_zone]", "Europe/Amsterdam")
    page.fill("[name=anchor]", "2027-03-20T00:00")
    page.locator("#preview td").first.wait_for()
    _picture(page, "schedule-preview")


def _tell_when_late(page: Page, address: str, task: str) -> None:
    page.goto(f"{address}/admin/scheduler/task/")
    page.get_by_role("link", name=task).click()
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    page.fill("[name=late_after_seconds]", "1")
    page.click("[name=_save]")


def _pause(page: Page, address: str, task: str, why: str) -> None:
    page.goto(f"{address}/admin/scheduler/task/")
    page.get_by_role("link", name=task).click()
    page.locator(".object-tools").get_by_role("link", name="Pause").click()
    page.fill("[name=why]", why)
    page.locator("#content form [type=submit]").first.click()


def _picture(page: Page, name: str) -> None:
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
    print(PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
