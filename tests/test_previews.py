"""Looking at a file without a download: what is shown, and that nothing of it runs."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import pytest
from django.urls import reverse

from scheduler import outputs, pictures, previews
from scheduler.models import AuditEntry, OutputFile, Run
from scheduler.pictures import Picture, recognise
from scheduler.sendfile import send

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client, RequestFactory

    MakeFile = Callable[[str, bytes], OutputFile]

pytestmark = pytest.mark.django_db


def png(width: int = 3, height: int = 2) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\xff\0\0" * min(width, 10)) * min(height, 10))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


GIF = b"GIF89a\x03\x00\x02\x00\x00\x00\x00;"
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF" + b"\0" * 10 + b"\xff\xff\xc2\x00\x11\x08\x00\x02\x00\x03\x03" + b"\0" * 9
WEBP = {
    "lossy": b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x03\x00\x02\x00",
    "lossless": b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", 2 | 1 << 14),
    "extended": b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0\x02\0\0\x01\0\0",
}


@pytest.mark.parametrize(
    ("head", "content_type"),
    [(png(), "image/png"), (GIF, "image/gif"), (JPEG, "image/jpeg"), *[(each, "image/webp") for each in WEBP.values()]],
)
def test_a_picture_is_recognised_by_its_first_bytes(head: bytes, content_type: str) -> None:
    assert recognise(head) == Picture(content_type, 3, 2)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"<!DOCTYPE html><script>alert(1)</script>",
        b"%PDF-1.7",
        b"\x89PNG\r\n\x1a\n<script>",
        b"GIF89a",
        b"GIF89a\0\0\0\0",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff" + b"\xff" * 50,
        b"\xff\xd8\xff\xe0\x00\x00" * 10,
        b"RIFF\0\0\0\0WEBPVP8X",
        b"RIFF\0\0\0\0WAVE",
        b"BM" + b"\0" * 60,
        b"\0\0\x01\0\x01\0" + b"\0" * 60,
    ],
)
def test_nothing_else_is_a_picture(head: bytes) -> None:
    assert recognise(head) is None


@pytest.fixture
def make_file(make_run: Callable[..., Run]) -> MakeFile:
    """Makes a file of a run, as a supervisor would have collected it."""
    run = make_run()

    def make(name: str, content: bytes) -> OutputFile:
        file = OutputFile.objects.create(run=run, name=name, size=len(content), sha256="0" * 64, created_at=run.due_at)
        path = outputs.file_path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return file

    return make


@pytest.fixture
def client(client: Client, owner: User) -> Client:
    client.force_login(owner)
    return client


def page_of(client: Client, file: OutputFile) -> str:
    answer = client.get(reverse("scheduler:file-preview", args=[file.pk]))
    assert answer.status_code == 200
    return answer.text


def test_a_picture_is_shown_by_its_own_address_and_can_do_nothing_there(client: Client, make_file: MakeFile) -> None:
    file = make_file("chart.html", png())  # a name counts for nothing
    page = page_of(client, file)
    url = reverse("scheduler:file-picture", args=[file.pk])
    assert f'<img src="{url}" width="3" height="2" alt="chart.html">' in page
    answer = client.get(url)
    assert b"".join(answer) == png()
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"] == 'inline; filename="chart.html"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer.headers["Cache-Control"] == "private, no-store"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("evil.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(2)</script></svg>"),
        ("evil.html", b"<!DOCTYPE html><script>alert(1)</script>"),
        ("evil.png", b"<html><script>alert(1)</script>"),
        ("evil.js", b"alert(1)"),
        ("evil.pdf", b"%PDF-1.7\n<script>alert(1)</script>"),
    ],
)
def test_what_could_run_is_shown_as_its_source_and_never_by_itself(
    client: Client, make_file: MakeFile, name: str, content: bytes
) -> None:
    file = make_file(name, content)
    page = page_of(client, file)
    assert "<script>alert" not in page
    assert "<svg xmlns='" not in page
    assert "alert(1)" in page
    assert "<img src" not in page
    picture = client.get(reverse("scheduler:file-picture", args=[file.pk]))
    assert picture.status_code == 404
    assert not picture.headers["Content-Type"].startswith("image/")


def test_no_other_type_can_be_asked_for(rf: RequestFactory, make_file: MakeFile) -> None:
    file = make_file("a.svg", b"<svg/>")
    for content_type in ("image/svg+xml", "text/html", "text/plain", "application/pdf"):
        with pytest.raises(ValueError, match="never shown"):
            send(rf.get("/"), outputs.file_path(file), name=file.name, shown_as=content_type)


@pytest.mark.parametrize("content", [png(10_000, 10_000), GIF[:6] + b"\xff\xff\xff\xff" + GIF[10:]])
def test_a_picture_that_would_fill_the_memory_is_not_shown(client: Client, make_file: MakeFile, content: bytes) -> None:
    assert len(content) < 10_000
    file = make_file("bomb.png", content)
    assert "too large to be shown here" in page_of(client, file)
    assert client.get(reverse("scheduler:file-picture", args=[file.pk])).status_code == 404


def test_a_file_of_too_many_bytes_is_no_picture_to_show(
    client: Client, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "PICTURE_BYTES", 10)
    assert "too large to be shown here" in page_of(client, make_file("a.png", png()))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_table_is_shown_with_its_first_rows(
    client: Client, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch, separator: str
) -> None:
    monkeypatch.setattr(previews, "ROWS_AT_MOST", 3)
    rows = [["name", "note"], ["<b>", "a\x1b[31m\u202e"], ['"two\nlines"', "=1+1"], ["3", ""], ["4", ""], ["5", ""]]
    text = "\ufeff" + "\r\n".join(separator.join(row) for row in rows)
    page = page_of(client, make_file("table.CSV", text.encode()))
    assert '<th scope="col">name</th><th scope="col">note</th>' in page
    assert "<td>&lt;b&gt;</td><td>a&lt;U+202E&gt;</td>" in page
    assert "<td>two\u240alines</td>" in page
    assert "<td>3</td>" in page
    assert "<td>4</td>" not in page
    assert "Only the first rows are shown" in page


def test_a_text_is_shown_as_far_as_a_page_can_hold_it(client: Client, make_file: MakeFile) -> None:
    page = page_of(
        client, make_file("a.txt", "grüße\r\n".encode() + b"a line that is long enough \xff\n" * 5000 + b"the end")
    )
    assert "grüße\n" in page
    assert "long enough \ufffd\n" in page
    assert "the end" not in page
    assert "Only the beginning is shown" in page
    assert len(page) < 2 * previews.TEXT_BYTES


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "The file is empty."),
        (b"PK\x03\x04\0\0", "neither a text nor a picture"),
        (bytes(range(128, 256)), "neither a text nor a picture"),
    ],
)
def test_what_cannot_be_shown_is_told(client: Client, make_file: MakeFile, content: bytes, words: str) -> None:
    assert words in page_of(client, make_file("a.bin", content))


def test_a_file_that_is_gone_is_told(client: Client, make_file: MakeFile) -> None:
    file = make_file("a.txt", b"x")
    outputs.file_path(file).unlink()
    assert "not in the store any more" in page_of(client, file)
    assert client.get(reverse("scheduler:file-picture", args=[file.pk])).status_code == 404


def test_a_link_in_the_store_is_not_looked_into(client: Client, make_file: MakeFile, tmp_path: object) -> None:
    file = make_file("a.png", b"x")
    path = outputs.file_path(file)
    secret = path.with_name("secret")
    secret.write_bytes(png())
    path.unlink()
    path.symlink_to(secret)
    assert "not in the store any more" in page_of(client, file)
    assert client.get(reverse("scheduler:file-picture", args=[file.pk])).status_code == 404


def test_a_look_at_a_file_is_in_the_audit_once(client: Client, make_file: MakeFile) -> None:
    file = make_file("a.png", png())
    for _ in range(2):
        page_of(client, file)
        assert b"".join(client.get(reverse("scheduler:file-picture", args=[file.pk]))) == png()
    assert AuditEntry.objects.filter(action="download", object_name="a.png").count() == 1


def test_a_picture_says_when_it_is_too_large() -> None:
    assert Picture("image/png", 8000, 5001).is_too_large
    assert not Picture("image/png", 8000, 5000).is_too_large
    assert pictures.PIXELS_AT_MOST == 40_000_000
