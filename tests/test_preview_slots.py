"""The preview of slots: for the form, and in the terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import calendars
from scheduler.preview import preview
from scheduler.recurrences import Cron, Every, Once, Rule, next_slot

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
PROJECT = Path(__file__).resolve().parent.parent


def at(text: str, zone: ZoneInfo = AMSTERDAM, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).astimezone(UTC)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    """The columns of each line that the command prints."""
    call_command("preview_slots", *arguments)
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


# For the form


def test_a_preview_says_what_is_special_about_each_slot():
    calendar = calendars.read("Freeze", AMSTERDAM, ["2026-03-30"])
    slots = preview(
        Cron("30 2 * * *"),
        anchor=at("2026-01-01 00:00"),
        zone=AMSTERDAM,
        after=at("2026-03-28 02:30"),
        count=3,
        calendar=calendar,
    )
    assert [f"{slot.local:%d %H:%M%z}" for slot in slots] == ["29 03:00+0200", "30 02:30+0200", "31 02:30+0200"]
    assert [slot.marks for slot in slots] == [
        ["DST: the clocks skip 02:30, so it runs at the first instant after the gap"],
        ["blocked by “Freeze”: it will be skipped"],
        [],
    ]
    assert [slot.day_in_words for slot in slots] == ["The clocks are put forward by 1:00 on this day.", "", ""]


def test_a_slot_can_have_two_marks():
    calendar = calendars.read("Sundays", AMSTERDAM, ["sun"])
    (slot,) = preview(
        Every(1, "days"),
        anchor=at("2026-10-24 02:30"),
        zone=AMSTERDAM,
        after=at("2026-10-24 02:30"),
        count=1,
        calendar=calendar,
    )
    assert slot.marks == [
        "DST: the clocks show 02:30 twice, this is the first time",
        "blocked by “Sundays”: it will be skipped",
    ]
    assert slot.day_in_words == "The clocks are put back by 1:00 on this day."


def test_a_preview_ends_with_the_schedule():
    def count(rule: Rule, until: str | None) -> int:
        end = None if until is None else at(until)
        return len(preview(rule, anchor=at("2026-01-01"), zone=AMSTERDAM, after=at("2025-01-01"), count=20, until=end))

    assert count(Every(1, "days"), None) == 20
    assert count(Every(1, "days"), "2026-01-05 00:00") == 5
    assert count(Once(), None) == 1
    assert count(Every(1, "days"), "2025-12-31") == 0


@given(
    st.builds(Every, st.integers(1, 50), st.sampled_from(["minutes", "hours", "days", "months"]))
    | st.sampled_from([Cron("15,45 1,2,3 * * *"), Cron("*/20 * * * *"), Cron("0 0 * * *")]),
    st.sampled_from(["Europe/Amsterdam", "America/Santiago", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["2026-03-28 12:00", "2026-04-04 12:00", "2026-09-05 12:00", "2026-10-03", "2026-10-24 12:00"]),
)
@settings(max_examples=100, deadline=None)
def test_previewed_slots_are_those_that_will_come_and_marks_agree_with_the_clock(
    rule: Rule, name: str, anchor: datetime, after: str
):
    zone = ZoneInfo(name)
    slots = preview(rule, anchor=anchor, zone=zone, after=at(after), count=20)
    expected = at(after)
    for slot in slots:
        following = next_slot(rule, anchor=anchor, zone=zone, after=expected)
        assert slot.at == following
        assert following is not None
        expected = following
        before, wall = slot.local.utcoffset(), slot.local.replace(tzinfo=None)
        assert (slot.which_pass > 0) == (
            any(
                (slot.at + timedelta(minutes=30 * step)).astimezone(zone).replace(tzinfo=None) == wall
                for step in (-4, -3, -2, -1, 1, 2, 3, 4)
            )
        )
        if slot.skipped is not None:
            assert slot.skipped < wall
            assert (slot.at - timedelta(seconds=1)).astimezone(zone).utcoffset() != before
            assert slot.skipped.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != (
                slot.skipped
            )


# In the terminal


def test_each_slot_is_a_line_of_three_columns(capsys: pytest.CaptureFixture[str]):
    lines = shown(
        capsys,
        "--cron=30 2 * * *",
        "--timezone=Europe/Amsterdam",
        "--after=2026-03-28T02:30",
        "--count=2",
    )
    assert lines == [
        [
            "2026-03-29T01:00Z",
            "2026-03-29T03:00+02:00",
            "DST: the clocks skip 02:30, so it runs at the first instant after the gap",
        ],
        ["2026-03-30T00:30Z", "2026-03-30T02:30+02:00", ""],
    ]


def test_slots_are_counted_from_the_anchor(capsys: pytest.CaptureFixture[str]):
    common = ("--every=1", "--unit=months", "--timezone=UTC", "--after=2026-02-10T00:00", "--count=3")
    with_anchor = [line[0] for line in shown(capsys, *common, "--anchor=2026-01-31T09:00")]
    assert with_anchor == ["2026-02-28T09:00Z", "2026-03-31T09:00Z", "2026-04-30T09:00Z"]
    later = [line[0] for line in shown(capsys, *common, "--anchor=2026-03-31T09:00")]
    assert later == ["2026-03-31T09:00Z", "2026-04-30T09:00Z", "2026-05-31T09:00Z"]


def test_without_an_anchor_the_time_after_is_the_anchor_and_not_among_the_slots(capsys: pytest.CaptureFixture[str]):
    lines = shown(
        capsys, "--every=2", "--unit=days", "--timezone=Asia/Kathmandu", "--after=2026-01-01T00:30", "--count=2"
    )
    assert [line[1] for line in lines] == ["2026-01-03T00:30+05:45", "2026-01-05T00:30+05:45"]
    lines = shown(capsys, "--cron=@hourly", "--timezone=UTC", "--after=2026-01-01T00:00", "--count=1")
    assert lines == [["2026-01-01T01:00Z", "2026-01-01T01:00+00:00", ""]]


def test_both_passes_of_an_hour_are_told_apart(capsys: pytest.CaptureFixture[str]):
    lines = shown(
        capsys, "--every=1", "--unit=hours", "--timezone=America/New_York", "--after=2026-11-01T00:30", "--count=3"
    )
    assert [line[1:] for line in lines] == [
        ["2026-11-01T01:30-04:00", "DST: the clocks show 01:30 twice, this is the first time"],
        ["2026-11-01T01:30-05:00", "DST: the clocks show 01:30 twice, this is the second time"],
        ["2026-11-01T02:30-05:00", ""],
    ]


def test_blocked_slots_are_marked(capsys: pytest.CaptureFixture[str]):
    common = ("--every=1", "--unit=days", "--timezone=UTC", "--after=2026-12-23T08:00", "--count=3")
    lines = shown(capsys, *common, "--blocked=12-25", "--blocked=daily 01:00-02:00")
    assert [line[2] for line in lines] == ["", "blocked by “12-25, daily 01:00-02:00”: it will be skipped", ""]


def test_fewer_slots_than_asked_for_are_no_error(capsys: pytest.CaptureFixture[str]):
    lines = shown(capsys, "--every=100", "--unit=years", "--timezone=UTC", "--after=9850-01-01T00:00", "--count=20")
    assert [line[0] for line in lines] == ["9950-01-01T00:00Z"]


GOOD = {"--cron": "0 2 * * *", "--timezone": "Europe/Amsterdam", "--after": "2026-03-28T02:30", "--count": "3"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"--cron": "0 0 31 2 *"}, "never matches: no such month has day 31"),
        ({"--cron": "0 * * * * *"}, "this one has 6"),
        ({"--cron": ""}, "five fields"),
        ({"--cron": "@reboot"}, "@reboot"),
        ({"--cron": None, "--every": "0", "--unit": "minutes"}, "needs a number from 1"),
        ({"--cron": None, "--every": "-1", "--unit": "days"}, "needs a number from 1"),
        ({"--cron": None, "--every": "many", "--unit": "days"}, "whole number, not “many”"),
        ({"--cron": None, "--every": "1", "--unit": "fortnights"}, "Unknown unit “fortnights”"),
        ({"--cron": None, "--every": "1"}, "needs --unit"),
        ({"--unit": "days"}, "--unit goes with --every"),
        ({"--timezone": "Europe/Nowhere"}, "no time zone “Europe/Nowhere”"),
        ({"--timezone": "../../etc/passwd"}, "no time zone"),
        ({"--after": "2026-03-29T02:30"}, "2026-03-29 02:30 does not exist in Europe/Amsterdam"),
        ({"--anchor": "2026-03-29T02:30"}, "2026-03-29 02:30 does not exist in Europe/Amsterdam"),
        ({"--after": "2026-02-30T02:30"}, "--after takes a date and a time"),
        ({"--after": "tomorrow"}, "such as 2026-03-29T04:30, not “tomorrow”"),
        ({"--anchor": ""}, "--anchor takes a date and a time"),
        ({"--count": "0"}, "--count takes a number from 1"),
        ({"--count": "1000000000"}, "--count takes a number from 1"),
        ({"--count": "1.5"}, "--count takes a whole number"),
        ({"--blocked": "someday"}, "“someday” is neither a date"),
    ],
)
def test_bad_input_is_one_sentence(changes: dict[str, str | None], says: str, capsys: pytest.CaptureFixture[str]):
    options = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises(CommandError, match=re.escape(says)) as raised:
        call_command("preview_slots", *(f"{name}={value}" for name, value in options.items()))
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_what_is_missing_is_named(missing: str):
    with pytest.raises(CommandError, match=missing):
        call_command("preview_slots", *(f"{name}={value}" for name, value in GOOD.items() if name != missing))


def test_it_needs_no_database_and_gives_no_traceback():
    """The real process, with a database that cannot be reached."""
    arguments = [f"{name}={value}" for name, value in GOOD.items()]
    command = [sys.executable, "manage.py", "preview_slots", *arguments]
    environment = {"DATABASE_URL": "postgres://nobody@127.0.0.1:1/nothing", "DJANGO_SECRET_KEY": "x" * 60}
    result = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0] == (
        "2026-03-29T01:00Z\t2026-03-29T03:00+02:00\t"
        "DST: the clocks skip 02:00, so it runs at the first instant after the gap"
    )
    bad = subprocess.run([*command, "--anchor=x"], cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert bad.returncode == 1
    assert bad.stdout == ""
    assert re.fullmatch(r"CommandError: .*\.\n", bad.stderr)
