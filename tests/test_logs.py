"""Logs as people read them: a window at a time, whatever is in them and however long they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.conf import settings
from hypothesis import HealthCheck, given
from hypothesis import settings as checking
from hypothesis import strategies as st

from scheduler import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

GIGABYTE = 1024**3


@pytest.fixture
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file in the store: logs are opened nowhere else."""
    top = Path(settings.SENDFILE_ROOT)
    top.mkdir(parents=True, exist_ok=True)
    path = top / f"log-{tmp_path_factory.mktemp('x').name}"
    path.write_bytes(b"")
    yield path
    path.unlink()


@pytest.fixture
def long_log(log: Path) -> Path:
    """A log of 1 GB, almost all of it a hole that costs no disk: lines at its start, in its middle and at its end."""
    with log.open("r+b") as file:
        file.write(b"first line\n")
        file.seek(GIGABYTE // 2)
        file.write(b"\nin the middle\nValueError: of the middle\n")
        file.seek(GIGABYTE - 100)
        file.write(b"\n" + b"the end".rjust(98) + b"\n")
    return log


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much each read has brought."""
    read: list[int] = []
    pread = os.pread

    def counted(descriptor: int, count: int, offset: int) -> bytes:
        data = pread(descriptor, count, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)
    return read


def texts(window: logs.Window | None) -> list[str]:
    assert window is not None
    return [line.text for line in window.lines]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;window title\x07text", "text"),
        ("\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred", "red"),
        ("\x1b[2Kcleared\x1b[1A", "cleared"),
        ("\x1b(Btext\x1bc", "text"),
        ("bell\x07 nul\x00 backspace\x08", "bell␇ nul␀ backspace␈"),
        ("delete\x7f", "delete␡"),
        ("evil\u202egnp.exe", "evil<U+202E>gnp.exe"),
        ("\u2066isolate\u2069", "<U+2066>isolate<U+2069>"),
        ("line\u2028separator", "line<U+2028>separator"),
        ("\x1b]0;never ended\nhidden?", "0;never ended\nhidden?"),
        ("tab\tnewline\n", "tab\tnewline\n"),
        ("äöü € 𝄞 عربي", "äöü € 𝄞 عربي"),
    ],
)
def test_nothing_acts_on_a_terminal_or_turns_the_text_round(written: str, shown: str) -> None:
    assert logs.printable(written) == shown


@pytest.mark.parametrize(
    ("line", "seen"), [("10 %\r50 %\r100 %", "100 %"), ("done\r", "done"), ("plain", "plain"), ("\r\r", "")]
)
def test_a_carriage_return_overwrites_the_line(line: str, seen: str) -> None:
    assert logs.overwritten(line)[1] == seen


@checking(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text())
def test_printable_text_stays_as_it_is_when_it_is_cleaned_again(text: str) -> None:
    once = logs.printable(text)
    assert logs.printable(once) == once
    assert "\x1b" not in once


# Windows


def test_the_tail_starts_at_a_line_and_knows_where_the_unended_line_starts(log: Path) -> None:
    log.write_bytes(b"".join(b"line %d\n" % number for number in range(1000)) + b"working...")
    tail = logs.tail(log, limit=100)
    assert tail is not None
    assert texts(tail)[0].startswith("line 9")
    assert texts(tail)[-1] == "line 999"
    assert tail.unended is not None
    assert (tail.unended.text, tail.unended.offset) == ("working...", tail.end)
    assert tail.end == tail.size - len("working...")
    assert tail.start == tail.lines[0].offset > 0
    assert tail.is_last


def test_the_tail_of_one_endless_line_is_a_part_of_it_and_is_followed_from_its_end(log: Path) -> None:
    log.write_bytes(b"x" * 1000)
    tail = logs.tail(log, limit=100)
    assert tail == logs.Window([logs.Line(900, b"x" * 100, False, False)], None, 900, 1000, 1000, True)


def test_a_short_log_is_shown_whole(log: Path) -> None:
    log.write_bytes(b"a\n\nb\n")
    lines = [logs.Line(0, b"a"), logs.Line(2, b""), logs.Line(3, b"b")]
    assert logs.tail(log) == logs.Window(lines, None, 0, 5, 5, True)


def test_a_window_has_at_most_so_many_lines(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WINDOW_LINES", 3)
    log.write_bytes(b"1\n2\n3\n4\n5\n")
    assert texts(logs.tail(log)) == ["3", "4", "5"]
    first = logs.after(log, 0, is_over=True)
    assert texts(first) == ["1", "2", "3"]
    assert first is not None
    assert (first.end, first.is_last) == (6, False)


def test_no_log_is_no_error(log: Path) -> None:
    missing = log.with_name("log-that-is-missing")
    assert logs.size(missing) is None
    assert logs.tail(missing) is None
    assert logs.before(missing, 5) is None
    assert logs.after(missing, 0, is_over=True) is None
    assert logs.around(missing, 0, is_over=True) is None
    assert logs.find(missing, "x") is None
    assert logs.find_error(missing) is None


def test_a_log_behind_a_symbolic_link_is_not_read(log: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    link = log.with_name(f"{log.name}-link")
    link.symlink_to(tmp_path / "secret")
    try:
        assert logs.tail(link) is None
        assert logs.after(link, 0, is_over=True) is None
        assert logs.find(link, "secret") is None
    finally:
        link.unlink()


def test_an_unended_line_is_read_anew_when_it_has_grown(log: Path) -> None:
    log.write_bytes("one\ntwo €".encode()[:-1])  # the program has written half a character so far
    window = logs.after(log, 0, is_over=False)
    assert texts(window) == ["one"]
    assert window is not None
    assert window.unended is not None
    assert (window.unended.text, window.end) == ("two ", 4)
    log.write_bytes("one\ntwo €\n".encode())
    assert texts(logs.after(log, window.end, is_over=False)) == ["two €"]


def test_what_never_became_a_character_or_an_escape_is_shown_when_the_log_is_over(log: Path) -> None:
    log.write_bytes(b"a\xe2\x82")
    assert texts(logs.after(log, 0, is_over=True)) == ["a\ufffd"]
    log.write_bytes(b"a\x1b[3")
    assert texts(logs.after(log, 0, is_over=True)) == ["a\x1b[3"]
    window = logs.after(log, 0, is_over=False)
    assert window is not None
    assert window.unended is not None
    assert window.unended.text == "a"


def test_an_offset_behind_the_end_gives_nothing(log: Path) -> None:
    log.write_bytes(b"abc")
    assert logs.after(log, 1000, is_over=True) == logs.Window([], None, 3, 3, 3, True)


def test_the_line_of_a_place_is_found_with_the_lines_before_it(log: Path) -> None:
    log.write_bytes(b"".join(b"line %04d\n" % number for number in range(10_000)))
    window, target = logs.around(log, 54_325, is_over=True, limit=4000) or pytest.fail()
    assert target == 54_320
    assert "line 5432" in texts(window)
    assert 0 < window.start < target - 1000
    assert texts(window)[0] == f"line {window.start // 10:04d}"
    beginning, target = logs.around(log, 15, is_over=True) or pytest.fail()
    assert (beginning.start, target) == (0, 10)
    end, target = logs.around(log, 10**12, is_over=True) or pytest.fail()
    assert (texts(end)[-1], target) == ("line 9999", 99_990)


@checking(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(["text ", "€", "𝄞", "\x1b[1;31m", "\x1b]0;t\x07", "\n", "\r", "\x1bc"])),
    st.integers(min_value=16, max_value=40),
)
def test_windows_of_any_size_have_every_byte_once(pieces: list[str], limit: int) -> None:
    path = Path(settings.SENDFILE_ROOT) / "log-of-windows"
    path.parent.mkdir(parents=True, exist_ok=True)
    written = "".join(pieces).encode()
    path.write_bytes(written)
    try:
        offset, seen = 0, b""
        while offset < len(written):
            window = logs.after(path, offset, is_over=True, limit=limit)
            assert window is not None
            assert window.end > offset
            for line in window.lines:
                assert line.offset == len(seen)
                seen += line.data + b"\n" * line.is_end
            offset = window.end
        assert seen == written
    finally:
        path.unlink()


# A log of 1 GB


def test_any_place_of_a_long_log_is_shown_for_a_few_bytes_read(long_log: Path, bytes_read: list[int]) -> None:
    assert texts(logs.tail(long_log)) == ["the end".rjust(98)]
    assert texts(logs.after(long_log, 0, is_over=True)) == ["first line"]
    window, target = logs.around(long_log, GIGABYTE // 2 + 3, is_over=True) or pytest.fail()
    assert [line.text for line in window.lines if line.offset == target] == ["in the middle"]
    assert texts(logs.before(long_log, GIGABYTE // 2 + 15))[-1] == "in the middle"
    assert sum(bytes_read) < 5 * 2 * logs.WINDOW_BYTES


def test_a_line_of_half_a_gigabyte_is_shown_in_parts(long_log: Path, bytes_read: list[int]) -> None:
    window, target = logs.around(long_log, GIGABYTE // 4, is_over=True) or pytest.fail()
    assert (window.start, target) == (GIGABYTE // 4, GIGABYTE // 4)
    assert [(len(line.data), line.is_start, line.is_end) for line in window.lines] == [(65_536, False, False)]
    assert window.end == GIGABYTE // 4 + 65_536
    assert sum(bytes_read) < 3 * logs.WINDOW_BYTES


def test_a_search_stops_at_its_budget_and_says_where_to_look_on(long_log: Path, bytes_read: list[int]) -> None:
    budget = 8 * 1024**2
    search = logs.find(long_log, "the middle", limit=budget) or pytest.fail()
    assert search.matches == []
    assert search.next_offset is not None
    assert budget <= search.next_offset < budget + logs.SEARCH_CHUNK
    assert sum(bytes_read) < budget + 2 * logs.SEARCH_CHUNK
    assert max(bytes_read) <= logs.SEARCH_CHUNK


def test_a_search_finds_what_lies_across_its_chunks(long_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = GIGABYTE // 2 - 1000
    for chunk in range(1005, 1015):  # "the middle" begins 4 bytes behind the 1001st
        monkeypatch.setattr(logs, "SEARCH_CHUNK", chunk)
        search = logs.find(long_log, "the middle", start, limit=5000) or pytest.fail()
        assert [(match.before, match.found) for match in search.matches] == [
            ("in ", "the middle"),
            ("ValueError: of ", "the middle"),
        ]


# Searching


def test_a_search_names_each_line_once_and_does_not_care_for_capitals(log: Path) -> None:
    log.write_bytes("Disk FULL on disk 3\nnothing\nÄ disk €\r\n".encode())
    search = logs.find(log, "disk") or pytest.fail()
    assert search.matches == [
        logs.Match(0, "", "Disk", " FULL on disk 3"),
        logs.Match(31, "Ä ", "disk", " €\r"),
    ]
    assert search.next_offset is None
    assert [match.found for match in (logs.find(log, "Ä") or pytest.fail()).matches] == ["Ä"]


def test_a_search_with_many_matches_goes_on_behind_the_last(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MATCHES_AT_MOST", 2)
    log.write_bytes(b"a 1\na 2\na 3\n")
    first = logs.find(log, "a") or pytest.fail()
    assert [match.behind for match in first.matches] == [" 1", " 2"]
    assert first.next_offset is not None
    second = logs.find(log, "a", first.next_offset) or pytest.fail()
    assert ([match.behind for match in second.matches], second.next_offset) == ([" 3"], None)


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        "ValueError: no",
        "[ERROR] disk",
        "level=critical",
        "fatal: not a repository",
        "error",
    ],
)
def test_the_first_error_is_a_line_with_a_word_of_errors(log: Path, line: str) -> None:
    log.write_bytes(f"0 errors, error_count=0\nfine\n{line}\nmore\n".encode())
    search = logs.find_error(log) or pytest.fail()
    window, target = logs.around(log, search.matches[0].offset, is_over=True) or pytest.fail()
    assert [each.text for each in window.lines if each.offset == target] == [line]
    assert search.next_offset is not None
    assert (logs.find_error(log, search.next_offset) or pytest.fail()).matches == []


def test_a_log_without_an_error_has_none(log: Path) -> None:
    log.write_bytes(b"0 errors, error_count=0, errored\n" * 3)
    assert logs.find_error(log) == logs.Search([], None, log.stat().st_size)
