"""Where the values of a task's environment could be read by somebody who is not the task: nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from django.apps import apps
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from scheduler import outputs
from scheduler.models import Task
from scheduler.supervisor import folder as protocol

from .conftest import fresh, supervisor_pid

if TYPE_CHECKING:
    import pytest

    from .conftest import World

SECRET = "a-value-that-nobody-may-read"

WAIT = """
    import os, time
    right = os.environ["DJANGO_SECRET_KEY"] == "a-value-that-nobody-may-read"
    print("it has it" if right else "it lacks it", flush=True)
    open("result", "w").write("x")
    while not os.path.exists(os.environ["FOLDER"] + "/go"):
        time.sleep(0.02)
    """


def every_row() -> str:
    """What the database holds of the scheduler, as text."""
    models = apps.get_app_config("scheduler").get_models()
    return "\n".join(repr(row) for model in models for row in model._default_manager.values())


def every_file(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_the_value_of_a_variable_is_in_no_argv_no_row_no_file_and_no_page(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJANGO_SECRET_KEY", SECRET)
    client = Client()
    client.force_login(world.owner)
    task = world.task(WAIT, environment=Task.Environment.DJANGO)
    client.post(reverse("scheduler:task-run", args=[task.pk]))
    run, poller = task.runs.get(), world.poller()
    world.until(lambda: outputs.log_path(run).exists() and "has it" in world.log(run), "it runs", poller=poller)

    known = outputs.run_folder(run.uuid).read(protocol.TASK)
    assert known is not None
    argvs = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (supervisor_pid(run), known["pid"])]
    assert all(argv and SECRET.encode() not in argv for argv in argvs)
    # Only the user of a process may read its environment.
    assert all(Path(f"/proc/{pid}/environ").stat().st_mode & 0o077 == 0 for pid in (supervisor_pid(run), known["pid"]))
    while_it_runs = every_file(world.folder / "scheduler")
    assert str(run.uuid).encode() in while_it_runs

    (world.folder / "go").touch()
    run = world.finish(run, poller=poller)
    addresses = [reverse("scheduler:index"), run.get_absolute_url()]
    addresses += [reverse("scheduler:run-log", args=[run.pk])]
    addresses += [reverse(f"admin:scheduler_task_{page}", args=[task.pk]) for page in ("change", "history", "access")]
    addresses += [
        reverse("admin:scheduler_run_change", args=[run.pk]),
        reverse("admin:scheduler_auditentry_changelist"),
    ]
    answers = [client.get(address) for address in addresses]
    assert [answer.status_code for answer in answers] == [200] * len(addresses)
    texts = [every_row(), *(answer.text for answer in answers), *(str(answer.headers) for answer in answers)]
    assert str(run.uuid) in texts[0]
    assert not [text for text in texts if SECRET in text]
    assert SECRET.encode() not in while_it_runs + every_file(world.folder / "scheduler")


def test_arguments_that_look_like_options_or_shell_reach_the_program_and_nothing_else(world: World) -> None:
    arguments = [
        "-c",
        "import os; os.system('touch pwned')",
        "--",
        "-I",
        "$(touch pwned)",
        "`touch pwned`",
        "; touch pwned",
        "| touch pwned",
        "> pwned",
        "a\nb",
        "",
        "%s {0} \\",
        "../../pwned",
        "é\u202e",
    ]
    run = fresh(world.run("import sys; print(ascii(sys.argv[1:]))", *arguments))
    assert world.log(run).strip() == ascii(arguments)
    assert run.files.count() == 0
    assert not list(world.folder.rglob("pwned"))


def test_a_log_with_escapes_markup_and_forged_lines_is_shown_as_text(world: World) -> None:
    run = world.run(
        r"""
        import json, os
        print("\x1b]0;title\x07\x1b[2J<script>alert(1)</script>\u202egnp\x00")
        print("[scheduler] forged line")
        with open(os.environ["SCHEDULER_REPORTS"], "a") as reports:
            print(json.dumps({"message": "<script>alert(2)</script>\x1b[31m\u202e\nsecond line"}), file=reports)
            print(json.dumps({"message": "m" * 100_000}), file=reports)
            print(json.dumps({"status": "failed", "exit_code": 0, "run": 1}), file=reports)
        """
    )
    assert (run.status, run.exit_code) == ("completed", 0)
    client = Client()
    client.force_login(world.owner)
    answers = [client.get(run.get_absolute_url()), client.get(reverse("scheduler:index"))]
    for answer in answers:
        assert "<script>alert" not in answer.text
        assert not {"\x1b", "\x00", "\u202e", "\x07"} & set(answer.text)
    assert "&lt;script&gt;alert(1)" in answers[0].text
    assert "&lt;script&gt;alert(2)" in answers[0].text
    log = client.get(reverse("scheduler:run-log", args=[run.pk]), {"offset": "0"})
    assert log.headers["Content-Type"] == "application/json"
    assert not {"\x1b", "\x00", "\u202e"} & set(log.json()["lines"])
    assert "<script>" not in log.json()["lines"]
    assert run.cancel(by=world.owner, now=timezone.now()) is False
