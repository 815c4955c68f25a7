"""The main job as a person does it: log in, schedule a task, see it complete, download its file."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from scheduler import outputs
from scheduler.models import OutputFile, Recurrence, Run, Task
from scheduler.states import Status

from .browsing import PASSWORD, in_browser
from .conftest import PROJECT, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.looking import Look

    from .conftest import World

pytestmark = pytest.mark.browser


@pytest.fixture
def samples(world: World, settings: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with the sample tasks, and a person who can log in."""
    settings.SCHEDULER = {**settings.SCHEDULER, "PROGRAM_ROOTS": {"programs": PROJECT / "sample_tasks"}}
    monkeypatch.setenv("SCHEDULER_TESTS_PROGRAMS", str(PROJECT / "sample_tasks"))
    world.owner.set_password(PASSWORD)
    world.owner.save()
    for name in ("machine_report", "countdown"):
        Task.objects.create(
            name=name,
            owner=world.owner,
            program_root="programs",
            program_path=f"{name}.py",
            environment=Task.Environment.PLAIN,
            arguments=["300"] if name == "countdown" else [],
            grace_seconds=1,
        )
    world.poller_process()
    wait_until(lambda: list((world.folder / "scheduler" / "wake").glob("*.sock")), "the poller listens")
    return world


def schedule(page: Page, task: str) -> None:
    page.get_by_role("link", name="Schedule task").click()
    page.locator("[name=task]").select_option(label=task)
    page.locator("#content form [type=submit]").first.click()
    page.wait_for_url("**/scheduler/runs/*/")


def test_schedule_a_task_see_it_complete_and_download_its_file(samples: World, live_server: Any, look: Look) -> None:
    downloaded: dict[str, bytes] = {}

    def act(page: Page) -> None:
        schedule(page, "machine_report")
        expect(page.get_by_text("Ended with exit code 0").filter(visible=True).first).to_be_visible()
        with page.expect_download() as download:
            page.get_by_role("link", name="machine_report.csv").first.click()
        downloaded[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
        page.goto(f"{live_server.url}/scheduler/")
        expect(page.get_by_role("link", name="machine_report.csv")).to_be_visible()

    assert in_browser(live_server.url, act, look) == []
    file = OutputFile.objects.get(name="machine_report.csv")
    assert downloaded == {"machine_report.csv": outputs.file_path(file).read_bytes()}
    assert len(list(csv.reader(io.StringIO(downloaded["machine_report.csv"].decode())))) > 5
    assert Run.objects.get().status == Status.COMPLETED


def test_watch_a_run_live_and_stop_it(samples: World, live_server: Any, look: Look) -> None:
    def act(page: Page) -> None:
        schedule(page, "countdown")
        # No reload: the page follows by itself.
        expect(page.get_by_text("seconds to go").first).to_be_visible()
        page.get_by_role("button", name="Stop").first.click()
        expect(page.get_by_text("Stopped by olivia.").first).to_be_visible()

    assert in_browser(live_server.url, act, look) == []
    assert Run.objects.get().status == Status.CANCELLED


def test_the_form_shows_its_next_runs_while_one_fills_it_in(samples: World, live_server: Any, look: Look) -> None:
    Recurrence.objects.create(name="Early", kind="cron", cron="30 2 * * *")

    def act(page: Page) -> None:
        page.get_by_role("link", name="Schedule task").click()
        page.locator("[name=when][value=recurring]").check()
        page.locator("[name=recurrence]").select_option(label="Early (every day at 02:30)")
        page.locator("[name=anchor]").fill("2090-03-20T00:00")
        page.locator("[name=time_zone]").select_option("Europe/Amsterdam")
        expect(page.get_by_text("every day at 02:30, Europe/Amsterdam")).to_be_visible()
        expect(page.get_by_text("DST: the clocks skip 02:30")).to_be_visible()
        page.locator("[name=time_zone]").select_option("UTC")
        expect(page.get_by_text("every day at 02:30, UTC")).to_be_visible()
        page.locator("[name=ends_at]").fill("2080-01-01T00:00")
        expect(page.get_by_text("End: The end is before the anchor")).to_be_visible()

    assert in_browser(live_server.url, act, look) == []
    assert not Run.objects.exists()


def test_ask_for_a_zip_of_all_files_and_download_it(samples: World, live_server: Any, look: Look) -> None:
    downloaded: list[bytes] = []

    def act(page: Page) -> None:
        schedule(page, "machine_report")
        page.get_by_role("button", name="Make a ZIP of all files").click()
        # The page shows the link by itself once the archive is there.
        with page.expect_download() as download:
            page.get_by_role("link", name="Download all (ZIP)").click()
        downloaded.append(Path(download.value.path()).read_bytes())

    assert in_browser(live_server.url, act, look) == []
    with zipfile.ZipFile(io.BytesIO(downloaded[0])) as packed:
        assert set(packed.namelist()) == {"machine_report.csv", "machine_report.html"}
