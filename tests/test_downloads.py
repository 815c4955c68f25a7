"""Downloads: the bytes, who gets them, and what a hostile store or request can do."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.sessions.models import Session
from django.urls import reverse
from guardian.shortcuts import assign_perm

from scheduler import outputs
from scheduler.models import AuditEntry, OutputFile, Run, TaskUserObjectPermission
from scheduler.sendfile import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from django.http import HttpResponseBase
    from django.test import Client
    from pytest_django import DjangoAssertNumQueries

    from scheduler.models import Task

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
def nginx(settings: Any) -> None:
    settings.SENDFILE_BACKEND = "django_sendfile.backends.nginx"


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


# What a download costs: session and user, then one query, or three for whoever holds the permission globally


def _by_object(user: User, task: Task) -> None:
    task.grant(user, "view_task", "view_output")


def _by_group(user: User, task: Task) -> None:
    group = Group.objects.create(name="readers")
    user.groups.add(group)
    for codename in ("view_task", "view_output"):
        assign_perm(f"scheduler.{codename}", group, task)


def _task_permissions() -> list[Permission]:
    wanted = ("view_task", "view_output")
    return list(Permission.objects.filter(content_type__app_label="scheduler", codename__in=wanted))


def _globally(user: User, _task: Task) -> None:
    user.user_permissions.add(*_task_permissions())


def _globally_by_group(user: User, _task: Task) -> None:
    group = Group.objects.create(name="all readers")
    user.groups.add(group)
    group.permissions.add(*_task_permissions())


def _as_superuser(user: User, _task: Task) -> None:
    user.is_superuser = True
    user.save()


def _by_object_and_group_and_globally(user: User, task: Task) -> None:
    for give in (_by_object, _by_group, _globally, _globally_by_group):
        give(user, task)


WAYS = [
    (_by_object, 1),
    (_by_group, 1),
    (_by_object_and_group_and_globally, 1),
    (_as_superuser, 1),
    (_globally, 3),
    (_globally_by_group, 3),
]


@pytest.mark.parametrize("backend", ["ours", "nginx"])
@pytest.mark.parametrize("what", ["file", "log"])
@pytest.mark.parametrize(("give", "queries"), WAYS)
def test_each_request_of_a_download_costs_at_most_three_queries_beside_session_and_user(
    client: Client,
    stranger: User,
    file: OutputFile,
    request: pytest.FixtureRequest,
    django_assert_num_queries: DjangoAssertNumQueries,
    give: Callable[[User, Task], None],
    queries: int,
    what: str,
    backend: str,
) -> None:
    if backend == "nginx":
        request.getfixturevalue("nginx")
    outputs.log_path(file.run).write_bytes(BYTES)
    url = file.get_absolute_url() if what == "file" else reverse("scheduler:run-log-download", args=[file.run.pk])
    give(stranger, file.run.task)
    client.force_login(stranger)
    first = client.get(url)  # the first one is written down
    assert (first.status_code, AuditEntry.objects.count()) == (200, 1)
    body(first)
    etag = first.headers.get("ETag", '"none"')
    for method, headers in (
        ("GET", {}),
        ("HEAD", {}),
        ("GET", {"Range": "bytes=5-9"}),
        ("GET", {"Range": f"bytes={len(BYTES)}-"}),
        ("GET", {"If-None-Match": etag}),
        ("GET", {"If-Range": etag, "Range": "bytes=5-9"}),
    ):
        with django_assert_num_queries(2 + queries) as asked:
            body(client.generic(method, url, headers=headers))
        tables = [query["sql"].partition("FROM ")[2].split()[0].strip('"') for query in asked]
        assert tables[:2] == [Session._meta.db_table, User._meta.db_table]


@pytest.mark.parametrize("what", ["file", "log"])
def test_a_refusal_costs_no_more(
    client: Client, stranger: User, file: OutputFile, django_assert_num_queries: DjangoAssertNumQueries, what: str
) -> None:
    client.force_login(stranger)
    url = file.get_absolute_url() if what == "file" else reverse("scheduler:run-log-download", args=[file.run.pk])
    with django_assert_num_queries(2 + 3):
        assert client.get(url).status_code == 404


def test_a_log_may_be_downloaded_only_by_whoever_may_see_the_run_as_well(
    client: Client, stranger: User, file: OutputFile
) -> None:
    outputs.log_path(file.run).write_bytes(b"line")
    url = reverse("scheduler:run-log-download", args=[file.run.pk])
    client.force_login(stranger)
    answers = []
    for codenames in ((), ("view_output",), ("view_task",), ("view_task", "view_output")):
        TaskUserObjectPermission.objects.filter(user=stranger).delete()
        file.run.task.grant(stranger, *codenames)
        response = client.get(url)
        body(response)
        answers.append(response.status_code)
    assert answers == [404, 404, 403, 200]


@pytest.mark.parametrize("number", [0, 2**31, 2**63 - 1, 2**63, 10**30])
def test_no_number_of_a_run_is_too_large_to_be_answered(client: Client, admin: User, number: int) -> None:
    client.force_login(admin)
    response = client.get(reverse("scheduler:run-log-download", args=[number]))
    assert response.status_code == 404


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
    run = make_run()
    response = client.get(reverse("scheduler:run-log-download", args=[run.pk]))
    assert response.status_code == 404
    assert "not in the store any more" in response.text
    assert f'href="{run.get_absolute_url()}"' in response.text
