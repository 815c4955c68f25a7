"""Limits and the clean-up command on the pages: what the form says of them, and what a run says that reached one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils import timezone

from scheduler.executors import limits
from scheduler.models import Poller, RunEvent, Task
from scheduler.states import Reason, Status

from .test_admin import task_data

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from django.contrib.auth.models import User
    from django.test import Client

    from scheduler.models import Run

MB = 1024**2
PROBLEM = "SCHEDULER['CGROUP'] is not set."


@pytest.fixture
def programs(settings: Any, tmp_path: Path) -> Path:
    for name in ("programs", "others"):
        (tmp_path / name).mkdir(mode=0o755)
        (tmp_path / name / "report.py").touch(mode=0o644)
    settings.SCHEDULER = {
        **settings.SCHEDULER,
        "PROGRAM_ROOTS": {"programs": tmp_path / "programs", "others": tmp_path / "others"},
    }
    return tmp_path / "programs"


def form(client: Client, task: Task | None = None) -> Any:
    name = "add" if task is None else "change"
    response = client.get(reverse(f"admin:scheduler_task_{name}", args=[] if task is None else [task.pk]))
    return response.context["adminform"].form


# The form


def test_the_form_says_where_limits_of_a_whole_run_are_not_enforced(
    client: Client, admin: User, poller: Poller, programs: Path
) -> None:
    client.force_login(admin)
    assert "Not enforced here" not in form(client).fields["memory_mb"].help_text
    Poller.objects.update(limits_problem=PROBLEM)
    for name in ("memory_mb", "max_processes"):
        assert (
            form(client).fields[name].help_text.endswith("Not enforced here (here): the poller has no cgroup for it.")
        )
    assert "Not enforced" not in form(client).fields["open_files"].help_text
    Poller.objects.update(ended_at=timezone.now())
    assert "No poller is up" in form(client).fields["memory_mb"].help_text


def test_every_limit_is_explained(client: Client, admin: User, programs: Path) -> None:
    client.force_login(admin)
    fields = form(client).fields
    titles = ("Memory of the run (MB)", "Address space per process (MB)", "Processor time per process (seconds)")
    assert {str(field.label) for field in fields.values()} >= set(titles)
    [fieldset] = [each for name, each in client_fieldsets(client) if name == "Limits"]
    assert len(fieldset["fields"]) == 9
    assert all(fields[name].help_text for name in fieldset["fields"])


def client_fieldsets(client: Client) -> Any:
    return client.get(reverse("admin:scheduler_task_add")).context["adminform"].fieldsets


def test_limits_and_a_clean_up_command_are_saved(client: Client, admin: User, programs: Path) -> None:
    client.force_login(admin)
    given = {
        "memory_mb": "512",
        "max_processes": "50",
        "process_memory_mb": "2000",
        "process_cpu_seconds": "60",
        "open_files": "256",
        "nice": "10",
        "log_mb": "10",
        "output_mb": "100",
        "output_files": "7",
    }
    cleanup = {"cleanup_path": "others/report.py", "cleanup_arguments": "--all 'a b'", "cleanup_timeout_seconds": "9"}
    response = client.post(reverse("admin:scheduler_task_add"), task_data(**given, **cleanup))
    assert response.status_code == 302, response.context["adminform"].form.errors
    task = Task.objects.get(name="New task")
    assert {name: str(getattr(task, name)) for name in given} == given
    assert (task.cleanup_program, task.cleanup_arguments) == ("others/report.py", ["--all", "a b"])
    url = reverse("admin:scheduler_task_change", args=[task.pk])
    assert "collapse" not in client.get(url).content.decode()  # what is set is seen
    client.post(url, task_data(cleanup_path=""))
    assert client.get(url).content.decode().count('class="module aligned collapse"') == 2
    task.refresh_from_db()
    assert (task.cleanup_program, task.memory_mb) == ("", None)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"memory_mb": "1"}, "memory_mb"),
        ({"open_files": "3"}, "open_files"),
        ({"nice": "-5"}, "nice"),
        ({"nice": "20"}, "nice"),
        ({"cleanup_path": "/bin/rm"}, "cleanup_path"),
        ({"cleanup_path": "programs/../../x.py"}, "cleanup_path"),
        ({"cleanup_path": "programs/report.py", "cleanup_timeout_seconds": "0"}, "cleanup_timeout_seconds"),
    ],
)
def test_what_makes_no_sense_is_refused(
    client: Client, admin: User, programs: Path, values: dict[str, str], field: str
) -> None:
    client.force_login(admin)
    response = client.post(reverse("admin:scheduler_task_add"), task_data(**values))
    assert field in response.context["adminform"].form.errors
    assert not Task.objects.exists()


def test_a_clean_up_program_of_another_unix_user_is_refused(task: Task, settings: Any, programs: Path) -> None:
    task.program_root, task.program_path = "programs", "report.py"
    task.cleanup_root, task.cleanup_path = "others", "report.py"
    task.full_clean()
    settings.SCHEDULER = {**settings.SCHEDULER, "PROGRAM_USERS": {"others": "nobody"}}
    with pytest.raises(ValidationError, match="another Unix user"):
        task.full_clean()


def test_who_may_only_look_sees_the_clean_up_command(client: Client, viewer: User, task: Task) -> None:
    Task.objects.filter(pk=task.pk).update(
        cleanup_root="sample_tasks", cleanup_path="countdown.py", cleanup_arguments=["a b"]
    )
    client.force_login(viewer)
    page = client.get(reverse("admin:scheduler_task_change", args=[task.pk])).content.decode()
    assert "sample_tasks/countdown.py" in page
    assert "&#x27;a b&#x27;" in page


# What a run's spec says


def test_a_spec_has_the_smaller_of_the_tasks_and_the_sites_limits(
    make_run: Callable[..., Run], task: Task, settings: Any
) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "LOG_BYTES": 5 * MB, "OUTPUT_FILES": 10, "CGROUP": "/cgroups"}
    run = make_run()
    plain = limits.of_run(run, PROBLEM)
    assert plain == {"log_bytes": 5 * MB, "output_bytes": 10 * 1024**3, "output_files": 10}
    task.log_mb, task.output_files, task.nice, task.memory_mb, task.max_processes = 9, 3, 5, 64, 7
    run.task = task
    limited = limits.of_run(run, "")
    assert (limited["log_bytes"], limited["output_files"], limited["limits"]) == (5 * MB, 3, {"nice": 5})
    cgroup = {"path": f"/cgroups/run-{run.uuid}", "memory_bytes": 64 * MB, "processes": 7}
    assert limited["cgroup"] == cgroup
    unenforced = limits.of_run(run, PROBLEM)
    assert unenforced["not_limited"] == PROBLEM
    assert "cgroup" not in unenforced


# The run's page


def test_a_runs_page_says_what_it_has_reached(client: Client, owner: User, make_run: Callable[..., Run]) -> None:
    client.force_login(owner)
    completed = make_run(limits_reached={"log_bytes": 10 * MB, "processes": 5})
    page = client.get(completed.get_absolute_url()).content.decode()
    assert "Its log reached 10 MB; the rest was dropped." in page
    assert "It reached its limit of 5 processes at once, and could start no more." in page
    killed = make_run(Status.FAILED, reason=Reason.OUT_OF_MEMORY, signal=9, limits_reached={"memory_bytes": 512 * MB})
    page = client.get(killed.get_absolute_url()).content.decode()
    assert "Failed: ended by the kernel, as its processes used more than 512 MB together." in page
    strange = make_run(limits_reached={"log_bytes": 10 * MB, "<b>": 1})
    assert strange.limits_in_words == "Its log reached 10 MB; the rest was dropped."


def test_who_stops_a_run_can_say_why(client: Client, owner: User, make_run: Callable[..., Run]) -> None:
    client.force_login(owner)
    running, waiting = make_run(Status.PROCESSING), make_run(Status.QUEUED)
    for run in (running, waiting):
        assert 'name="why"' in client.get(run.get_absolute_url()).content.decode()
        client.post(reverse("scheduler:run-stop", args=[run.pk]), {"why": f" wrong\r\n<b>file</b> {'x' * 300}"})
        run.refresh_from_db()
        assert run.cancel_why == f"wrong <b>file</b> {'x' * 300}"[:200]
    assert running.events.get(what=RunEvent.What.STOP_REQUESTED).text == running.cancel_why
    page = client.get(waiting.get_absolute_url()).content.decode()
    assert "Cancelled by owner before it started: wrong &lt;b&gt;file&lt;/b&gt; xxx" in page


def test_no_reason_is_asked_of_those_who_may_not_stop(
    client: Client, viewer: User, make_run: Callable[..., Run]
) -> None:
    client.force_login(viewer)
    assert 'name="why"' not in client.get(make_run(Status.PROCESSING).get_absolute_url()).content.decode()
