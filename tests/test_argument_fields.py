"""The arguments of a program on the pages: typed fields or a line, and never a value lost between the two."""

from __future__ import annotations

import json
import shlex
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.urls import reverse
from django.utils import timezone

from scheduler import outputs, programs
from scheduler.argument_fields import ArgumentsField, KnownForm, ProgramArguments, form_for, known_form
from scheduler.arguments import read_description
from scheduler.models import OutputFile, ProgramForm, Task
from tests.test_arguments import COMMANDS, PROGRAM, said, said_by

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from django.contrib.auth.models import User
    from django.test import Client

    from scheduler.models import Run

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    return said(PROGRAM)


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    """A program folder with the program that takes everything."""
    place = tmp_path / "programs"
    place.mkdir(mode=0o755)
    settings.SCHEDULER = {**settings.SCHEDULER, "PROGRAM_ROOTS": {"programs": place}}
    (place / "everything.py").write_bytes(PROGRAM.read_bytes())
    (place / "plain.py").write_text("print('no arguments')\n")
    for path in place.iterdir():
        path.chmod(0o644)
    return place


@pytest.fixture
def task(owner: User) -> Task:
    return Task.objects.create(
        name="Nightly report",
        owner=owner,
        program_root="programs",
        program_path="everything.py",
        arguments=["src", "--format", "csv", "--number", "3"],
    )


@pytest.fixture
def known(task: Task, owner: User, answer: dict[str, Any]) -> KnownForm:
    """What is known after a poller has asked the program."""
    known_form(task, user=owner, now=timezone.now())
    ProgramForm.objects.get().take_answer(timezone.now(), answer=answer)
    return known_form(task, user=owner, now=timezone.now())


def field_of(known: KnownForm, *, optional: bool = False) -> ArgumentsField:
    field = ArgumentsField(optional=optional)
    field.use(known)
    return field


def sent(known: KnownForm, way: str = "form", line: str = "", **values: Any) -> Any:
    """As a browser sends it: the names without what stands before them."""
    data = QueryDict(mutable=True)
    data.update({"a": line, "a-way": way, "a-key": known.key})
    for name, value in values.items():
        data.setlist(f"a-of-{name}", value if isinstance(value, list) else [value])
    return ArgumentsField().widget.value_from_datadict(data, {}, "a")


def problems(known: KnownForm, **values: Any) -> dict[str, list[str]]:
    entered = sent(known, **values)
    form = ProgramArguments(known, entered.data, prefix="a")
    assert not form.is_valid()
    with pytest.raises(ValidationError, match="Correct the argument"):
        field_of(known).clean(entered)
    return {name: [str(error) for error in errors] for name, errors in form.errors.items()}


# Asking


def test_a_program_is_asked_once_and_again_when_it_has_changed(task: Task, owner: User, folder: Path) -> None:
    now = timezone.now()
    for _ in range(2):
        assert known_form(task, user=owner, now=now).waiting
    first = ProgramForm.objects.get()
    first.take_answer(now, problem="silent")
    (folder / "everything.py").write_text("import argparse  # another\n")
    assert known_form(task, user=owner, now=now).waiting
    row = ProgramForm.objects.get()
    assert (row.asked_at, row.problem) == (now, "")
    assert row.sha256 == programs.read(folder / "everything.py").sha256 != first.sha256
    first.take_answer(now, problem="silent")  # an answer about the old one
    assert ProgramForm.objects.get().is_waiting


def test_an_old_answer_is_kept_while_the_program_is_asked_again(known: KnownForm, task: Task, owner: User) -> None:
    later = timezone.now() + timedelta(hours=2)
    assert known_form(task, user=owner, now=later).description == known.description is not None
    assert ProgramForm.objects.waiting().exists()


@pytest.mark.parametrize("program", ["plain.py", "missing.py"])
def test_a_program_without_argparse_is_never_run_for_a_form(task: Task, owner: User, program: str) -> None:
    task.program_path = program
    assert known_form(task, user=owner, now=timezone.now()) == KnownForm(task=task)
    assert not ProgramForm.objects.exists()


@pytest.mark.parametrize("problem", ["nested", "many", "slow", "silent", "changed", "unreadable", "ImportError: x"])
def test_why_there_is_no_form_is_a_sentence(task: Task, owner: User, problem: str) -> None:
    known_form(task, user=owner, now=timezone.now())
    ProgramForm.objects.get().take_answer(timezone.now(), problem=problem)
    known = known_form(task, user=owner, now=timezone.now())
    assert known.description is None
    assert known.problem.endswith(".")
    assert known.problem in field_of(known).widget.render("a", [])


# From fields to a list


def test_the_fields_say_a_list(known: KnownForm) -> None:
    entered = sent(
        known,
        source="a b",
        more="c\r\nd",
        number="12",
        since="2026-01-31",
        at="2026-01-31T12:30",
        format="json",
        colour="blue",
        dry_run="on",
        verbose="2",
        cache="--no-cache",
        tag="x\ny",
        pair="1\n2",
        days=["wed", "mon"],
        generate="",
        folder="/tmp",
    )
    assert field_of(known).clean(entered) == shlex.split(
        "'a b' c d --days mon wed --number 12 --since 2026-01-31 --at 2026-01-31T12:30 --format json --colour blue"
        " --dry-run --verbose --verbose --no-cache --tag x --tag y --pair 1 2 --folder /tmp"
    )


def test_what_is_missing_or_wrong_is_said_at_its_field(known: KnownForm) -> None:
    assert problems(known) == {
        "of-source": ["This argument is required."],
        "of-format": ["This argument is required."],
    }
    right = {"source": "a", "format": "csv"}
    for name, value, sentence in (
        ("number", "x", "Enter a whole number."),
        ("share", "1,5", "Enter a number."),
        ("share", "nan", "Enter a number."),
        ("since", "31.1.2026", "Enter a date, such as 2026-03-29."),
        ("at", "soon", "Enter a date and a time, such as 2026-03-29 04:30."),
        ("clock", "25:00", "Enter a time, such as 04:30."),
        ("pair", "one", "Enter 2 values, one a line."),
        ("verbose", "-1", "Ensure this value is greater than or equal to 0."),
        ("source", "two\nlines", "This is one line."),
        ("source", "nul\0", "Null characters are not allowed."),
    ):
        assert problems(known, **{**right, name: value}) == {f"of-{name}": [sentence]}
    assert "of-format" in problems(known, source="a", format="xml")
    assert problems(known, **right, mail="x", folder="y") == {
        "of-folder": ["Give only one of these: --mail, --folder."]
    }
    assert "argparse cannot tell" in problems(known, **right, pair="-x\n-y")["__all__"][0]


def test_nothing_filled_in_is_no_argument_and_not_the_tasks_own(task: Task, answer: dict[str, Any]) -> None:
    optional = {**answer, "parameters": [each for each in answer["parameters"] if not each["required"]]}
    known = KnownForm(task=task, key="k", description=read_description(optional))
    field = field_of(known, optional=True)
    assert field.clean(sent(known)) == []
    assert field.clean(sent(known, way="own")) is None
    assert field.clean(sent(known, way="line")) is None
    assert field.clean(None) is None


def test_a_required_choice_between_arguments(tmp_path: Path) -> None:
    source = "group = parser.add_mutually_exclusive_group(required=True)\n"
    source += "group.add_argument('--one')\ngroup.add_argument('--two')\nparser.parse_args()"
    known = KnownForm(key="k", description=read_description(said_by(tmp_path, source)))
    assert problems(known) == {"of-one": ["Give one of these: --one, --two."]}
    assert field_of(known).clean(sent(known, two="2")) == ["--two", "2"]


def test_only_the_chosen_command_counts(tmp_path: Path) -> None:
    known = KnownForm(key="k", description=read_description(said_by(tmp_path, COMMANDS)))
    entered = sent(known, copy_target="there", move_target="elsewhere")
    entered.data["a-command"] = "copy"
    assert field_of(known).clean(entered) == ["copy", "there"]
    html = field_of(known).widget.render("a", entered)
    assert 'data-command="move"' in html
    entered.data["a-command"] = "move"
    assert field_of(known).clean(entered) == ["move", "--target", "elsewhere"]
    assert problems(known)["command"] == ["This field is required."]


# A form for another program


def test_a_form_of_the_program_before_its_change_is_refused(known: KnownForm, task: Task, owner: User) -> None:
    entered = sent(known, source="a", format="csv")
    ProgramForm.objects.update(sha256="0" * 64)
    for again in (known_form(task, user=owner, now=timezone.now()), KnownForm(task=task, key="other")):
        with pytest.raises(ValidationError, match="The program has changed since this form was made"):
            field_of(again).clean(entered)


def test_what_was_filled_in_stays_where_the_changed_program_still_takes_it(
    known: KnownForm, answer: dict[str, Any]
) -> None:
    changed = {**answer, "parameters": answer["parameters"][::-1][:-1]}
    again = KnownForm(key="new", description=read_description(changed), task=known.task)
    html = field_of(again).widget.render("a", sent(known, source="gone", number="4711"))
    assert 'value="4711"' in html
    assert "gone" not in html


# From a list to fields


@pytest.mark.parametrize(
    "line",
    [
        "src --format csv",
        "src b --number 3 --format json --dry-run --verbose --verbose --no-cache",
        "src --format csv --tag x --tag 'y z' --pair 1 2 --generate --days mon tue",
        "src --share 1.5 --since 2026-01-31 --at 2026-01-31T04:30 --clock 04:30 --colour red",
        "--number 3",  # without what is required: that is to be filled in
        "",
    ],
)
def test_a_list_stands_in_the_fields(known: KnownForm, line: str) -> None:
    form = form_for(known, shlex.split(line), prefix="a")
    assert form is not None
    html = field_of(known).widget.render("a", shlex.split(line))
    assert 'value="form" id="id_a-way-form" checked' in html


@pytest.mark.parametrize(
    "line",
    [
        "src --format xml",
        "src --format csv --number 007",
        "src --format csv --number 1_000",
        "src --format csv --since 20260131",
        "src --format csv --days tue mon",
        "src --format csv --tag 'two\nlines'",
        "src --format csv --tag ''",
        "src --format csv --mail x --folder y",
        "src --format csv --unknown",
        "src --format csv --number 1 --number 2",
    ],
)
def test_a_list_that_the_fields_would_change_stays_a_line(known: KnownForm, line: str) -> None:
    arguments = shlex.split(line)
    assert form_for(known, arguments, prefix="a") is None
    html = field_of(known).widget.render("a", arguments)
    assert 'value="line" id="id_a-way-line" checked' in html
    assert "cannot show these arguments just as they are" in html
    entered = sent(known, way="line", line=shlex.join(arguments))
    assert field_of(known).clean(entered) == arguments


def test_hostile_texts_of_a_program_do_nothing(known: KnownForm, answer: dict[str, Any]) -> None:
    hostile = json.loads(json.dumps(answer).replace("how many", "<script>alert(1)</script>"))
    again = KnownForm(task=known.task, key="k", description=read_description(hostile))
    html = field_of(again).widget.render("a", ["<script>alert(2)</script>", "--format", "csv"])
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html


# Files of runs


@pytest.fixture
def file(make_run: Callable[..., Run], task: Task) -> OutputFile:
    run = make_run(task=task)
    return OutputFile.objects.create(run=run, name="in.csv", size=1, sha256="0" * 64, created_at=run.due_at)


def test_a_file_of_a_run_can_be_given(known: KnownForm, task: Task, owner: User, file: OutputFile) -> None:
    offered = known_form(task, user=owner, now=timezone.now())
    path = str(outputs.file_path(file))
    assert [each.path for each in offered.files] == [path]
    assert "in.csv, of “Nightly report”" in offered.files[0].label
    entered = sent(offered, source="a", format="csv", **{"input-file": path})
    arguments = field_of(offered).clean(entered)
    assert arguments == ["a", "--input", path, "--format", "csv"]
    assert f'<option value="{path}" selected>' in field_of(offered).widget.render("a", arguments)


def test_a_file_of_a_task_that_one_may_not_see_is_not_offered(
    known: KnownForm, task: Task, runner: User, make_run: Callable[..., Run]
) -> None:
    hidden = Task.objects.create(name="Payroll of the board", program_root="x", program_path="y.py")
    hidden.grant(runner, "view_output")
    run = make_run(task=hidden)
    OutputFile.objects.create(run=run, name="pay.csv", size=1, sha256="0" * 64, created_at=run.due_at)
    assert known_form(task, user=runner, now=timezone.now()).files == ()


def test_files_that_one_may_not_see_are_neither_offered_nor_taken(
    known: KnownForm, task: Task, runner: User, file: OutputFile
) -> None:
    offered = known_form(task, user=runner, now=timezone.now())
    assert offered.files == ()
    entered = sent(offered, source="a", format="csv", **{"input-file": str(outputs.file_path(file))})
    assert "--input" not in (field_of(offered).clean(entered) or [])


# On the pages


def test_the_schedule_page_starts_a_run_with_what_was_filled_in(
    client: Client, owner: User, task: Task, known: KnownForm
) -> None:
    client.force_login(owner)
    page = client.get(reverse("scheduler:schedule"), {"task": task.pk}).text
    assert 'name="arguments-of-number" value="3"' in page
    assert 'id="id_arguments-way-own" checked' in page
    data = {"task": task.pk, "when": "now", "time_zone": "UTC", "arguments-way": "form", "arguments-key": known.key}
    bad = client.post(reverse("scheduler:schedule"), {**data, "arguments-of-source": "a", "arguments-of-number": "x"})
    assert "Enter a whole number." in bad.text
    assert not task.runs.exists()
    good = {"arguments-of-source": "a", "arguments-of-format": "csv"}
    assert client.post(reverse("scheduler:schedule"), {**data, **good}).status_code == 302
    assert task.runs.get().arguments == ["a", "--format", "csv"]


def test_another_task_than_the_forms_is_not_given_its_arguments(
    client: Client, owner: User, task: Task, known: KnownForm
) -> None:
    other = Task.objects.create(name="Other", owner=owner, program_root="programs", program_path="plain.py")
    client.force_login(owner)
    data = {"task": other.pk, "when": "now", "time_zone": "UTC", "arguments-way": "form", "arguments-key": known.key}
    page = client.post(reverse("scheduler:schedule"), {**data, "arguments-of-source": "a"}).text
    assert "The program has changed since this form was made" in page
    assert not other.runs.exists()


def test_the_admin_saves_a_task_and_its_schedules_from_fields(
    client: Client, owner: User, task: Task, known: KnownForm
) -> None:
    client.force_login(owner)
    url = reverse("admin:scheduler_task_change", args=[task.pk])
    page = client.get(url).text
    assert 'name="arguments-of-number" value="3"' in page
    assert 'id="id_schedules-__prefix__-arguments-way-own" checked' in page
    form = client.get(url).context["adminform"].form
    data = {name: field.value() for name, field in zip(form.fields, form, strict=True)}
    data = {name: value for name, value in data.items() if value is not None and value is not False}
    data |= {
        "arguments": "",
        "arguments-way": "form",
        "arguments-key": known.key,
        "arguments-of-source": "a",
        "arguments-of-format": "json",
        **{f"{name}-{count}_FORMS": "0" for name in ("schedules", "follow_ups") for count in ("TOTAL", "INITIAL")},
    }
    assert client.post(url, data).status_code == 302
    task.refresh_from_db()
    assert task.arguments == ["a", "--format", "json"]
    # The arguments of one program are not taken for those of another.
    answer = client.post(url, {**data, "program_path": "programs/plain.py"})
    assert "The program has changed since this form was made" in answer.text
    task.refresh_from_db()
    assert task.program_path == "everything.py"


# The part that scripts fetch


def fetch(client: Client, task: Task, **data: str) -> str:
    return client.post(reverse("scheduler:task-arguments", args=[task.pk]), {"name": "a", **data}).text


def test_the_part_changes_fields_into_a_line_and_back(
    client: Client, owner: User, task: Task, known: KnownForm
) -> None:
    client.force_login(owner)
    filled = {"a": "", "a-way": "form", "a-key": known.key, "a-of-source": "x y", "a-of-format": "csv"}
    html = fetch(client, task, to="line", **filled)
    assert ">&#x27;x y&#x27; --format csv</textarea>" in html
    assert 'id="id_a-way-line" checked' in html
    html = fetch(client, task, **{"to": "form", "a": "'x y' --format csv", "a-way": "line"})
    assert 'name="a-of-source" value="x y"' in html
    # What cannot be said the other way stays as it is.
    assert "This argument is required." in fetch(client, task, **{**filled, "to": "line", "a-of-source": ""})
    html = fetch(client, task, **{"to": "form", "a": "x --format csv --unknown", "a-way": "line"})
    assert ">x --format csv --unknown</textarea>" in html


def test_the_part_shows_a_tasks_own_arguments(client: Client, owner: User, task: Task, known: KnownForm) -> None:
    client.force_login(owner)
    assert 'name="a-of-number" value="3"' in fetch(client, task)
    html = fetch(client, task, optional="yes")
    assert 'id="id_a-way-own" checked' in html
    assert "src --format csv --number 3" in html


@pytest.mark.parametrize("name", ["", "a b", '"><script>', "a" * 200])
def test_the_part_is_made_for_the_name_of_a_field(client: Client, owner: User, task: Task, name: str) -> None:
    client.force_login(owner)
    response = client.post(reverse("scheduler:task-arguments", args=[task.pk]), {"name": name})
    assert response.status_code == 400


def test_a_run_is_repeated_with_changed_fields(
    client: Client, owner: User, task: Task, known: KnownForm, make_run: Callable[..., Run]
) -> None:
    old = make_run(task=task, arguments=["a", "--format", "csv", "--number", "5"])
    client.force_login(owner)
    url = reverse("scheduler:run-again-changed", args=[old.pk])
    page = client.get(url).text
    assert 'name="arguments-of-number" value="5"' in page
    assert 'value="own"' not in page  # these are the run's, not the task's
    data = {"arguments-way": "form", "arguments-key": known.key, "arguments-of-format": "csv"}
    assert "This argument is required." in client.post(url, data).text
    client.post(url, {**data, "arguments-of-source": "b"})
    assert task.runs.queued().get().arguments == ["b", "--format", "csv"]
