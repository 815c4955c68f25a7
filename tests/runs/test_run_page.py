"""A run's page in a real browser: its log, its files, and starting it once more."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from scheduler import outputs
from scheduler.models import OutputFile, ProgramVersion, Run
from scheduler.states import Reason, Status

from .browsing import in_browser

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from playwright.sync_api import Page

    from tests.browser.looking import Look

    MakeRun = Callable[..., Run]

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def write(run: Run, content: bytes, *, more: bool = False) -> None:
    path = outputs.log_path(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab" if more else "wb") as file:
        file.write(content)


def test_a_log_is_searched_and_read_at_any_place(owner: User, make_run: MakeRun, live_server: Any, look: Look) -> None:
    run = make_run(Status.FAILED)
    lines = [f"line {number:05d} copied\n" for number in range(9000)]
    lines[4000] = "\x1b[31mValueError:\x1b[0m the disk is full\n"
    lines[6000] = "a second error\n"
    write(run, "".join(lines).encode())

    def act(page: Page) -> None:
        page.goto(f"{live_server.url}{run.get_absolute_url()}")
        log = page.locator("pre.log")
        expect(log).to_contain_text("line 08999")
        assert log.evaluate("each => each.scrollTop + each.clientHeight >= each.scrollHeight - 8")
        page.get_by_role("link", name="First error", exact=True).click()
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

    assert in_browser(live_server.url, act, look, user=owner) == []


def test_a_log_is_followed_and_only_its_newest_lines_are_kept(
    owner: User, make_run: MakeRun, live_server: Any, look: Look
) -> None:
    version = ProgramVersion.of(
        program="x.py", sha256="0" * 64, size=1, modified_at=timezone.now(), interpreter="python", environment=["PATH"]
    )
    run = make_run(Status.PROCESSING, version=version)

    def act(page: Page) -> None:
        page.goto(f"{live_server.url}{run.get_absolute_url()}")
        page.locator("#environment summary").click()
        before = page.locator("#run").inner_text()
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
        # The rest of the page follows too, and what was opened stays open.
        page.wait_for_function("before => document.getElementById('run').innerText !== before", arg=before)
        expect(page.locator("#environment code")).to_be_visible()
        page.get_by_role("link", name="Earlier").click()
        expect(log).to_contain_text("line 1000\n")
        expect(log).not_to_contain_text("the last line")

    assert in_browser(live_server.url, act, look, user=owner) == []


def test_a_run_that_is_deleted_while_one_looks_at_it_is_told(
    owner: User, make_run: MakeRun, live_server: Any, look: Look
) -> None:
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

    assert all(line.startswith("404: ") for line in in_browser(live_server.url, act, look, user=owner))


def _delete(run: Run) -> None:
    from django.db import connection

    Run.objects.filter(pk=run.pk).update(status=Status.FAILED, reason=Reason.LOST, finished_at=run.queued_at)
    Run.objects.filter(pk=run.pk).delete()
    connection.close()


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/q842iQAAAABJRU5ErkJggg=="
)


def test_files_are_looked_at_without_a_download(owner: User, make_run: MakeRun, live_server: Any, look: Look) -> None:
    run = make_run()
    contents = {
        "chart.png": PNG,
        "page.html": b"<script>document.title = 'it ran'</script>",
        "table.csv": b"name;value\nfirst;1\n",
    }
    for name, content in contents.items():
        file = OutputFile.objects.create(run=run, name=name, size=len(content), sha256="0" * 64, created_at=run.due_at)
        outputs.file_path(file).parent.mkdir(parents=True, exist_ok=True)
        outputs.file_path(file).write_bytes(content)

    def act(page: Page) -> None:
        def open_preview(name: str) -> None:
            page.goto(f"{live_server.url}{run.get_absolute_url()}")
            page.get_by_role("link", name=f"Preview of {name}").click()
            expect(page.get_by_role("heading", name=name)).to_be_visible()

        open_preview("chart.png")
        picture = page.get_by_role("img", name="chart.png")
        assert picture.evaluate("each => [each.complete, each.naturalWidth]") == [True, 1]
        # By itself it is in a sandbox that lets nothing run.
        page.goto(f"{live_server.url}{picture.get_attribute('src')}")
        assert page.evaluate("document.contentType") == "image/png"
        open_preview("table.csv")
        expect(page.get_by_role("columnheader", name="value")).to_be_visible()
        expect(page.get_by_role("cell", name="first")).to_be_visible()
        open_preview("page.html")
        expect(page.locator("pre.log")).to_have_text("<script>document.title = 'it ran'</script>")
        assert page.title() != "it ran"

    # The browser's own frame around a picture has a style, which the picture's policy does not allow, and what listens
    # here is a script, which no sandbox lets run.
    said = in_browser(live_server.url, act, look, user=owner)
    assert [line for line in said if "'default-src 'none''" not in line and "sandboxed" not in line] == []


def test_a_run_is_started_again_with_other_arguments(
    owner: User, make_run: MakeRun, live_server: Any, look: Look
) -> None:
    run = make_run(Status.FAILED, arguments=["--days", "7"])

    def act(page: Page) -> None:
        page.goto(f"{live_server.url}{run.get_absolute_url()}")
        page.get_by_role("link", name="Run again with other arguments").click()
        arguments = page.get_by_role("textbox", name="Arguments")
        expect(arguments).to_have_value("--days 7")
        arguments.fill("--days '8")
        page.get_by_role("button", name="Run now").click()
        expect(page.locator(".errorlist")).to_contain_text("A quote is not closed")
        arguments.fill("--days '8 or so'")
        page.get_by_role("button", name="Run now").click()
        expect(page.get_by_role("heading", name="Nightly report")).to_be_visible()
        expect(page.locator(".facts").first).to_contain_text("'8 or so'")
        expect(page.get_by_role("link", name=f"run #{run.pk}", exact=True)).to_be_visible()

    assert in_browser(live_server.url, act, look, user=owner) == []
    assert Run.objects.queued().get().arguments == ["--days", "8 or so"]
