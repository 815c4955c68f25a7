"""The pages in German: complete, in step with the code, and in the language of whoever asks.

The strings of the code are found by Python's and Django's own parsers, so that no test needs gettext's tools.
"""

from __future__ import annotations

import ast
import gettext
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from django.conf import settings
from django.template import engines
from django.templatetags.i18n import BlockTranslateNode, TranslateNode
from django.test import RequestFactory
from django.utils import timezone, translation

from scheduler import pausing, words
from scheduler.models import Alarm, AuditEntry, Recurrence, Run, RunEvent, Schedule, SchedulerState, Task
from scheduler.models.follow_up import after_end
from scheduler.models.slots import refusal
from scheduler.recurrences import Cron
from scheduler.states import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.contrib.auth.models import User
    from django.test import Client

PROJECT = Path(__file__).resolve().parent.parent
ROOMS = ["scheduler", "conf", "demo"]
# A context, a message and its plural; the first and the last may be empty.
Message = tuple[str, str, str]

PLAIN = {"_", "gettext", "gettext_lazy"}
COUNTED = {"ngettext", "ngettext_lazy"}
IN_CONTEXT = {"pgettext", "pgettext_lazy"}


@pytest.fixture(autouse=True)
def _language_of_the_next_test() -> Iterator[None]:
    """A request leaves its language behind, as the next one sets its own."""
    with translation.override(settings.LANGUAGE_CODE):
        yield


# What the code and the templates say


def in_python(source: str) -> Iterator[Message]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id in PLAIN | COUNTED | IN_CONTEXT:
            texts = [ast.literal_eval(each) for each in node.args[: 1 if node.func.id in PLAIN else 2]]
            match node.func.id:
                case name if name in PLAIN:
                    yield "", texts[0], ""
                case name if name in COUNTED:
                    yield "", texts[0], texts[1]
                case _:
                    yield texts[0], texts[1], ""


def in_template(source: str) -> Iterator[Message]:
    nodes = engines["django"].from_string(source).template.nodelist  # type: ignore[attr-defined]
    for node in nodes.get_nodes_by_type(TranslateNode):
        context = node.message_context.var if node.message_context else ""
        yield str(context), str(node.filter_expression.var.literal), ""
    for node in nodes.get_nodes_by_type(BlockTranslateNode):
        assert node.message_context is None  # no need so far
        plural = node.render_token_list(node.plural)[0] if node.plural else ""
        yield "", node.render_token_list(node.singular)[0], plural


def in_code(room: str) -> set[Message]:
    found: set[Message] = set()
    for path in sorted((PROJECT / room).rglob("*.py")):
        if "migrations" not in path.parts:
            found.update(in_python(path.read_text(encoding="utf-8")))
    for path in sorted((PROJECT / room).rglob("*.html")):
        found.update(in_template(path.read_text(encoding="utf-8")))
    # One entry stands for a message and for its singular.
    return {each for each in found if each[2] or not any(other[2] and other[:2] == each[:2] for other in found)}


# What the translation says


def folder_of(room: str) -> Path:
    return PROJECT / room / "locale" / "de" / "LC_MESSAGES"


def translated(room: str) -> dict[Message, list[str]]:
    """The entries of a .po file: a message's translation, or those for one and for many."""
    text = (folder_of(room) / "django.po").read_text(encoding="utf-8")
    found: dict[Message, list[str]] = {}
    for block in text.split("\n\n")[1:]:  # the first is the head
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#"):
                assert not line.startswith(("#,", "#~")) or "fuzzy" not in line, block
                continue
            keyword, quoted = re.fullmatch(r'([a-z_\[\]0-9]* ?)(".*")', line).groups()  # type: ignore[union-attr]
            name = keyword.strip() or name
            fields[name] = fields.get(name, "") + ast.literal_eval(quoted)
        message = fields.get("msgctxt", ""), fields["msgid"], fields.get("msgid_plural", "")
        assert message not in found
        found[message] = [value for name, value in fields.items() if name.startswith("msgstr")]
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_every_text_of_the_code_has_its_translation_and_no_other_is_kept(room: str) -> None:
    assert in_code(room) == set(translated(room))


def test_texts_are_found_in_all_the_ways_in_which_they_are_written() -> None:
    known = in_code("scheduler")
    assert len(known) > 1000
    assert ("permission", "run", "") in known
    assert ("date format", "l j F Y", "") in known  # a template's
    assert ("", "every %(count)d day", "every %(count)d days") in known
    assert ("", "%(n)s file", "%(n)s files") in known  # a template's
    assert ("", "Only the newest %(n)s are shown.", "") in known
    assert ("", "%(percent)s %% completed", "") in known
    assert ("", "Instance", "") in known


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"%(?:\(\w+\)[sd]|%)", text))


def tags(text: str) -> list[str]:
    return sorted(re.findall(r"</?[a-z][^>]*>", text))


@pytest.mark.parametrize("room", ROOMS)
def test_each_translation_is_whole(room: str) -> None:
    for (_context, text, plural), german in translated(room).items():
        assert len(german) == (2 if plural else 1), text
        for each, english in zip(german, [text, plural], strict=False):
            assert each.strip(), text
            assert tags(each) == tags(english), text
            assert each[0].isspace() == english[0].isspace(), text
            assert each[-1].isspace() == english[-1].isspace(), text
            assert placeholders(each) == placeholders(english), text


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_compiled_is_what_is_written(room: str) -> None:
    with (folder_of(room) / "django.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for (context, text, plural), german in translated(room).items():
        if plural:
            assert [compiled.ngettext(text, plural, count) for count in (1, 2)] == german
        else:
            assert [compiled.pgettext(context, text) if context else compiled.gettext(text)] == german


# Who sees which


def page(client: Client, address: str, language: str) -> str:
    return client.get(address, headers={"accept-language": language}).text


@pytest.mark.django_db
def test_the_browser_decides_the_language_of_each_page(
    client: Client, owner: User, make_run: Callable[..., Run]
) -> None:
    client.force_login(owner)
    run = make_run(Status.FAILED, exit_code=3)
    for language, tag, sentence in [
        ("de-AT,de;q=0.9,en;q=0.5", "de", "Fehlgeschlagen: Das Programm endete mit Exit-Code 3."),
        ("en-GB", "en", "Failed: the program ended with exit code 3."),
        ("de", "de", "Fehlgeschlagen: Das Programm endete mit Exit-Code 3."),
        ("fr", "en", "Failed: the program ended with exit code 3."),  # a page half in French helps nobody
    ]:
        shown = page(client, run.get_absolute_url(), language)
        assert f'<html lang="{tag}"' in shown
        assert sentence in shown
    shown = page(client, "/scheduler/", "de")
    assert "Gerade läuft nichts." in shown
    assert "fehlgeschlagen" in shown
    assert "Nothing runs now." in page(client, "/scheduler/", "en")


@pytest.mark.django_db
def test_dates_numbers_and_events_follow_the_language(
    client: Client, owner: User, make_run: Callable[..., Run]
) -> None:
    client.force_login(owner)
    run = make_run(Status.FAILED, now=datetime(2026, 11, 24, 9, 30, tzinfo=ZoneInfo("UTC")))
    run.record(RunEvent.What.ALARM, Alarm.Kind.LONG, now=timezone.now())
    shown = page(client, run.get_absolute_url(), "de")
    assert "3,0 s" in shown
    assert "Dienstag, 24. November 2026, 09:30:00 UTC" in shown
    assert "Alarm: <bdi>viel länger als üblich</bdi>" in shown
    shown = page(client, run.get_absolute_url(), "en")
    assert "3.0 s" in shown
    assert "Tuesday 24 November 2026, 09:30:00 UTC" in shown
    assert "alarm: <bdi>far longer than usual</bdi>" in shown
    assert "Dienstag, 24. November 2026: 1 Lauf." in page(client, "/scheduler/timeline/?day=2026-11-24", "de")


@pytest.mark.django_db
def test_the_pages_of_the_site_itself_are_translated_too(client: Client) -> None:
    assert "Diese Seite steht für die eigene Site." in page(client, "/", "de")
    assert "Anmelden" in page(client, "/accounts/login/", "de")
    assert "Diese Seite gibt es nicht" in page(client, "/nowhere/", "de")


def test_english_is_the_default() -> None:
    assert settings.LANGUAGE_CODE == "en"
    assert translation.gettext("Nothing runs now.") == "Nothing runs now."


def test_rules_are_in_the_words_of_the_language() -> None:
    anchor = datetime(2026, 1, 5, 7, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    said = []
    for language in ("de", "en"):
        with translation.override(language):
            said.append(words.schedule_in_words(Cron("30 7 * * 1-5"), anchor=anchor, zone=ZoneInfo("Europe/Berlin")))
    assert said == ["montags bis freitags um 07:30, Europe/Berlin", "every weekday at 07:30, Europe/Berlin"]


# What is kept is read by people of several languages: it is English, whoever did it


@pytest.fixture
def schedule(task: Task) -> Schedule:
    recurrence = Recurrence.objects.create(name="Hourly", kind=Recurrence.Kind.CRON, cron="0 * * * *")
    now = timezone.now()
    schedule = Schedule.objects.create(task=task, recurrence=recurrence, anchor=now - timedelta(days=1))
    schedule.plan(now)
    return schedule


@pytest.mark.django_db
def test_the_problem_of_a_rule_is_kept_in_english(schedule: Schedule) -> None:
    Recurrence.objects.update(cron="0 0 30 2 *")
    Schedule.objects.update(stale_at=timezone.now())
    with translation.override("de"):
        Schedule.objects.get().plan(timezone.now())
    assert Schedule.objects.get().problem.startswith("The cron line “0 0 30 2 *” never matches")


@pytest.mark.django_db
def test_a_pause_by_the_scheduler_is_kept_in_english(
    task: Task, schedule: Schedule, owner: User, make_run: Callable[..., Run]
) -> None:
    Task.objects.update(after_failure=Task.AfterFailure.PAUSE)
    run = make_run(Status.FAILED, schedule=schedule)
    request = RequestFactory().post("/")
    request.user = owner
    with translation.override("de"):
        after_end(run.pk, timezone.now())
        schedule.refresh_from_db()
        assert schedule.pause_in_words == f"dem Aufgabenplaner: Run #{run.pk} failed."
        pausing.resume(request, schedule)
        pausing.pause(request, SchedulerState.get(), why="Umzug", now=timezone.now())
    resumed, paused = AuditEntry.objects.order_by("pk")
    assert resumed.text == f"the scheduler: Run #{run.pk} failed."
    assert (paused.object_name, paused.text) == ("scheduler", "Umzug")


@pytest.mark.django_db
def test_a_slot_in_a_pause_by_the_scheduler_says_so_in_the_language_of_the_page(
    schedule: Schedule, owner: User, make_run: Callable[..., Run]
) -> None:
    now = timezone.now()

    def skipped() -> Run:
        found = refusal(schedule, schedule.next_run or make_run(), now, scheduler=None)
        assert found is not None
        return make_run(Status.SKIPPED, schedule=schedule, reason=found[0], detail=found[1])

    schedule.pause(by=None, why="Run #5 failed.", now=now)
    by_itself = skipped()
    schedule.resume()
    schedule.pause(by=owner, why="Umzug", now=now)
    by_owner = skipped()
    assert by_itself.detail == "the scheduler: Run #5 failed."
    assert by_itself.sentence == "Not run: paused by the scheduler: Run #5 failed."
    with translation.override("de"):
        assert by_itself.sentence == "Nicht gelaufen: pausiert von dem Aufgabenplaner: Run #5 failed."
        assert by_owner.sentence == f"Nicht gelaufen: pausiert von {owner.get_username()}: Umzug"


@pytest.mark.django_db
def test_changes_of_access_are_kept_in_english(client: Client, owner: User, viewer: User, task: Task) -> None:
    client.force_login(owner)
    seen = f"user:{viewer.pk}:view_task"
    data = {"shown": [seen], "give": [seen, f"user:{viewer.pk}:stop_run"]}
    answer = client.post(
        f"/admin/scheduler/task/{task.pk}/access/", data, follow=True, headers={"accept-language": "de"}
    )
    assert "Der Zugriff auf „Nightly report“ wurde geändert." in answer.text
    assert AuditEntry.objects.get(action=AuditEntry.Action.ACCESS).text == "Access changed: user viewer: gave stop_run."
