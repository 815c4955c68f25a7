"""Downloads: the bytes, who gets them, and what a hostile store or request can do."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.sessions.models import Session
from django.urls import reverse
from django_sendfile.utils import _get_sendfile

from scheduler import outputs
from scheduler.models import OutputFile, Run, TaskUserObjectPermission
from scheduler.sendfile import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from django.contrib.auth.models import User
    from django.http import HttpResponseBase
    from django.test import Client
    from pytest_django import DjangoAssertNumQueries

pytestmark = pytest.mark.django_db

BYTES = bytes(range(256)) * 600  # more than two chunks
assert len(BYTES) > 2 * CHUNK_BYTES


def store(run: Run, content: bytes = BYTES, name: str = "report.csv") -> OutputFile:
    file = OutputFile.objects.create(run=run, name=name, size=len(content), sha256="0" * 64, created_at=run.due_at)
    path = outputs.file_path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return file


def body(response: HttpResponseBase) -> bytes:
    return b"".join(response) if response.streaming else response.content  # type: ignore[attr-defined]


@pytest.fixture
def file(make_run: Callable[..., Run]) -> OutputFile:
    return store(make_run())


@pytest.fixture
def url(file: OutputFile) -> str:
    return file.get_absolute_url()


@pytest.fixture
def client(client: Client, reader: User) -> Client:
    """A browser in which the reader is logged in."""
    client.force_login(reader)
    return client


@pytest.fixture
def nginx(settings: Any) -> Iterator[None]:
    settings.SENDFILE_BACKEND = "django_sendfile.backends.nginx"
    _get_sendfile.cache_clear()
    yield
    _get_sendfile.cache_clear()


def test_the_bytes_are_those_of_the_file(client: Client, url: str) -> None:
    response = client.get(url)
    assert response.streaming
    assert body(response) == BYTES
    assert response.headers["Content-Length"] == str(len(BYTES))
    assert response.headers["Accept-Ranges"] == "bytes"


def test_a_download_is_an_attachment_that_no_browser_opens_or_keeps(client: Client, url: str) -> None:
    headers = client.head(url).headers
    assert headers["Content-Disposition"] == 'attachment; filename="report.csv"'
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "private, no-store"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"


def test_a_compressed_file_arrives_compressed(client: Client, make_run: Callable[..., Run]) -> None:
    packed = gzip.compress(b"x" * 1000)
    response = client.get(store(make_run(), packed, "dump.sql.gz").get_absolute_url())
    assert "Content-Encoding" not in response.headers
    assert body(response) == packed


def test_head_has_the_headers_and_no_body(client: Client, url: str) -> None:
    response = client.head(url)
    assert body(response) == b""
    assert response.headers["Content-Length"] == str(len(BYTES))


def test_an_empty_file_is_a_file(client: Client, make_run: Callable[..., Run]) -> None:
    response = client.get(store(make_run(), b"").get_absolute_url())
    assert (response.status_code, body(response), response.headers["Content-Length"]) == (200, b"", "0")


# Ranges


@pytest.mark.parametrize(
    ("asked", "first", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=70000-140000", 70_000, 140_001),
        ("bytes=1000-", 1000, len(BYTES)),
        ("bytes=-500", len(BYTES) - 500, len(BYTES)),
        ("bytes=10-99999999999", 10, len(BYTES)),
        ("bytes=-99999999999", 0, len(BYTES)),
        ("BYTES = 5 - 6", 5, 7),
    ],
)
def test_a_range_is_exactly_its_bytes(client: Client, url: str, asked: str, first: int, stop: int) -> None:
    response = client.get(url, headers={"Range": asked})
    assert response.status_code == 206
    assert response.headers["Content-Range"] == f"bytes {first}-{stop - 1}/{len(BYTES)}"
    assert response.headers["Content-Length"] == str(stop - first)
    assert body(response) == BYTES[first:stop]


@pytest.mark.parametrize("asked", [f"bytes={len(BYTES)}-", "bytes=999999999-9999999999", "bytes=-0"])
def test_a_range_that_is_not_there_is_refused(client: Client, url: str, asked: str) -> None:
    response = client.get(url, headers={"Range": asked})
    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{len(BYTES)}"
    assert body(response) == b""


@pytest.mark.parametrize(
    "asked",
    ["bytes=5-2", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=" + "9" * 5000 + "-", "bytes=٣-٤"],
)
def test_a_range_that_is_not_understood_is_ignored(client: Client, url: str, asked: str) -> None:
    response = client.get(url, headers={"Range": asked})
    assert response.status_code == 200
    assert body(response) == BYTES


def test_head_ignores_a_range(client: Client, url: str) -> None:
    response = client.head(url, headers={"Range": "bytes=0-9"})
    assert (response.status_code, response.headers["Content-Length"]) == (200, str(len(BYTES)))


def test_a_resumed_download_is_whole_again_if_the_file_has_changed(client: Client, url: str) -> None:
    first = client.head(url).headers
    for holds in (first["ETag"], first["Last-Modified"]):
        response = client.get(url, headers={"Range": "bytes=0-9", "If-Range": holds})
        assert (response.status_code, body(response)) == (206, BYTES[:10])
    for changed in ('"other"', f"W/{first['ETag']}", "Mon, 01 Jan 2001 00:00:00 GMT", "nonsense"):
        response = client.get(url, headers={"Range": "bytes=0-9", "If-Range": changed})
        assert (response.status_code, body(response)) == (200, BYTES)


def test_what_the_browser_has_is_not_sent_again(client: Client, url: str) -> None:
    first = client.head(url).headers
    assert client.get(url, headers={"If-None-Match": first["ETag"]}).status_code == 304
    assert client.get(url, headers={"If-Modified-Since": first["Last-Modified"]}).status_code == 304
    assert client.get(url, headers={"If-Match": '"other"'}).status_code == 412


# Permissions


def test_a_revoked_permission_counts_between_two_ranges(client: Client, url: str, reader: User) -> None:
    assert body(client.get(url, headers={"Range": "bytes=0-9"})) == BYTES[:10]
    TaskUserObjectPermission.objects.filter(user=reader).delete()
    for response in (client.get(url, headers={"Range": "bytes=10-19"}), client.get(url), client.head(url)):
        assert response.status_code == 404
        assert not response.streaming


def test_it_costs_at_most_three_queries_beside_session_and_user(
    client: Client, url: str, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    body(client.get(url))  # the first one is written down
    with django_assert_max_num_queries(5) as queries:
        body(client.get(url))
    assert Session._meta.db_table in queries[0]["sql"]


def test_an_anonymous_visitor_comes_back_to_the_file_by_the_log_in_page(client: Client, url: str, reader: User) -> None:
    reader.set_password("a long secret")
    reader.save()
    client.logout()
    redirect = client.get(url)
    assert redirect.headers["Location"] == f"/accounts/login/?next={url}"
    page = redirect.headers["Location"]
    after = client.post(page, {"username": "reader", "password": "a long secret", "next": url})
    assert after.headers["Location"] == url
    assert body(client.get(url)) == BYTES


# A hostile store, hostile names


def _symlink(path: Path, secret: Path) -> None:
    path.unlink()
    path.symlink_to(secret)


def _hard_link(path: Path, secret: Path) -> None:
    path.unlink()
    os.link(secret, path)


def _fifo(path: Path, _secret: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path, _secret: Path) -> None:
    path.unlink()
    path.mkdir()


def _missing(path: Path, _secret: Path) -> None:
    path.unlink()


def _symlinked_folder(path: Path, secret: Path) -> None:
    os.rename(path.parent, secret.parent / path.parent.name)
    path.parent.symlink_to(secret.parent / path.parent.name)


@pytest.mark.parametrize("backend", ["ours", "nginx"])
@pytest.mark.parametrize("spoil", [_symlink, _hard_link, _fifo, _folder, _missing, _symlinked_folder])
def test_only_a_regular_file_of_the_store_is_sent(
    client: Client, file: OutputFile, request: pytest.FixtureRequest, spoil: Callable[..., None], backend: str
) -> None:
    if backend == "nginx":
        request.getfixturevalue("nginx")
    path = outputs.file_path(file)
    secret = path.parent.parent / f"secret-{file.pk}"  # on the same file system, as hard links need it
    secret.mkdir()
    (secret / "key").write_bytes(b"secret")
    spoil(path, secret / "key")
    response = client.get(file.get_absolute_url())
    assert response.status_code == 404
    assert "X-Accel-Redirect" not in response.headers
    assert "not in the store any more" in response.text
    assert "secret" not in response.text
    assert str(path.parent) not in response.text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ('a"b;c.csv', 'attachment; filename="a\\"b;c.csv"'),
        ("évaluation €.csv", "attachment; filename*=utf-8''%C3%A9valuation%20%E2%82%AC.csv"),
        ("x\r\nSet-Cookie: a=b.csv", 'attachment; filename="x__Set-Cookie: a=b.csv"'),
        ("../../etc/passwd", 'attachment; filename="_.._etc_passwd"'),
        ("gnp\u202efdp.exe", 'attachment; filename="gnp_fdp.exe"'),
        ("..", 'attachment; filename="file"'),
        ("<script>.html", 'attachment; filename="<script>.html"'),
    ],
)
@pytest.mark.parametrize("backend", ["ours", "nginx"])
def test_a_name_is_only_a_name(
    client: Client, make_run: Callable[..., Run], request: pytest.FixtureRequest, name: str, shown: str, backend: str
) -> None:
    if backend == "nginx":
        request.getfixturevalue("nginx")
    headers = client.head(store(make_run(), b"x", name).get_absolute_url()).headers
    assert headers["Content-Disposition"] == shown
    assert "Set-Cookie" not in headers


def test_behind_nginx_the_answer_names_the_file_in_the_internal_location(
    client: Client, file: OutputFile, nginx: None
) -> None:
    response = client.get(file.get_absolute_url())
    assert response.headers["X-Accel-Redirect"] == f"/protected/{file.run.uuid}/{file.pk}"
    assert response.headers["Cache-Control"] == "private, no-store"
    assert response.headers["Content-Disposition"] == 'attachment; filename="report.csv"'
    assert response.headers["Content-Length"] == "0"
    assert "Content-Encoding" not in response.headers


def test_a_file_that_is_cut_while_it_is_sent_ends_early(client: Client, file: OutputFile) -> None:
    response = client.get(file.get_absolute_url())
    os.truncate(outputs.file_path(file), 100)
    assert body(response) == BYTES[:100]


# The log


def test_a_log_is_downloaded_as_it_was_written(client: Client, owner: User, make_run: Callable[..., Run]) -> None:
    run = make_run()
    path = outputs.log_path(run)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x1b[31mred\x00\xff\n")
    client.force_login(owner)
    response = client.get(reverse("scheduler:run-log-download", args=[run.pk]))
    assert body(response) == b"\x1b[31mred\x00\xff\n"
    assert response.headers["Content-Disposition"] == f'attachment; filename="nightly-report-{run.pk}.log"'


def test_a_log_that_is_gone_is_told_in_a_sentence(client: Client, owner: User, make_run: Callable[..., Run]) -> None:
    client.force_login(owner)
    response = client.get(reverse("scheduler:run-log-download", args=[make_run().pk]))
    assert response.status_code == 404
    assert "not in the store any more" in response.text
