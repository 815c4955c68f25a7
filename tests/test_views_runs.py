"""A run's page, its log, and what can be done there."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from scheduler import outputs
from scheduler.models import OutputFile, Poller, ProcessSample, Run, RunEvent, StoreRemoval, Task
from scheduler.states import Status
from scheduler.views import log as log_views
from scheduler.views import runs as run_views

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

    MakeRun = Callable[..., Run]

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202egnp"


@pytest.fixture
def client(client: Client, owner: User) -> Client:
    """A browser in which the owner is logged in."""
    client.force_login(owner)
    return client


def write_log(run: Run, content: bytes) -> None:
    path = outputs.log_path(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def say(run: Run, text: str, what: RunEvent.What = RunEvent.What.MESSAGE) -> None:
    run.record(what, text, now=timezone.now())


def test_the_page_answers_did_it_run_and_if_not_why_not(client: Client, make_run: MakeRun) -> None:
    run = make_run(Status.FAILED, exit_code=3, arguments=["--to", "a b"], program="sample_tasks/x.py")
    page = client.get(run.get_absolute_url()).text
    assert "Failed: the program ended with exit code 3." in page
    assert "<code>&#x27;a b&#x27;</code>" in page
    assert "<code>sample_tasks/x.py</code>" in page
    assert "3.0 s" in page


def test_who_or_what_started_it_is_told(
    client: Client, owner: User, task: Task, recurrence: Any, make_run: MakeRun
) -> None:
    by_person = make_run(requested_by=owner, requested_by_name="owner")
    again = make_run(trigger="again", requested_by_name="owner", triggered_by=by_person)
    schedule = task.schedules.create(recurrence=recurrence)
    by_schedule = make_run(trigger="schedule", schedule=schedule, slot_at=timezone.now())
    assert "<bdi>owner</bdi>" in client.get(by_person.get_absolute_url()).text
    assert (
        f'to repeat <a href="{by_person.get_absolute_url()}" id="before">' in client.get(again.get_absolute_url()).text
    )
    assert "the schedule “Every hour”" in client.get(by_schedule.get_absolute_url()).text
    assert "a command or a program" in client.get(make_run().get_absolute_url()).text


def test_a_run_on_a_silent_host_is_unconfirmed(client: Client, make_run: MakeRun, poller: Poller) -> None:
    run = make_run(Status.PROCESSING, host=poller.host)
    assert "Unconfirmed" not in client.get(run.get_absolute_url()).text
    seen = timezone.now() - timedelta(minutes=5)
    Poller.objects.update(seen_at=seen)
    page = client.get(run.get_absolute_url()).text
    assert "no poller of this host has reported" in page
    assert "Was processing on host here, process 4242, since" in page
    assert "Processing on host" not in page
    assert (
        f"Unconfirmed since {timezone.localtime(seen):%H:%M}" in page
        or f"Unconfirmed since {timezone.localtime(seen):%Y-%m-%d %H:%M}" in page
    )


def test_the_timeline_says_how_long_each_step_took(client: Client, make_run: MakeRun) -> None:
    run = make_run()
    now = timezone.now()
    for seconds, what in ((0, "queued"), (0.5, "claimed"), (70, "started"), (71.5, "finished")):
        run.record(RunEvent.What(what), now=now + timedelta(seconds=seconds))
    page = client.get(run.get_absolute_url()).text
    assert re.findall(
        r"(?:queued|claimed by a poller|program started|finished: exit code)(?: <[^>]*>([^<]*))?", page
    ) == [
        "",
        "",
        "1 min 10 s later",
        "1.5 s later",
    ]


@pytest.mark.parametrize(
    ("status", "values", "words"),
    [
        (Status.FAILED, {"exit_code": 3}, "Its log says why."),
        (Status.FAILED, {"reason": "signal", "signal": 9}, "out of memory"),
        (Status.FAILED, {"reason": "signal", "signal": 15}, "Something outside of the scheduler"),
        (Status.FAILED, {"reason": "timed_out"}, "has no limit any more"),
        (Status.FAILED, {"reason": "launch_error", "detail": "no"}, "The program has not run."),
        (Status.FAILED, {"reason": "lost"}, "only if its work may be done twice without harm"),
        (Status.SKIPPED, {"reason": "overlap"}, "Run the task now if it is wanted."),
        (Status.SKIPPED, {"reason": "paused"}, "Resume what is paused."),
        (Status.QUEUED, {}, "No poller is up: nothing starts."),
        (Status.PROCESSING, {}, "only a poller on here can tell"),
    ],
)
def test_what_one_can_do_about_it_is_told(
    client: Client, make_run: MakeRun, status: Status, values: dict[str, Any], words: str
) -> None:
    assert words in client.get(make_run(status, **values).get_absolute_url()).text


def test_nothing_is_advised_where_there_is_nothing_to_do(client: Client, make_run: MakeRun, poller: Poller) -> None:
    for run in (make_run(), make_run(Status.PROCESSING, host=poller.host), make_run(Status.QUEUED)):
        assert 'id="advice"' not in client.get(run.get_absolute_url()).text


def test_a_run_that_is_being_stopped_says_how_long_that_may_take(
    client: Client, make_run: MakeRun, poller: Poller
) -> None:
    run = make_run(
        Status.PROCESSING, host=poller.host, cancel_requested_at=timezone.now(), cancel_requested_by_name="olivia"
    )
    page = client.get(run.get_absolute_url()).text
    assert "Is being stopped, as olivia asked." in page
    assert "what still runs 10 s after that is killed" in page


def test_a_due_slot_that_nobody_has_decided_about_is_not_said_to_start(
    client: Client, make_run: MakeRun, poller: Poller
) -> None:
    run = make_run(Status.QUEUED, ready_at=None, due_at=timezone.now() - timedelta(minutes=1))
    assert "Is due; waits for a poller." in client.get(run.get_absolute_url()).text


def test_messages_come_newest_first_and_are_limited(
    client: Client, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_views, "MESSAGES_AT_MOST", 2)
    run = make_run()
    for text in ("first", "second", "third"):
        say(run, text)
    say(run, "vm", RunEvent.What.CLAIMED)
    page = client.get(run.get_absolute_url()).text
    assert "first" not in page.partition('id="messages-heading"')[2]
    assert page.index("third") < page.index("second")
    assert "Only the newest 2 are shown." in page
    assert "claimed by a poller" in page


def test_the_processes_are_shown_as_a_tree_while_it_runs(client: Client, make_run: MakeRun) -> None:
    run = make_run(Status.PROCESSING)
    names = [(10, 1, "sh"), (11, 10, "python"), (12, 11, HOSTILE)]
    processes = [
        {"pid": pid, "parent": parent, "name": name, "cpu_percent": 1.5, "memory_bytes": 2048}
        for pid, parent, name in names
    ]
    ProcessSample.objects.create(
        run=run, at=timezone.now(), cpu_percent=99.5, memory_bytes=2**20, memory_peak_bytes=2**21, processes=processes
    )
    page = client.get(run.get_absolute_url()).text
    assert '<td class="depth-0"><bdi>sh</bdi>' in page
    assert '<td class="depth-1"><bdi>python</bdi>' in page
    assert '<td class="depth-2"><bdi>&lt;script&gt;' in page
    assert "CPU 99.5 %" in page
    Run.objects.filter(pk=run.pk).update(status=Status.COMPLETED, finished_at=timezone.now(), reason="exit_code")
    assert "depth-0" not in client.get(run.get_absolute_url()).text


def test_each_process_stands_below_its_parent(client: Client, make_run: MakeRun) -> None:
    run = make_run(Status.PROCESSING)
    processes = [
        {"pid": pid, "parent": parent, "name": f"p{pid}", "cpu_percent": 0.0, "memory_bytes": 1}
        for pid, parent in [(10, 1), (11, 10), (12, 10), (13, 12), (14, 11), (15, 99)]
    ]
    ProcessSample.objects.create(
        run=run, at=timezone.now(), cpu_percent=0, memory_bytes=1, memory_peak_bytes=2048, processes=processes
    )
    page = client.get(run.get_absolute_url()).text
    found = re.findall(r'depth-(\d)"><bdi>p(\d+)', page)
    assert found == [("0", "10"), ("1", "11"), ("2", "14"), ("1", "12"), ("2", "13"), ("0", "15")]
    Run.objects.filter(pk=run.pk).update(status=Status.COMPLETED, finished_at=timezone.now(), reason="exit_code")
    assert "at most 2.0\xa0KB" in client.get(run.get_absolute_url()).text


def test_files_have_name_size_checksum_and_link(client: Client, make_run: MakeRun) -> None:
    run = make_run()
    file = OutputFile.objects.create(run=run, name="a.csv", size=2048, sha256="ab" * 32, created_at=timezone.now())
    page = client.get(run.get_absolute_url()).text
    assert f'href="{file.get_absolute_url()}"' in page
    assert f'title="{"ab" * 32}"' in page
    assert "2.0\xa0KB" in page


def test_many_files_have_pages(client: Client, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_views, "FILES_A_PAGE", 5)
    run = make_run()
    for number in range(12):
        OutputFile.objects.create(
            run=run, name=f"{number:02}.txt", size=1024, sha256="0" * 64, created_at=timezone.now()
        )
    for number, names in ((1, ["00", "04"]), (3, ["10", "11"])):
        page = client.get(run.get_absolute_url(), {"files": str(number)}).text
        found = re.findall(r"<bdi>(\d\d)\.txt</bdi>", page)
        assert [found[0], found[-1]] == names
        assert "12 files, 12.0\xa0KB in all." in page
        assert f"page {number} of 3" in page
        assert ('id="files-next"' in page) == (number == 1)
        # The part that a script asks for is the same page of files.
        fragment = client.get(run.get_absolute_url(), {"files": str(number), "fragment": "1"}).text
        assert re.findall(r"<bdi>(\d\d)\.txt</bdi>", fragment) == found
    assert "page 3 of 3" in client.get(run.get_absolute_url(), {"files": "999"}).text
    assert "page 1 of 3" in client.get(run.get_absolute_url(), {"files": "<b>"}).text


def test_without_view_output_there_is_neither_log_nor_file(client: Client, viewer: User, make_run: MakeRun) -> None:
    run = make_run()
    write_log(run, b"secret words")
    OutputFile.objects.create(run=run, name="a.csv", size=1, sha256="0" * 64, created_at=timezone.now())
    client.force_login(viewer)
    page = client.get(run.get_absolute_url()).text
    assert "secret words" not in page
    assert "a.csv" not in page
    assert "You may not see the log and the files of this task." in page


def test_hostile_text_is_shown_and_does_nothing(client: Client, task: Task, make_run: MakeRun) -> None:
    Task.objects.filter(pk=task.pk).update(name=HOSTILE)
    run = make_run(
        Status.FAILED, reason="launch_error", detail=HOSTILE, message=HOSTILE, arguments=[HOSTILE], program=HOSTILE
    )
    say(run, HOSTILE)
    say(run, HOSTILE, RunEvent.What.NOT_COLLECTED)
    OutputFile.objects.create(run=run, name=HOSTILE, size=1, sha256="0" * 64, created_at=timezone.now())
    write_log(run, HOSTILE.encode())
    for url in (run.get_absolute_url(), reverse("scheduler:run-delete", args=[run.pk])):
        page = client.get(url).text
        assert "<script>alert" not in page
        assert "\x1b" not in page
        assert "\u202e" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_fragment_is_all_of_the_page_that_changes(client: Client, make_run: MakeRun) -> None:
    run = make_run(Status.PROCESSING)
    say(run, "Working")
    first = client.get(run.get_absolute_url(), {"fragment": "1"})
    assert first.text.count('id="run"') == first.text.count('id="run-history"') == 1
    assert "csrfmiddlewaretoken" not in first.text  # it would differ every time
    over = make_run(Status.COMPLETED)
    first = client.get(over.get_absolute_url(), {"fragment": "1"})
    again = client.get(over.get_absolute_url(), {"fragment": "1"}, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304


def test_a_run_with_much_history_costs_as_many_queries_as_one_with_little(client: Client, make_run: MakeRun) -> None:
    def count(run: Run) -> int:
        with CaptureQueriesContext(connection) as queries:
            client.get(run.get_absolute_url(), {"fragment": "1"})
        return len(queries)

    little, much = make_run(), make_run()
    for run, times in ((little, 1), (much, 20)):
        for number in range(times):
            say(run, f"{number}")
            say(run, f"{number}", RunEvent.What.NOT_COLLECTED)
    for number in range(2):
        for run in (little, much):
            OutputFile.objects.create(run=run, name=f"{number}", size=1, sha256="0" * 64, created_at=timezone.now())
    assert count(much) == count(little) <= 16


# The log


def read(client: Client, run: Run, offset: int = 0, codes: str = "") -> dict[str, Any]:
    given = {"offset": str(offset), "codes": codes}
    answer: dict[str, Any] = client.get(reverse("scheduler:run-log", args=[run.pk]), given).json()
    return answer


def log_of(client: Client, run: Run, **given: str) -> str:
    """The part of the run's page that shows its log."""
    answer = client.get(run.get_absolute_url(), {"fragment": "log", **given})
    assert answer.status_code == 200
    return answer.text


def test_the_end_of_the_log_is_in_the_page_without_a_script(client: Client, make_run: MakeRun) -> None:
    run = make_run(Status.PROCESSING)
    write_log(run, b"x" * 100 + b"\n" + b"line\n" * 20_000 + b"10 %\r50 %")
    page = client.get(run.get_absolute_url()).text
    assert "xxxx" not in page
    assert "<span data-unended>50 %</span>" in page
    assert f'data-offset="{101 + 100_000}" data-codes="" data-tail data-follow>' in page
    assert f'id="b{101 + 100_000 - 5}">line\n</span>' in page
    assert f'?before={101 + 100_000 - 1999 * 5}#log"' in page  # 2000 lines, with the one that is not ended


def test_the_log_is_followed_by_offset(client: Client, make_run: MakeRun) -> None:
    run = make_run(Status.PROCESSING)
    write_log(run, b"one\n\x1b[31mtwo\xe2\x82")
    first = read(client, run)
    assert first["lines"] == '<span class="line" id="b0">one\n</span>'
    assert first["unended"] == '<span class="ink-1">two</span>'
    assert (first["offset"], first["codes"], first["more"], first["finished"]) == (4, "", False, False)
    write_log(run, "one\n\x1b[31mtwo€\nthree".encode())
    second = read(client, run, first["offset"], codes=first["codes"])
    assert second["lines"] == '<span class="line" id="b4"><span class="ink-1">two€</span>\n</span>'
    assert second["unended"] == '<span class="ink-1">three</span>'
    Run.objects.filter(pk=run.pk).update(status=Status.COMPLETED, finished_at=timezone.now(), reason="exit_code")
    last = read(client, run, second["offset"], codes=second["codes"])
    assert '<span class="ink-1">three</span>' in last["lines"]
    assert (last["unended"], last["offset"], last["finished"]) == ("", last["size"], True)


def test_one_answer_is_of_limited_size(client: Client, make_run: MakeRun) -> None:
    run = make_run()
    write_log(run, b"x" * 1_000_000)
    answer, parts = read(client, run), 1
    while answer["more"]:
        assert len(answer["lines"]) <= 66_000
        answer, parts = read(client, run, answer["offset"]), parts + 1
    assert parts == 16
    assert (answer["offset"], answer["finished"]) == (1_000_000, True)


def test_a_progress_bar_without_line_ends_stays_one_line(client: Client, make_run: MakeRun) -> None:
    run = make_run(Status.PROCESSING)
    write_log(run, b"".join(b"%6d of 100000\r" % number for number in range(20_000)))
    part = read(client, run)
    assert part["lines"].count("of 100000") == 1
    again = read(client, run, part["offset"])
    # A script puts it in the place of the one before.
    assert 'class="line over"' in again["lines"]
    assert again["lines"].count("of 100000") == 1


@pytest.mark.parametrize("offset", ["-1", "x", "", "1.5", "9" * 40, "٣"])
def test_an_offset_that_makes_no_sense_is_refused(client: Client, make_run: MakeRun, offset: str) -> None:
    url = reverse("scheduler:run-log", args=[make_run().pk])
    assert client.get(url, {"offset": offset}).status_code == 400


def test_a_run_without_a_log_says_why(client: Client, make_run: MakeRun) -> None:
    skipped = make_run(Status.SKIPPED)
    assert read(client, skipped) == {"lines": "", "unended": "", "offset": 0, "size": 0, "finished": True}
    assert "There is no log: the program was not started." in client.get(skipped.get_absolute_url()).text
    assert "The log is not in the store any more" in client.get(make_run().get_absolute_url()).text
    silent = make_run()
    write_log(silent, b"")
    assert "The program has written nothing to its log." in client.get(silent.get_absolute_url()).text


@pytest.mark.parametrize(
    ("at", "line"), [("50%", 500), ("50 %", 500), ("0", 0), ("100%", 999), ("5004", 500), ("12,5 %", 125)]
)
def test_any_place_of_the_log_has_an_address(client: Client, make_run: MakeRun, at: str, line: int) -> None:
    run = make_run()
    write_log(run, b"".join(b"line %04d\n" % number for number in range(1000)))
    page = client.get(run.get_absolute_url(), {"at": at}).text
    assert f'<span class="line target" id="b{line * 10}">line {line:04d}\n</span>' in page


@pytest.mark.parametrize("at", ["<b>", "101%", "-1%", "nan%", "9" * 30, "%", ""])
def test_a_place_that_makes_no_sense_is_told_and_the_end_is_shown(client: Client, make_run: MakeRun, at: str) -> None:
    run = make_run()
    write_log(run, b"the end\n")
    shown = log_of(client, run, at=at)
    assert "is no place in the log" in shown
    assert "the end" in shown
    assert "<b>" not in shown


def test_one_pages_through_the_log_and_misses_no_line(client: Client, make_run: MakeRun) -> None:
    run = make_run()
    write_log(run, b"".join(b"line %05d\n" % number for number in range(7000)))
    seen, query = [], "?after=0"
    while query:
        shown = client.get(f"{run.get_absolute_url()}{query}&fragment=log").text
        seen += re.findall(r"line (\d{5})\n", shown)
        later = re.search(r'href="[^"]*(\?after=\d+)#log" class="small" id="log-later"', shown)
        query = later[1] if later else ""
    assert seen == [f"{number:05d}" for number in range(7000)]
    assert 'id="log-earlier" data-in-log>' in shown


def test_a_search_lists_the_lines_and_each_leads_to_its_place(client: Client, make_run: MakeRun) -> None:
    run = make_run()
    write_log(run, b"nothing\n" * 9 + b"<b>Disk</b> full\n" + b"nothing\n" * 9)
    shown = log_of(client, run, find="disk")
    assert "1 line with “disk”." in shown
    assert "<code>&lt;b&gt;<mark>Disk</mark>&lt;/b&gt; full</code>" in shown
    link = re.search(r'<li><a href="([^"#]*)', shown)
    assert link is not None
    place = client.get(html.unescape(link[1])).text
    assert '<span class="line target" id="b72">&lt;b&gt;<mark>Disk</mark>&lt;/b&gt; full\n</span>' in place
    assert "All lines with “disk”" in place
    assert "No line of the log has “&lt;i&gt;”." in log_of(client, run, find="<i>")


def test_a_search_of_a_long_log_goes_on_where_it_stopped(
    client: Client, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_views, "SEARCH_BYTES", 100)
    run = make_run()
    write_log(run, b"nothing\n" * 25 + b"Error: here\n")
    for query, words in (("?find=here", "Search on"), ("?error=0", "Look on")):
        steps = 0
        while "target" not in (shown := client.get(f"{run.get_absolute_url()}{query}&fragment=log").text):
            if "<mark>here</mark>" in shown:
                break
            on = re.search(r'href="[^"]*(\?[^"#]*)#log" id="log-go-on" data-in-log data-go-on', shown)
            assert on is not None
            assert words in shown
            query, steps = html.unescape(on[1]), steps + 1
        assert steps == 2


def test_the_first_error_is_shown_and_then_the_next(client: Client, make_run: MakeRun) -> None:
    run = make_run()
    write_log(run, b"fine\nerror 1\nfine\nerror 2\n")
    first = log_of(client, run, error="0")
    assert '<span class="line target" id="b5">error 1' in first
    assert "“traceback”, “error”, “critical”, “fatal”" in first
    following = re.search(r'href="[^"]*error=(\d+)#log" id="log-next-error"', first)
    assert following is not None
    second = log_of(client, run, error=following[1])
    assert '<span class="line target" id="b18">error 2' in second
    write_log(run, b"fine\n")
    assert "No line has one of these words" in log_of(client, run, error="0")


def test_the_logs_part_of_the_page_needs_the_permission(client: Client, viewer: User, make_run: MakeRun) -> None:
    run = make_run()
    write_log(run, b"secret words\n")
    client.force_login(viewer)
    for query in ("", "&find=secret", "&error=0", "&at=0"):
        answer = client.get(f"{run.get_absolute_url()}?fragment=log{query}")
        assert answer.status_code == 403
        page = client.get(f"{run.get_absolute_url()}?{query[1:]}").text
        assert "secret words" not in page
        assert "<mark>" not in page


# Starting, stopping, deleting


def post(client: Client, name: str, pk: int, **data: str) -> str:
    """Send a form; returns the page that follows."""
    return client.post(reverse(f"scheduler:{name}", args=[pk]), data, follow=True).text


def test_run_now_uses_the_tasks_own_arguments(client: Client, owner: User, task: Task, poller: Poller) -> None:
    page = post(client, "task-run", task.pk)
    run = task.runs.get()
    assert (run.status, run.arguments, run.requested_by, run.trigger) == ("queued", ["3"], owner, "manual")
    assert "starts as soon as there is a place" in page


def test_run_again_uses_the_arguments_of_the_run(client: Client, owner: User, task: Task, make_run: MakeRun) -> None:
    old = make_run(arguments=["other"])
    post(client, "run-again", old.pk)
    run = task.runs.queued().get()
    assert (run.arguments, run.triggered_by, run.trigger, run.requested_by) == (["other"], old, "again", owner)


def test_a_run_that_is_not_over_is_not_run_again(client: Client, task: Task, make_run: MakeRun) -> None:
    run = make_run(Status.PROCESSING)
    for name in ("run-again", "run-again-changed"):
        assert "not over yet" in post(client, name, run.pk)
    assert not task.runs.queued().exists()


def test_run_again_with_other_arguments(client: Client, owner: User, task: Task, make_run: MakeRun) -> None:
    old = make_run(arguments=["--to", "a b", "c\nd"])
    url = reverse("scheduler:run-again-changed", args=[old.pk])
    assert f'href="{url}"' in client.get(old.get_absolute_url()).text
    form = client.get(url).text
    assert "--to &#x27;a b&#x27; &#x27;c\nd&#x27;" in form
    page = post(client, "run-again-changed", old.pk, arguments="--to 'c d'  'e\r\nf' \"<b>\"")
    run = task.runs.queued().get()
    assert run.arguments == ["--to", "c d", "e\nf", "<b>"]
    assert (run.triggered_by, run.trigger, run.requested_by) == (old, "again", owner)
    assert f"Run #{run.pk}" in page


def test_arguments_that_cannot_be_taken_apart_are_told_at_the_field(
    client: Client, task: Task, make_run: MakeRun
) -> None:
    old = make_run()
    page = post(client, "run-again-changed", old.pk, arguments="--to 'a")
    assert "A quote is not closed" in page
    assert "--to &#x27;a" in page
    assert not task.runs.queued().exists()


def test_no_arguments_are_a_choice_too(client: Client, task: Task, make_run: MakeRun) -> None:
    post(client, "run-again-changed", make_run().pk, arguments="")
    assert task.runs.queued().get().arguments == []


@pytest.mark.parametrize("name", ["task-run", "run-again", "run-again-changed"])
def test_a_double_click_starts_one_run(client: Client, task: Task, make_run: MakeRun, name: str) -> None:
    old = make_run()
    pk = task.pk if name == "task-run" else old.pk
    post(client, name, pk, once="token of the page")
    page = post(client, name, pk, once="token of the page")
    assert task.runs.queued().count() == 1
    assert "was started by your first click" in page
    post(client, name, pk, once="token of a fresh page")
    assert task.runs.queued().count() == 2


def test_one_page_can_start_different_runs(client: Client, task: Task, make_run: MakeRun) -> None:
    for run in (make_run(), make_run()):
        post(client, "run-again", run.pk, once="token of the page")
    post(client, "task-run", task.pk, once="token of the page")
    assert task.runs.queued().count() == 3


def test_two_people_with_the_same_token_start_two_runs(client: Client, runner: User, task: Task) -> None:
    post(client, "task-run", task.pk, once="same")
    client.force_login(runner)
    post(client, "task-run", task.pk, once="same")
    assert task.runs.queued().count() == 2


def test_every_page_has_a_token_of_its_own(client: Client, make_run: MakeRun) -> None:
    url = make_run().get_absolute_url()
    tokens = {client.get(url).context["once"] for _ in range(2)}
    assert len(tokens) == 2
    assert all(f'name="once" value="{token}"' not in client.get(url, {"fragment": "1"}).text for token in tokens)


def test_a_start_beside_a_run_in_progress_says_that_it_waits(
    client: Client, task: Task, make_run: MakeRun, poller: Poller
) -> None:
    make_run(Status.PROCESSING)
    assert "waits in the queue: the task is being processed" in post(client, "task-run", task.pk)


def test_a_start_without_a_poller_says_that_it_waits_for_one(client: Client, task: Task) -> None:
    assert "No poller is up: it starts when one is." in post(client, "task-run", task.pk)


def test_a_disabled_task_is_not_started_and_says_why(client: Client, task: Task, make_run: MakeRun) -> None:
    task.enabled = False
    task.save()
    assert "is disabled. Enable it, then start it." in post(client, "task-run", task.pk)
    assert "is disabled. Enable it, then start it." in post(client, "run-again", make_run().pk)
    assert not task.runs.queued().exists()


def test_a_waiting_run_is_cancelled_at_once_and_a_running_one_is_asked_to_stop(
    client: Client, owner: User, make_run: MakeRun
) -> None:
    waiting, running, over = make_run(Status.QUEUED), make_run(Status.PROCESSING), make_run(Status.COMPLETED)
    assert "is cancelled" in post(client, "run-stop", waiting.pk)
    assert "is asked to stop" in post(client, "run-stop", running.pk)
    assert "its stop was already asked for" in post(client, "run-stop", running.pk)
    assert "was over" in post(client, "run-stop", over.pk)
    for run in (waiting, running, over):
        run.refresh_from_db()
    assert [run.status for run in (waiting, running, over)] == ["cancelled", "processing", "completed"]
    assert running.cancel_requested_by == owner


def test_actions_come_back_to_the_page_where_the_button_was(client: Client, make_run: MakeRun) -> None:
    run = make_run(Status.PROCESSING)
    url = reverse("scheduler:run-stop", args=[run.pk])
    assert client.post(url).headers["Location"] == run.get_absolute_url()
    assert client.post(url, {"from": "index"}).headers["Location"] == "/scheduler/"
    assert client.post(url, {"from": "https://example.org/"}).headers["Location"] == run.get_absolute_url()


def test_deleting_asks_first_and_then_removes_row_and_folders(
    client: Client, make_run: MakeRun, poller: Poller
) -> None:
    run = make_run(host=poller.host)
    url = reverse("scheduler:run-delete", args=[run.pk])
    assert "This cannot be undone." in client.get(url).text
    assert Run.objects.filter(pk=run.pk).exists()
    assert "is deleted, with its log and files" in client.post(url, follow=True).text
    assert not Run.objects.filter(pk=run.pk).exists()
    assert StoreRemoval.objects.get().uuid == run.uuid


@pytest.mark.parametrize("status", [Status.QUEUED, Status.PROCESSING])
@pytest.mark.parametrize("method", ["get", "post"])
def test_only_what_is_over_is_deleted(client: Client, make_run: MakeRun, status: Status, method: str) -> None:
    run = make_run(status)
    page = getattr(client, method)(reverse("scheduler:run-delete", args=[run.pk]), follow=True).text
    assert "Stop it, then delete it." in page
    assert Run.objects.filter(pk=run.pk).exists()


# What triggered it, and what it triggered


def test_a_run_shows_what_triggered_it_and_what_it_triggered(client: Client, viewer: User, make_run: MakeRun) -> None:
    other = Task.objects.create(name="Upload", program_root="sample_tasks", program_path="countdown.py")
    other.grant(viewer, "view_task")
    first = make_run(Status.FAILED)
    retry = make_run(triggered_by=first, trigger=Run.Trigger.RETRY, attempt=2)
    follower = make_run(triggered_by=retry, trigger=Run.Trigger.FOLLOW_UP, task=other)
    client.force_login(viewer)
    page = client.get(retry.get_absolute_url()).text
    assert "a retry (attempt 2) after" in page
    assert f'<a href="{first.get_absolute_url()}" id="before">run #{first.pk}</a> (failed)' in page
    assert f'<a href="{follower.get_absolute_url()}" id="after-{follower.pk}">' in page
    assert "<bdi>Upload</bdi> (follow-up): completed" in page
    page = client.get(follower.get_absolute_url()).text
    assert "a follow-up, after" in page
    assert f'<a href="{retry.get_absolute_url()}" id="before">' in page


def test_runs_of_hidden_tasks_are_neither_named_nor_linked(client: Client, viewer: User, make_run: MakeRun) -> None:
    hidden = Task.objects.create(name="Payroll of the board", program_root="sample_tasks", program_path="countdown.py")
    before = make_run(task=hidden)
    run = make_run(triggered_by=before, trigger=Run.Trigger.FOLLOW_UP)
    after = make_run(triggered_by=run, trigger=Run.Trigger.FOLLOW_UP, task=hidden)
    client.force_login(viewer)
    page = client.get(run.get_absolute_url()).text
    assert "a run of another task" in page
    assert hidden.name not in page
    for other in (before, after):
        assert f"/runs/{other.pk}/" not in page


def test_a_run_of_a_slot_leads_to_its_tasks_slots(client: Client, viewer: User, make_run: MakeRun) -> None:
    run = make_run(Status.SKIPPED, trigger=Run.Trigger.SCHEDULE, slot_at=timezone.now())
    client.force_login(viewer)
    assert f"/scheduler/tasks/{run.task_id}/slots/?not_run=1" in client.get(run.get_absolute_url()).text


def test_a_run_in_progress_says_how_much_time_is_usually_left(
    client: Client, owner: User, make_run: Callable[..., Run], poller: Poller
) -> None:
    client.force_login(owner)
    now = timezone.now()
    for minutes in (10, 10, 12):
        make_run(started_at=now - timedelta(minutes=minutes), finished_at=now)
    run = make_run(Status.PROCESSING, started_at=now - timedelta(minutes=4), host=poller.host)
    page = client.get(run.get_absolute_url()).text
    assert "usually 10 min" in page
    assert " left" in page
