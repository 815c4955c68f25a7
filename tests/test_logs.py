"""Logs as people read them: a part at a time, with nothing in them that acts."""

from __future__ import annotations

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


@pytest.fixture
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file in the store: logs are opened nowhere else."""
    top = Path(settings.SENDFILE_ROOT)
    top.mkdir(parents=True, exist_ok=True)
    path = top / f"log-{tmp_path_factory.mktemp('x').name}"
    path.write_bytes(b"")
    yield path
    path.unlink()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;window title\x07text", "text"),
        ("\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred", "red"),
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


def test_a_carriage_return_overwrites_the_line() -> None:
    assert logs.overwrite("10 %\r50 %\r100 %\ndone\r\nnext\r") == "100 %\ndone\nnext"


@checking(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text())
def test_printable_text_stays_as_it_is_when_it_is_cleaned_again(text: str) -> None:
    once = logs.printable(text)
    assert logs.printable(once) == once
    assert "\x1b" not in once


def test_the_tail_starts_at_a_line_and_knows_where_the_unended_line_starts(log: Path) -> None:
    log.write_bytes(b"".join(b"line %d\n" % number for number in range(1000)) + b"working...")
    tail = logs.read_tail(log, 100)
    assert tail is not None
    assert tail.cut
    assert tail.lines.startswith("line 9")
    assert tail.lines.endswith("line 999\n")
    assert tail.unended == "working..."
    assert tail.offset == tail.size - len("working...")


def test_the_tail_of_one_endless_line_is_shown_and_followed_from_its_end(log: Path) -> None:
    log.write_bytes(b"x" * 1000)
    tail = logs.read_tail(log, 100)
    assert tail == logs.Tail("x" * 100, "", 1000, 1000, True)


def test_a_short_log_is_shown_whole(log: Path) -> None:
    log.write_bytes(b"a\nb\n")
    assert logs.read_tail(log) == logs.Tail("a\nb\n", "", 4, 4, False)


def test_no_log_is_no_error(log: Path) -> None:
    missing = log.with_name("log-that-is-missing")
    assert logs.read_tail(missing) is None
    assert logs.read_part(missing, 0, ended=True) is None


def test_a_log_behind_a_symbolic_link_is_not_read(log: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    link = log.with_name(f"{log.name}-link")
    link.symlink_to(tmp_path / "secret")
    try:
        assert logs.read_tail(link) is None
        assert logs.read_part(link, 0, ended=True) is None
    finally:
        link.unlink()


def test_a_character_is_not_cut_at_the_end_of_a_part(log: Path) -> None:
    log.write_bytes("a€".encode()[:-1])  # the program has written half a character so far
    assert logs.read_part(log, 0, ended=False) == logs.Part("a", 1, 3)
    log.write_bytes("a€".encode())
    assert logs.read_part(log, 1, ended=False) == logs.Part("€", 4, 4)


def test_what_never_became_a_character_is_shown_when_the_log_is_over(log: Path) -> None:
    log.write_bytes(b"a\xe2\x82")
    assert logs.read_part(log, 0, ended=True) == logs.Part("a\ufffd", 3, 3)


def test_an_escape_sequence_is_not_cut_at_the_end_of_a_part(log: Path) -> None:
    log.write_bytes(b"a\x1b[3")
    assert logs.read_part(log, 0, ended=False) == logs.Part("a", 1, 4)
    log.write_bytes(b"a\x1b[31mred")
    assert logs.read_part(log, 1, ended=False) == logs.Part("red", 9, 9)


def test_an_offset_behind_the_end_gives_nothing(log: Path) -> None:
    log.write_bytes(b"abc")
    assert logs.read_part(log, 1000, ended=True) == logs.Part("", 1000, 3)


@checking(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(["text ", "€", "𝄞", "\x1b[1;31m", "\x1b]0;t\x07", "\n", "\r", "\x1bc"])),
    st.integers(min_value=8, max_value=20),
)
def test_parts_of_any_size_make_the_same_text_as_the_whole(pieces: list[str], limit: int) -> None:
    path = Path(settings.SENDFILE_ROOT) / "log-of-parts"
    path.parent.mkdir(parents=True, exist_ok=True)
    written = "".join(pieces)
    path.write_bytes(written.encode())
    try:
        offset, size, shown = 0, len(written.encode()), ""
        while offset < size:
            part = logs.read_part(path, offset, ended=True, limit=limit)
            assert part is not None
            assert part.offset > offset
            offset, shown = part.offset, shown + part.text
        assert shown == logs.printable(written)
    finally:
        path.unlink()
