"""Programs that are asked which arguments they take: by the poller, in processes of their own."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import connection
from django.utils import timezone

from scheduler.argument_fields import known_form
from scheduler.models import ProgramForm
from scheduler.poller import program_forms
from scheduler.supervisor import processes

if TYPE_CHECKING:
    import pytest

    from .conftest import World

ASKS = """
    import argparse, os
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int)
    {before}
    parser.parse_args()
    open(os.environ["FOLDER"] + "/ran", "w")
    """


def ask(world: World, before: str = "") -> ProgramForm:
    """The answer about a program with these lines before it parses its arguments."""
    poller = world.poller()
    task = world.task(ASKS.format(before=before))
    (world.programs / "program.py").chmod(0o644)
    assert known_form(task, user=world.owner, now=timezone.now()).waiting
    world.until(lambda: not ProgramForm.objects.waiting().exists(), "the program has been asked", poller=poller)
    assert not (world.folder / "ran").exists()
    assert not list((world.folder / "scheduler" / "questions").iterdir())
    return ProgramForm.objects.get()


def test_a_program_is_asked_and_ends_where_it_parses_its_arguments(world: World) -> None:
    row = ask(world, "print('noise'); print('{}', flush=True)")
    assert row.problem == ""
    assert row.answer is not None
    assert [each["dest"] for each in row.answer["parameters"]] == ["count"]


def test_what_a_killed_poller_left_of_its_questions_is_removed(world: World) -> None:
    left = world.folder / "scheduler" / "questions" / "left"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    ask(world)  # looks that nothing is left


def test_a_program_that_takes_too_long_is_ended_with_all_that_it_has_started(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_forms, "MOST_SECONDS", 1.0)
    sleep = "subprocess.Popen(['sleep', '4711'], start_new_session=True)"
    row = ask(world, f"import subprocess, time; {sleep}; time.sleep(60)")
    assert row.problem == "slow"
    commands = [_command(pid) for pid in processes.everything()]
    assert not [command for command in commands if "4711" in command and "sleep" in command]


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def test_a_program_that_ends_before_says_nothing(world: World) -> None:
    assert ask(world, "raise SystemExit(0)").problem == "silent"


def test_a_program_that_fails_before_says_why(world: World) -> None:
    row = ask(world, "import nowhere_to_be_found")
    assert row.answer == {"problem": "ModuleNotFoundError: No module named 'nowhere_to_be_found'"}


def test_words_that_the_database_does_not_take_are_no_reason_to_ask_again_for_ever(world: World) -> None:
    row = ask(world, r"parser.add_argument('--nul', help='a\0b')")
    assert row.problem == ("unreadable" if connection.vendor == "postgresql" else "")


def test_a_program_that_has_changed_meanwhile_is_not_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_forms, "PATIENCE", timedelta(0))
    poller = world.poller()
    task = world.task(ASKS.format(before=""))
    known_form(task, user=world.owner, now=timezone.now())
    (world.programs / "program.py").write_text("import argparse\n")
    world.until(lambda: not ProgramForm.objects.waiting().exists(), "the question is given up", poller=poller)
    assert ProgramForm.objects.get().problem == "changed"
