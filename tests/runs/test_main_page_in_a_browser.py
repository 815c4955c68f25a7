"""The main page in a real browser: filters, pages, rows that change in place, a lost server, and the keyboard."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from playwright.sync_api import expect

from scheduler.models import Poller, Run, Task
from scheduler.states import Reason, Status
from scheduler.views import main
from tests.browser.looking import WIDER, Look

from .browsing import PASSWORD, in_browser

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


WITH_KEYBOARD = Look("wide", "dark")  # a telephone has no button for the list of its keys


@pytest.fixture
def task() -> Task:
    """A task of olivia's, who can log in; a poller is up."""
    olivia = User.objects.create_user("olivia", password=PASSWORD, is_staff=True)
    now = timezone.now()
    values: dict[str, Any] = {"pid": 1, "boot_id": "", "start_ticks": 1, "version": "0", "capacity": 4}
    Poller.objects.create(host=uuid4(), host_name="here", started_at=now, seen_at=now + timedelta(hours=1), **values)
    return make_task("Nightly report", olivia)


def make_task(name: str, owner: User | None) -> Task:
    return Task.objects.create(name=name, owner=owner, program_root="sample_tasks", program_path="countdown.py")


def ended(task: Task, count: int, status: Status = Status.COMPLETED) -> list[Run]:
    now = timezone.now()
    return Run.objects.bulk_create(
        Run(
            task=task,
            status=status,
            reason=Reason.EXIT_CODE,
            exit_code=int(status == Status.FAILED),
            queued_at=now,
            due_at=now,
            started_at=now - timedelta(seconds=number + 3),
            finished_at=now - timedelta(seconds=number),
        )
        for number in range(count)
    )


def running(task: Task) -> Run:
    now = timezone.now()
    host = Poller.objects.values_list("host", flat=True)[0]
    times: dict[str, Any] = {"queued_at": now, "due_at": now, "ready_at": now, "claimed_at": now, "started_at": now}
    return Run.objects.create(
        task=task, status=Status.PROCESSING, claim_token="t", host=host, host_name="here", message="Begins", **times
    )


def meanwhile(change: Callable[[], object]) -> None:
    """Change rows while the browser looks; its thread has an event loop, in which Django refuses to."""

    def work() -> None:
        try:
            change()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(work).result()


def end(run: Run) -> None:
    values = {"reason": Reason.EXIT_CODE, "exit_code": 3, "finished_at": timezone.now(), "message": "It broke."}
    Run.objects.transition(run.pk, to=Status.FAILED, token="t", **values)


def test_a_row_changes_in_place_and_moves_when_its_run_has_ended(task: Task, live_server: Any, look: Look) -> None:
    run = running(task)

    def act(page: Page) -> None:
        row = page.locator(f"#running #run-{run.pk}")
        expect(row).to_contain_text("Begins")
        page.evaluate(f"document.getElementById('run-{run.pk}').marked = true")
        meanwhile(lambda: Run.objects.filter(pk=run.pk).update(message="Half way", progress_done=1, progress_total=2))
        expect(row).to_contain_text("Half way")
        expect(row.get_by_role("progressbar")).to_have_attribute("value", "50")
        assert page.evaluate(f"document.getElementById('run-{run.pk}').marked") is True
        assert page.evaluate(WIDER) == []
        # The button that has the focus goes; the focus stays with the run.
        row.get_by_role("button", name="Stop").focus()
        meanwhile(lambda: end(run))
        expect(page.locator(f"#finished #run-{run.pk}")).to_contain_text("exit code 3")
        expect(page.locator(f"#run-{run.pk}-link")).to_be_focused()
        expect(page.locator("[data-announce]")).to_have_text(f"Nightly report #{run.pk}: failed")

    assert in_browser(live_server.url, act, look) == []


def test_runs_are_filtered_and_paged_by_addresses_that_say_so(
    task: Task, live_server: Any, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "FINISHED_A_PAGE", 5)
    mails = make_task("Weekly mail", task.owner)
    ended(task, 8)
    (failed,) = ended(mails, 1, Status.FAILED)

    def act(page: Page) -> None:
        rows = page.locator("#finished tbody tr")
        expect(rows).to_have_count(5)
        page.get_by_role("link", name="Older").click()
        expect(rows).to_have_count(4)
        page.get_by_role("link", name="Newer").click()
        expect(rows).to_have_count(5)
        page.get_by_label("Status").select_option("failed")
        page.wait_for_url("**/scheduler/?status=failed")
        expect(rows).to_have_count(1)
        expect(rows).to_have_attribute("id", f"run-{failed.pk}")
        assert page.evaluate(WIDER) == []
        page.reload()
        expect(page.get_by_label("Status")).to_have_value("failed")
        page.get_by_role("link", name="Clear").click()
        page.get_by_label("Search").fill("weekly")
        page.get_by_label("Search").press("Enter")
        page.wait_for_url("**/scheduler/?text=weekly")
        expect(rows).to_have_count(1)
        page.get_by_text("More filters").click()
        page.get_by_label("Owner").fill("nobody like this")
        page.get_by_label("Owner").press("Enter")
        expect(page.get_by_text("Nothing that has finished matches the filter.")).to_be_visible()
        # What is filtered by is shown.
        expect(page.get_by_label("Owner")).to_be_visible()
        assert page.evaluate(WIDER) == []

    assert in_browser(live_server.url, act, look) == []


def test_the_page_says_when_it_has_lost_the_server_and_finds_it_again(task: Task, live_server: Any, look: Look) -> None:
    run = running(task)

    def act(page: Page) -> None:
        expect(page.locator(f"#run-{run.pk}")).to_be_visible()
        page.route("**/scheduler/?fragment=1", lambda route: route.abort())
        lost = page.get_by_text("Connection lost since")
        expect(lost).to_be_visible()
        page.unroute("**/scheduler/?fragment=1")
        expect(lost).to_be_hidden()

    said = in_browser(live_server.url, act, look)
    assert all("ERR_FAILED" in text for text in said)


def test_elapsed_time_and_countdown_go_on_without_the_server(task: Task, live_server: Any, look: Look) -> None:
    run = running(task)
    now = timezone.now()
    queued = Run.objects.create(task=task, queued_at=now, due_at=now + timedelta(minutes=30), ready_at=now)

    def act(page: Page) -> None:
        page.route("**/scheduler/?fragment=1", lambda route: route.abort())
        shown = page.locator(f"#run-{queued.pk} [data-until]")
        before = shown.inner_text()
        expect(shown).not_to_have_text(before)
        expect(shown).to_contain_text("29 min")
        expect(page.locator(f"#run-{run.pk} [data-since]")).to_contain_text(" s")

    in_browser(live_server.url, act, look)


def test_the_keyboard_reaches_everything_that_the_list_of_shortcuts_names(task: Task, live_server: Any) -> None:
    first, second = ended(task, 2)

    def act(page: Page) -> None:
        expect(page.get_by_role("button", name="Keyboard shortcuts")).to_be_visible()
        page.keyboard.press("?")
        dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
        expect(dialog).to_be_visible()
        expect(dialog).to_contain_text("Next run")
        # There is no older page here.
        expect(dialog.get_by_text("Older runs")).to_be_hidden()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        # The focus goes back to where it was.
        expect(page.locator("#shortcuts-on")).not_to_be_focused()
        page.keyboard.press("j")
        expect(page.locator(f"#run-{first.pk}-link")).to_be_focused()
        page.keyboard.press("j")
        expect(page.locator(f"#run-{second.pk}-link")).to_be_focused()
        page.keyboard.press("k")
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/scheduler/runs/{first.pk}/")
        expect(page.get_by_role("button", name="Keyboard shortcuts")).to_be_visible()
        page.keyboard.press("h")
        page.wait_for_url("**/scheduler/")
        expect(page.get_by_role("button", name="Keyboard shortcuts")).to_be_visible()
        page.keyboard.press("/")
        search = page.get_by_label("Search")
        expect(search).to_be_focused()
        # In a field they are letters.
        page.keyboard.type("hs?")
        expect(search).to_have_value("hs?")
        search.blur()
        page.keyboard.press("s")
        page.wait_for_url("**/scheduler/schedule/")

    assert in_browser(live_server.url, act, WITH_KEYBOARD) == []


def test_shortcuts_can_be_turned_off(task: Task, live_server: Any) -> None:
    ended(task, 1)

    def act(page: Page) -> None:
        page.get_by_role("button", name="Keyboard shortcuts").click()
        page.get_by_label("Use these keys").uncheck()
        page.get_by_role("button", name="Close").click()
        page.reload()
        expect(page.get_by_role("button", name="Keyboard shortcuts")).to_be_visible()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_be_hidden()
        page.get_by_role("button", name="Keyboard shortcuts").click()
        expect(page.get_by_label("Use these keys")).not_to_be_checked()

    assert in_browser(live_server.url, act, WITH_KEYBOARD) == []


def test_without_javascript_the_filter_and_the_pages_work(
    task: Task, live_server: Any, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "FINISHED_A_PAGE", 1)
    ended(task, 2)
    (failed,) = ended(make_task("Weekly mail", task.owner), 1, Status.FAILED)

    def act(page: Page) -> None:
        page.get_by_role("link", name="Older").click()
        page.get_by_label("Status").select_option("failed")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator("#finished tbody tr")).to_have_attribute("id", f"run-{failed.pk}")
        expect(page.get_by_role("button", name="Keyboard shortcuts")).to_be_hidden()

    assert in_browser(live_server.url, act, look, javascript=False) == []
