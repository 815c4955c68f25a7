"""What an administrator does beside starting runs: pausing, alarms, lists of the admin, and looking into a run."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from scheduler.models import Alarm, ProcessSample, ProgramVersion, Recurrence, Run, RunEvent, Schedule, Task
from scheduler.states import Status

from .browsing import in_browser
from .test_run_page import write

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from playwright.sync_api import Page

    from tests.browser.looking import Look

    MakeRun = Callable[..., Run]

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_a_task_is_paused_with_a_reason_that_others_read_and_resumed(
    owner: User, task: Task, live_server: Any, look: Look
) -> None:
    def act(page: Page) -> None:
        page.goto(f"{live_server.url}{task.get_absolute_url()}")
        page.get_by_role("link", name="Pause", exact=True).click()
        page.get_by_role("button", name="Pause", exact=True).click()
        expect(page.locator(".errorlist")).to_be_visible()
        page.locator("[name=why]").fill("Its server moves")
        page.get_by_role("button", name="Pause", exact=True).click()
        page.goto(f"{live_server.url}{task.get_absolute_url()}")
        expect(page.locator("#paused")).to_contain_text("Its server moves")
        page.goto(f"{live_server.url}/scheduler/")
        expect(page.get_by_text("Its server moves").first).to_be_visible()
        page.goto(f"{live_server.url}{task.get_absolute_url()}")
        page.get_by_role("link", name="Resume", exact=True).click()
        page.get_by_role("button", name="Resume", exact=True).click()
        page.goto(f"{live_server.url}{task.get_absolute_url()}")
        expect(page.locator("#paused")).to_have_count(0)

    assert in_browser(live_server.url, act, look, user=owner) == []


def test_everything_is_paused_and_resumed(admin: User, task: Task, live_server: Any, look: Look) -> None:
    def act(page: Page) -> None:
        page.goto(f"{live_server.url}/scheduler/")
        page.locator("#pause-all").click()
        page.locator("[name=why]").fill("The storage is moved")
        page.get_by_role("button", name="Pause", exact=True).click()
        page.goto(f"{live_server.url}/scheduler/")
        expect(page.get_by_text("The storage is moved").first).to_be_visible()
        page.goto(f"{live_server.url}/scheduler/pause/")
        page.get_by_role("button", name="Resume", exact=True).click()
        page.goto(f"{live_server.url}/scheduler/")
        expect(page.get_by_text("The storage is moved")).to_have_count(0)

    assert in_browser(live_server.url, act, look, user=admin) == []


def test_alarms_are_dismissed_one_by_one_and_all_at_once(
    owner: User, task: Task, make_run: MakeRun, live_server: Any, look: Look
) -> None:
    runs = [make_run(Status.FAILED) for _ in range(3)]
    alarms = [
        Alarm.objects.create(task=task, kind=Alarm.Kind.LATE, at=timezone.now(), run=run, text="") for run in runs
    ]

    def act(page: Page) -> None:
        page.goto(f"{live_server.url}/scheduler/")
        page.get_by_role("link", name="Alarms", exact=True).click()
        page.get_by_role("button", name=f"Dismiss alarm #{alarms[0].pk}", exact=True).click()
        expect(page.locator(".alarms li")).to_have_count(2)
        page.get_by_role("button", name="Dismiss all").click()
        expect(page.get_by_text("No alarm is open.")).to_be_visible()
        page.goto(f"{live_server.url}/scheduler/alarms/")
        page.get_by_role("link", name="Also dismissed ones").click()
        expect(page.get_by_text("dismissed by owner")).to_have_count(3)

    assert in_browser(live_server.url, act, look, user=owner) == []


def test_the_admin_finds_tasks_runs_them_and_pauses_them(admin: User, task: Task, live_server: Any, look: Look) -> None:
    Task.objects.create(name="Weekly mail", program_root="sample_tasks", program_path="countdown.py")

    def act(page: Page) -> None:
        def choose(action: str) -> None:
            page.locator("[name=_selected_action]").first.check()
            page.locator("[name=action]").select_option(label=action)
            page.locator(".actions [type=submit]").click()

        page.goto(f"{live_server.url}/admin/scheduler/task/")
        expect(page.locator("[name=_selected_action]")).to_have_count(2)
        page.locator("#searchbar").fill("nightly")
        page.locator("#searchbar").press("Enter")
        expect(page.locator("[name=_selected_action]")).to_have_count(1)
        choose("Run selected tasks now")
        expect(page.locator(".messagelist .success")).to_be_visible()
        choose("Pause selected tasks")
        expect(page.locator(".messagelist .error")).to_contain_text("Say why")
        page.locator("[name=why]").fill("Its server moves")
        choose("Pause selected tasks")
        expect(page.locator(".messagelist .success")).to_be_visible()
        page.get_by_role("link", name="Nightly report").click()
        expect(page.locator(".errornote")).to_contain_text("Its server moves")
        page.go_back()
        choose("Resume selected tasks")
        expect(page.locator(".messagelist .success")).to_be_visible()

    assert in_browser(live_server.url, act, look, user=admin) == []
    assert Run.objects.queued().get().task == task
    task.refresh_from_db()
    assert not task.is_paused


def test_the_admin_filters_runs_and_cancels_one(admin: User, make_run: MakeRun, live_server: Any, look: Look) -> None:
    make_run(Status.COMPLETED)
    queued = make_run(Status.QUEUED)

    def act(page: Page) -> None:
        page.goto(f"{live_server.url}/admin/scheduler/run/?status__exact=queued")
        expect(page.locator("[name=_selected_action]")).to_have_count(1)
        page.locator("[name=_selected_action]").check()
        page.locator("[name=action]").select_option(label="Stop or cancel selected runs")
        page.locator(".actions [type=submit]").click()
        expect(page.locator("[name=_selected_action]")).to_have_count(0)

    assert in_browser(live_server.url, act, look, user=admin) == []
    queued.refresh_from_db()
    assert queued.status == Status.CANCELLED


def test_another_task_is_searched_for_and_follows(admin: User, task: Task, live_server: Any, look: Look) -> None:
    mails = Task.objects.create(name="Weekly mail", program_root="sample_tasks", program_path="countdown.py")

    def act(page: Page) -> None:
        page.goto(f"{live_server.url}/admin/scheduler/task/{task.pk}/change/")
        page.locator(".inline-related.tabular .select2-selection").first.click()
        page.locator(".select2-search__field").fill("weekly")
        page.locator(".select2-results__option", has_text="Weekly mail").click()
        page.get_by_role("button", name="Save and continue editing").click()
        expect(page.locator(".messagelist .success")).to_be_visible()
        page.goto(f"{live_server.url}{task.get_absolute_url()}")
        expect(page.get_by_role("link", name="Weekly mail")).to_be_visible()

    assert in_browser(live_server.url, act, look, user=admin) == []
    assert task.follow_ups.get().then == mails


def version(letter: str) -> ProgramVersion:
    now = timezone.now()
    return ProgramVersion.of(
        program="x.py", sha256=letter * 64, size=1, modified_at=now, interpreter="python", environment=["PATH"]
    )


def test_a_run_shows_its_processes_its_events_and_that_its_program_has_changed(
    owner: User, make_run: MakeRun, live_server: Any, look: Look
) -> None:
    success = make_run(Status.COMPLETED, version=version("a"))
    run = make_run(Status.PROCESSING, version=version("b"))
    now = timezone.now()
    processes = [
        {"pid": 4242, "parent": 1, "name": "python3", "cpu_percent": 12.5, "memory_bytes": 45_000_000},
        {"pid": 4243, "parent": 4242, "name": "sort", "cpu_percent": 80.0, "memory_bytes": 5_000_000},
    ]
    sample = {"cpu_percent": 92.5, "memory_bytes": 50_000_000, "memory_peak_bytes": 61_000_000}
    ProcessSample.objects.create(run=run, at=now, processes=processes, **sample)
    RunEvent.objects.create(run=run, at=now, what=RunEvent.What.MESSAGE, text="Shop 4 of 10")

    def act(page: Page) -> None:
        page.goto(f"{live_server.url}{run.get_absolute_url()}")
        expect(page.locator("#program-changed")).to_contain_text("aaaaaaaaaaaa")
        expect(page.locator(".processes tbody tr")).to_have_count(2)
        expect(page.locator(".processes .depth-1")).to_have_text("sort")
        expect(page.get_by_text("Shop 4 of 10").first).to_be_visible()
        page.get_by_role("link", name=f"run #{success.pk}", exact=True).click()
        page.wait_for_url(f"**{success.get_absolute_url()}")

    assert in_browser(live_server.url, act, look, user=owner) == []


def test_a_page_that_nobody_sees_asks_for_nothing(owner: User, make_run: MakeRun, live_server: Any, look: Look) -> None:
    run = make_run(Status.PROCESSING)
    asked: list[str] = []

    def see(page: Page, visible: bool) -> None:
        page.evaluate(
            """(visible) => {
              Object.defineProperty(document, "hidden", { value: !visible, configurable: true });
              document.dispatchEvent(new Event("visibilitychange"));
            }""",
            visible,
        )

    def act(page: Page) -> None:
        page.clock.install()
        page.goto(f"{live_server.url}{run.get_absolute_url()}")
        page.wait_for_load_state("networkidle")
        see(page, visible=False)
        page.on("request", lambda request: asked.append(request.url))
        page.clock.run_for(600_000)
        page.wait_for_load_state("networkidle")
        assert asked == []
        with page.expect_request("**fragment=1**"):
            see(page, visible=True)

    assert in_browser(live_server.url, act, look, user=owner) == []


def test_without_javascript_a_run_is_read_searched_and_stopped(
    owner: User, make_run: MakeRun, live_server: Any, look: Look
) -> None:
    run = make_run(Status.PROCESSING)
    write(run, b"first line\nthe disk is full\n")

    def act(page: Page) -> None:
        page.goto(f"{live_server.url}{run.get_absolute_url()}")
        expect(page.locator("pre.log")).to_contain_text("the disk is full")
        page.get_by_label("Search the whole log").fill("disk")
        page.get_by_label("Search the whole log").press("Enter")
        expect(page.locator(".matches li")).to_have_count(1)
        page.get_by_role("button", name="Stop", exact=True).click()
        expect(page.locator(".messagelist")).to_be_visible()

    assert in_browser(live_server.url, act, look, user=owner, javascript=False) == []
    assert run.events.filter(what=RunEvent.What.STOP_REQUESTED).exists()


def test_why_a_slot_did_not_run_is_one_click_from_its_task(
    owner: User, task: Task, make_run: MakeRun, live_server: Any, look: Look
) -> None:
    early = Recurrence.objects.create(name="Early", kind="cron", cron="30 2 * * *")
    now = timezone.now()
    schedule = Schedule.objects.create(task=task, recurrence=early, anchor=now, time_zone="UTC")
    for days, status in ((2, Status.SKIPPED), (1, Status.COMPLETED)):
        make_run(status, trigger=Run.Trigger.SCHEDULE, schedule=schedule, slot_at=now - timedelta(days=days))

    def act(page: Page) -> None:
        page.goto(f"{live_server.url}{task.get_absolute_url()}")
        page.locator("#slots-link").click()
        expect(page.locator(".slots tbody tr")).to_have_count(2)
        page.get_by_role("link", name="Only what did not run").click()
        expect(page.locator(".slots tbody tr")).to_have_count(1)
        expect(page.locator(".slots tbody tr")).to_contain_text("previous run was not over")
        page.get_by_role("link", name="Calendar", exact=True).first.click()
        page.wait_for_url("**/scheduler/calendar/?task=*")

    assert in_browser(live_server.url, act, look, user=owner) == []
