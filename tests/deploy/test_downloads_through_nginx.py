"""Downloads as people get them: gunicorn decides, nginx sends; byte by byte, and never to the wrong person."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import uuid
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from django.utils import timezone

from scheduler import outputs
from scheduler.models import OutputFile
from scheduler.models.permissions import TaskUserObjectPermission

from .conftest import log_of, session_of
from .site import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User

    from scheduler.models import Run, Task

    from .site import Site

pytestmark = pytest.mark.processes

CONTENT = bytes(range(256)) * 4096 + b"the end"


@pytest.fixture
def make_file(whole_site: Site, make_run: Callable[..., Run]) -> Callable[..., OutputFile]:
    """A collected file, in its row and in the store, as the supervisor leaves it."""

    def make(content: bytes = CONTENT, name: str = "report.csv") -> OutputFile:
        run = make_run()
        digest = hashlib.sha256(content).hexdigest()
        row = OutputFile(
            id=uuid.uuid4(), run=run, name=name, size=len(content), sha256=digest, created_at=timezone.now()
        )
        path = outputs.file_path(row)
        path.parent.mkdir(mode=0o2750)
        path.write_bytes(content)
        path.chmod(0o640)
        row.save()
        return row

    return make


def test_a_download_is_the_file_byte_by_byte_with_every_header(
    whole_site: Site, make_file: Callable[..., OutputFile], reader: User
) -> None:
    file = make_file()
    answer = whole_site.request(file.get_absolute_url(), cookie=session_of(reader))
    assert (answer.status, answer.body == CONTENT) == (200, True)
    assert answer["Content-Length"] == str(len(CONTENT))
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"] == 'attachment; filename="report.csv"'
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["Cache-Control"] == "private, no-store"
    assert answer["Accept-Ranges"] == "bytes"
    assert answer["Strict-Transport-Security"] == "max-age=31536000"
    assert not answer.has("X-Accel-Redirect")
    assert not answer.has("Content-Encoding")


def test_a_picture_that_is_shown_keeps_its_type_and_every_header(
    whole_site: Site, make_file: Callable[..., OutputFile], reader: User
) -> None:
    picture = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;<script>alert(1)</script>"
    file = make_file(picture, name="chart.html")
    answer = whole_site.request(f"{file.get_absolute_url()}picture/", cookie=session_of(reader))
    assert (answer.status, answer.body) == (200, picture)
    assert answer["Content-Type"] == "image/gif"
    assert answer["Content-Disposition"] == 'inline; filename="chart.html"'
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer["Cache-Control"] == "private, no-store"
    other = make_file(b"<svg xmlns='http://www.w3.org/2000/svg'/>", name="chart.gif")
    assert whole_site.request(f"{other.get_absolute_url()}picture/", cookie=session_of(reader)).status == 404


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", CONTENT[:1]),
        ("bytes=1000-1999", CONTENT[1000:2000]),
        ("bytes=1048570-", CONTENT[1048570:]),
        ("bytes=-7", b"the end"),
    ],
)
def test_a_part_is_that_part(
    whole_site: Site, make_file: Callable[..., OutputFile], reader: User, asked: str, part: bytes
) -> None:
    answer = whole_site.request(make_file().get_absolute_url(), cookie=session_of(reader), range=asked)
    assert (answer.status, answer.body) == (206, part)
    assert answer["Content-Range"].endswith(f"/{len(CONTENT)}")
    assert answer["Content-Security-Policy"] == "default-src 'none'; sandbox"


def test_a_part_that_is_not_there_is_416_and_a_changed_file_is_sent_whole(
    whole_site: Site, make_file: Callable[..., OutputFile], reader: User
) -> None:
    path, cookie = make_file().get_absolute_url(), session_of(reader)
    assert whole_site.request(path, cookie=cookie, range=f"bytes={len(CONTENT)}-").status == 416
    assert whole_site.request(path, cookie=cookie, range="bytes=0-9", if_range='"another"').body == CONTENT


def test_head_tells_the_size_and_sends_nothing(
    whole_site: Site, make_file: Callable[..., OutputFile], reader: User
) -> None:
    answer = whole_site.request(make_file().get_absolute_url(), "HEAD", cookie=session_of(reader))
    assert (answer.status, answer.body) == (200, b"")
    assert answer["Content-Length"] == str(len(CONTENT))
    assert answer["X-Content-Type-Options"] == "nosniff"


def test_a_revoked_permission_stops_the_next_part(
    whole_site: Site, make_file: Callable[..., OutputFile], reader: User
) -> None:
    path, cookie = make_file().get_absolute_url(), session_of(reader)
    first = whole_site.request(path, cookie=cookie, range="bytes=0-999")
    assert first.status == 206
    TaskUserObjectPermission.objects.filter(user=reader).delete()
    for method in ("GET", "HEAD"):
        for headers in ({"range": "bytes=1000-"}, {"if_none_match": first["ETag"]}, {}):
            answer = whole_site.request(path, method, cookie=cookie, **headers)  # type: ignore[arg-type]
            assert answer.status == 404
            assert CONTENT[1000:1100] not in answer.body


def test_strangers_and_visitors_get_nothing(
    whole_site: Site, make_file: Callable[..., OutputFile], stranger: User, visitor: User
) -> None:
    path = make_file().get_absolute_url()
    assert whole_site.request(path).status == 302
    for user in (stranger, visitor):
        answer = whole_site.request(path, cookie=session_of(user))
        assert (answer.status, CONTENT[:100] in answer.body) == (404, False)


def test_the_file_itself_cannot_be_asked_for_even_by_those_who_may_have_it(
    whole_site: Site, make_file: Callable[..., OutputFile], admin: User
) -> None:
    file, cookie = make_file(), session_of(admin)
    inside = f"{file.run.uuid}/{file.pk}"
    for path in (f"/protected/{inside}", f"/static/../protected/{inside}", f"/protected/%2e/{inside}"):
        answer = whole_site.request(path, cookie=cookie)
        assert (answer.status, CONTENT[:100] in answer.body) == (404, False), path


@pytest.mark.parametrize("name", ["dump.sql.gz", "logs.tar.Z", "page.html", "picture.svg", "app.js", "movie.mp4"])
def test_a_file_arrives_as_it_is_whatever_its_name_promises(
    whole_site: Site, make_file: Callable[..., OutputFile], reader: User, name: str
) -> None:
    content = b"\x1f\x8b\x08 no gzip at all <script>alert(1)</script>" * 100
    cookie = session_of(reader)
    answer = whole_site.request(make_file(content, name).get_absolute_url(), cookie=cookie, accept_encoding="gzip, br")
    assert answer.body == content
    assert not answer.has("Content-Encoding")
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"].startswith("attachment;")


@pytest.mark.parametrize(
    "name",
    [
        'quote".csv',
        "back\\slash.csv",
        "semi;colon=1; filename=evil.exe",
        "new\nline: x\r\nSet-Cookie: a=b",
        "per%0d%0acent.csv",
        "../../etc/passwd",
        "\u202efdp.exe",
        "Übersicht der Größe.csv",
        "報告書.csv",
        "😀.csv",
        "a" * 150,
        " .csv",
        "<script>alert(1)</script>.html",
        "$host${uri}.csv",
        "-rf.csv",
        "con\x00\x1b[31m.csv",
    ],
)
def test_hostile_names_are_names(
    whole_site: Site, make_file: Callable[..., OutputFile], reader: User, name: str
) -> None:
    file = make_file(name=outputs.display_name(name))
    answer = whole_site.request(file.get_absolute_url(), cookie=session_of(reader))
    assert (answer.status, answer.body == CONTENT) == (200, True)
    assert not answer.has("Set-Cookie")
    given = answer["Content-Disposition"]
    assert given.isascii()
    assert given.isprintable()
    header = Message()
    header["Content-Disposition"] = given
    assert header.get_content_disposition() == "attachment"
    extended = re.fullmatch(r"attachment; filename\*=utf-8''(\S+)", given)
    offered = unquote(extended[1]) if extended else header.get_filename()
    assert offered == file.name.strip(" .")
    assert not set("/\\\r\n\0\x1b\u202e") & set(str(offered))


def test_a_link_in_the_store_is_refused(whole_site: Site, make_file: Callable[..., OutputFile], reader: User) -> None:
    file, other, cookie = make_file(), make_file(b"of another task"), session_of(reader)
    path = outputs.file_path(file)
    path.unlink()
    path.symlink_to(outputs.file_path(other))
    assert whole_site.request(file.get_absolute_url(), cookie=cookie).status == 404
    path.unlink()
    os.link(outputs.file_path(other), path)
    assert whole_site.request(file.get_absolute_url(), cookie=cookie).status == 404


def test_a_file_that_is_gone_is_404(whole_site: Site, make_file: Callable[..., OutputFile], reader: User) -> None:
    file = make_file()
    outputs.file_path(file).unlink()
    assert whole_site.request(file.get_absolute_url(), cookie=session_of(reader)).status == 404


def test_slow_clients_do_not_keep_the_pages_from_others(
    whole_site: Site, make_file: Callable[..., OutputFile], reader: User
) -> None:
    path, cookie = make_file(b"x" * 20 * 1024**2).get_absolute_url(), session_of(reader)
    request = f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nCookie: {cookie}\r\n\r\n".encode()
    slow = []
    try:
        for _ in range(40):  # more than the 16 threads of gunicorn
            plain = socket.create_connection(("127.0.0.1", whole_site.https_port), 60)
            slow.append(whole_site.tls.wrap_socket(plain, server_hostname=NAME))
            slow[-1].sendall(request)
            assert slow[-1].recv(12) == b"HTTP/1.1 200"
        assert whole_site.request("/accounts/login/").status == 200
    finally:
        for connection in slow:
            connection.close()


def test_the_log_of_a_run_is_sent_in_the_same_way(
    whole_site: Site, make_run: Callable[..., Run], task: Task, owner: User
) -> None:
    run = make_run()
    path = outputs.log_path(run)
    path.parent.mkdir(mode=0o2750)
    path.write_bytes(b"<script>alert(1)</script>\x1b[31m\n")
    answer = whole_site.request(f"/scheduler/runs/{run.pk}/log/download/", cookie=session_of(owner))
    assert (answer.status, answer.body) == (200, b"<script>alert(1)</script>\x1b[31m\n")
    assert answer["X-Content-Type-Options"] == "nosniff"


# Logging in through all of it


def log_in(site: Site, name: str, password: str, *, path: str = "/accounts/login/", **headers: Any) -> Any:
    page = site.request(path)
    [cookie] = [value for key, value in page.headers if key == "Set-Cookie" and "csrftoken" in value]
    [token] = re.findall(rb'name="csrfmiddlewaretoken" value="(\w+)"', page.body)
    body = f"username={name}&password={password}&csrfmiddlewaretoken={token.decode()}".encode()
    kind = "application/x-www-form-urlencoded"
    headers = {"origin": site.address, "cookie": cookie.partition(";")[0], "content_type": kind, **headers}
    return site.request(path, "POST", body=body, **headers)


def test_a_session_begins_with_cookies_that_only_this_host_gets(whole_site: Site, owner: User) -> None:
    owner.set_password("correct horse")
    owner.save()
    with log_of(whole_site) as log:
        answer = log_in(whole_site, "owner", "correct+horse")
    assert answer.status == 302, log
    cookies = {value.partition("=")[0]: value for key, value in answer.headers if key == "Set-Cookie"}
    assert set(cookies) == {"__Host-sessionid", "__Host-csrftoken"}
    for cookie in cookies.values():
        parts = {part.strip().lower() for part in cookie.split(";")}
        assert {"secure", "httponly", "samesite=lax", "path=/"} <= parts
        assert "domain" not in cookie.lower()
    assert log == []


def test_a_form_of_another_site_is_refused(whole_site: Site, owner: User) -> None:
    assert log_in(whole_site, "owner", "x", origin="https://evil.example").status == 403


def test_guesses_count_together_whichever_process_gets_them(whole_site: Site, owner: User) -> None:
    owner.set_password("correct horse")
    owner.save()
    statuses = [log_in(whole_site, "owner", f"guess{number}").status for number in range(10)]
    assert statuses == [200] * 10
    assert log_in(whole_site, "owner", "correct+horse", x_real_ip="203.0.113.9").status == 429


def test_no_answer_tells_which_software_runs_here_in_which_version(whole_site: Site) -> None:
    answer = whole_site.request("/accounts/login/")
    assert answer["Server"] == "nginx"
    assert json.dumps(answer.headers).count("gunicorn") == 0
