"""What a task may write into its reports: read by the poller, which must neither fail, wait nor read without end."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from scheduler.poller import reports
from scheduler.poller.reports import read_reports

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 30_000,
        b'{"message": ' * 3000,
        b'{"progress": ' + b"9" * 5000 + b"}",
        b'{"progress": 1e999}',
        b'{"progress": NaN, "total": Infinity}',
        b'{"progress": true}',
        b'{"message": {"a": 1}}',
        b'{"message": ["a"]}',
        b"null",
        b"\xff\xfe\x00",
        b'"message"',
        b"",
        b'{"message": "' + b"x" * reports.LINE_BYTES + b'"}',
    ],
    ids=lambda line: line[:20].decode(errors="replace"),
)
def test_a_line_that_makes_no_sense_is_passed_over_and_the_next_one_is_read(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "reports.jsonl"
    path.write_bytes(line + b'\n{"message": "next", "progress": 1}\n')
    found = read_reports(str(path), 0)
    assert found.messages == ["next"]
    assert found.progress is not None
    assert found.progress["progress_done"] == 1
    assert found.offset == path.stat().st_size


def test_what_no_database_can_hold_is_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "reports.jsonl"
    path.write_text(
        json.dumps({"message": "a\0b\ud800" + "c" * 20_000, "progress": 1, "label": "\0\udfff" * 300}) + "\n"
    )
    found = read_reports(str(path), 0)
    assert found.messages[0].startswith("ab?ccc")
    assert len(found.messages[0]) == reports.MESSAGE_CHARACTERS
    assert found.progress is not None
    assert found.progress["progress_label"] == "?" * reports.LABEL_CHARACTERS


def test_a_flood_is_read_a_part_a_round_and_then_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "ALL_BYTES", 3 * reports.ROUND_BYTES)
    path = tmp_path / "reports.jsonl"
    path.write_bytes(b'{"message": "x"}\n' * (5 * reports.ROUND_BYTES // 17))
    offset, rounds, dropping = 0, 0, False
    while not dropping:
        found = read_reports(str(path), offset)
        assert 0 < found.offset - offset <= reports.ROUND_BYTES
        offset, rounds, dropping = found.offset, rounds + 1, found.is_dropping
    assert rounds == 4
    assert read_reports(str(path), offset).offset == offset
    assert not read_reports(str(path), offset).messages


def test_a_line_without_an_end_is_not_kept_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "reports.jsonl"
    path.write_bytes(b"x" * (2 * reports.ROUND_BYTES) + b'\n{"message": "next"}\n')
    first = read_reports(str(path), 0)
    assert (first.offset, first.messages, first.is_partial) == (reports.ROUND_BYTES, [], True)
    second = read_reports(str(path), first.offset)
    assert read_reports(str(path), second.offset).messages == ["next"]


def test_a_link_a_fifo_and_a_folder_in_place_of_the_reports_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('{"message": "secret"}\n')
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="symbolic links"):
        read_reports(str(tmp_path / "link"), 0)
    for name in ("fifo", "folder"):
        assert read_reports(str(tmp_path / name), 0).messages == []
