"""deploy/nginx/scheduler.conf in a real nginx: what it lets in, what it hides, and what it tells gunicorn."""

from __future__ import annotations

import json
import socket
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .site import NAME, FakeUpstream, Site, running

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = b"nobody may read this without a permission"
FILE = "0f1e2d3c/4b5a6978"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running(Path(tempfile.mkdtemp(prefix="scheduler-nginx-"))) as site:
        (site.store / FILE).parent.mkdir()
        (site.store / FILE).write_bytes(SECRET)
        (site.folder / "outside").write_bytes(SECRET)
        (site.folder / "store-of-others").mkdir()
        (site.folder / "store-of-others" / "file").write_bytes(SECRET)
        for name in ("app.css", "app.0123456789ab.css", "staticfiles.json"):
            (site.folder / "static" / name).write_text("body { color: black }")
        site.start_nginx()
        yield site


@pytest.fixture
def upstream(site: Site) -> Iterator[FakeUpstream]:
    upstream = FakeUpstream(site.socket)
    yield upstream
    upstream.end()
    site.socket.unlink()


# The internal location


@pytest.mark.parametrize(
    "path",
    [
        f"/protected/{FILE}",
        "/protected/",
        f"//protected//{FILE}",
        f"/./protected/{FILE}",
        f"/static/../protected/{FILE}",
        f"/accounts/login/../../protected/{FILE}",
        f"/%70rotected/{FILE}",
        f"/protected%2f{FILE}",
        f"/protected/..%2fprotected/{FILE}",
        f"/protected/%2e%2e/protected/{FILE}",
        f"/protected/{FILE}?x=1",
        f"/protected/{FILE}%00.css",
        "/protected/../protected/" + FILE,
        f"http://{NAME}/protected/{FILE}",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_nobody_can_ask_for_the_internal_location(site: Site, upstream: FakeUpstream, path: str, method: str) -> None:
    answer = site.request(path, method, x_accel_redirect=f"/protected/{FILE}", x_original_url=f"/protected/{FILE}")
    assert answer.status in ({400, 404} if "%00" in path else {404})
    assert SECRET not in answer.body


@pytest.mark.parametrize(
    "path",
    [
        "/protected../outside",
        "/protected../store-of-others/file",
        "/static../outside",
        "/static/../outside",
        "/static/..%2foutside",
        "/static/%2e%2e/outside",
        "/static/../../outside",
        "/static//../outside",
        "/protected-of-others/file",
    ],
)
def test_no_path_leads_out_of_the_folders(site: Site, upstream: FakeUpstream, path: str) -> None:
    assert SECRET not in site.request(path).body


def send(site: Site, upstream: FakeUpstream, target: str, **headers: Any) -> tuple[int, bytes]:
    upstream.answer_headers = {"X-Accel-Redirect": target}
    answer = site.request("/scheduler/", **headers)
    return answer.status, answer.body


def test_what_django_names_is_sent(site: Site, upstream: FakeUpstream) -> None:
    assert send(site, upstream, f"/protected/{FILE}") == (200, SECRET)


@pytest.mark.parametrize(
    "target",
    ["/protected/../outside", "/protected/%2e%2e/outside", "/protected../outside", "/protected/x/../../outside"],
)
def test_not_even_django_could_send_what_lies_outside_the_store(
    site: Site, upstream: FakeUpstream, target: str
) -> None:
    assert SECRET not in send(site, upstream, target)[1]


def test_a_symbolic_link_in_the_store_is_not_followed(site: Site, upstream: FakeUpstream) -> None:
    (site.store / "file-link").symlink_to(site.folder / "outside")
    (site.store / "folder-link").symlink_to(site.folder / "store-of-others")
    (site.store / "inner-link").symlink_to(site.store / FILE)
    for target in ("file-link", "folder-link/file", "inner-link"):
        status, body = send(site, upstream, f"/protected/{target}")
        assert status in {403, 404}, target
        assert SECRET not in body


def test_a_folder_is_not_listed(site: Site, upstream: FakeUpstream) -> None:
    assert send(site, upstream, "/protected/0f1e2d3c/")[0] == 403


def test_the_headers_are_there_again_also_for_an_error(site: Site, upstream: FakeUpstream) -> None:
    for target, status in ((FILE, 200), ("nothing", 404)):
        upstream.answer_headers = {
            "X-Accel-Redirect": f"/protected/{target}",
            # What Django says itself, and nginx would otherwise drop or double:
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Frame-Options": "DENY",
            "Strict-Transport-Security": "max-age=31536000",
        }
        answer = site.request("/scheduler/files/x/")
        assert answer.status == status
        assert answer["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["X-Frame-Options"] == "DENY"
        assert answer["Referrer-Policy"] == "same-origin"
        assert answer["Strict-Transport-Security"] == "max-age=31536000"
        assert answer["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not answer.has("X-Accel-Redirect")


def test_many_ranges_are_not_put_together(site: Site, upstream: FakeUpstream) -> None:
    ranges = ",".join(f"{start}-" for start in range(20))
    assert send(site, upstream, f"/protected/{FILE}", range=f"bytes={ranges}") == (200, SECRET)


# What gunicorn is told


def told(answer_body: bytes) -> dict[str, str]:
    headers = json.loads(answer_body)["headers"]
    names = [name.lower() for name, _ in headers]
    assert len(names) == len(set(names)), names
    return {name.lower(): value for name, value in headers}


def test_what_django_believes_is_never_what_the_client_claims(site: Site, upstream: FakeUpstream) -> None:
    claims: Any = {
        "x_real_ip": "203.0.113.9",
        "x_forwarded_for": "203.0.113.9",
        "x_forwarded_proto": "http",
        "x_forwarded_host": "evil.example",
        "x_forwarded_port": "1",
        "x_forwarded_ssl": "off",
        "x_forwarded_protocol": "http",
        "forwarded": "for=203.0.113.9;host=evil.example;proto=http",
    }
    got = told(site.request("/scheduler/", **claims).body)
    assert got["x-real-ip"] == got["x-forwarded-for"] == "127.0.0.1"
    assert got["x-forwarded-proto"] == "https"
    assert got["host"] == f"{NAME}:{site.https_port}"
    assert not {"x-forwarded-host", "x-forwarded-port", "x-forwarded-ssl", "x-forwarded-protocol", "forwarded"} & set(
        got
    )
    assert "203.0.113.9" not in str(got)
    assert "evil" not in str(got)


def test_a_header_with_underscores_is_no_way_around(site: Site, upstream: FakeUpstream) -> None:
    request = f"GET / HTTP/1.1\r\nHost: {NAME}\r\nX_Real_IP: 203.0.113.9\r\nConnection: close\r\n\r\n"
    assert b"203.0.113.9" not in raw(site, request)


def raw(site: Site, request: str, *, name: str = NAME) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", site.https_port), 60) as connection,
        site.tls.wrap_socket(connection, server_hostname=name) as secure,
    ):
        secure.sendall(request.encode())
        answer = b""
        while chunk := secure.recv(65536):
            answer += chunk
        return answer


# Names, TLS, limits


@pytest.mark.parametrize("path", ["/", "/scheduler/?next=//evil.example", "//evil.example/", "/accounts/login/"])
def test_http_only_leads_to_https_under_the_sites_own_name(site: Site, path: str) -> None:
    answer = site.request(path, plain=True, x_forwarded_proto="https")
    assert answer.status == 301
    assert answer["Location"] == f"{site.address}{path}"


def test_another_name_gets_no_answer(site: Site, upstream: FakeUpstream) -> None:
    for port in (site.http_port,):
        with socket.create_connection(("127.0.0.1", port), 60) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            assert connection.recv(100) == b""
    with pytest.raises(ssl.SSLError):
        raw(site, "", name="evil.example")
    # The right name in the handshake, another one in the request:
    answer = raw(site, "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert answer == b""


def test_only_modern_tls_is_spoken(site: Site) -> None:
    modern = ssl.create_default_context(cafile=str(site.certificate))
    modern.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", site.https_port), 60) as connection,
        modern.wrap_socket(connection, server_hostname=NAME) as secure,
    ):
        assert secure.version() == "TLSv1.3"
        assert secure.selected_alpn_protocol() == "h2"
    # By hand, as this machine's own TLS may not speak TLS 1.1 at all: a ClientHello that offers nothing newer.
    name = NAME.encode()
    server_name = b"\x00" + len(name).to_bytes(2, "big") + name
    extension = len(server_name).to_bytes(2, "big") + server_name
    extensions = b"\x00\x00" + len(extension).to_bytes(2, "big") + extension
    hello = b"\x03\x02" + bytes(32) + b"\x00" + b"\x00\x04\xc0\x13\xc0\x09" + b"\x01\x00"
    hello += len(extensions).to_bytes(2, "big") + extensions
    handshake = b"\x01" + len(hello).to_bytes(3, "big") + hello
    with socket.create_connection(("127.0.0.1", site.https_port), 60) as connection:
        connection.sendall(b"\x16\x03\x01" + len(handshake).to_bytes(2, "big") + handshake)
        answer = connection.recv(7)
    assert answer[:1] == b"\x15", answer  # an alert …
    assert answer[6:7] == b"\x46", answer  # … of which the meaning is: protocol version


def test_a_body_that_is_too_large_does_not_reach_gunicorn(site: Site, upstream: FakeUpstream) -> None:
    assert site.request("/scheduler/", "POST", body=b"x" * (1024**2 + 1)).status == 413


@pytest.mark.parametrize("path", ["/accounts/login/", "/admin/login/", "/admin/%6cogin/", "/accounts//login/"])
def test_log_ins_are_limited_and_looking_at_the_page_is_not(site: Site, upstream: FakeUpstream, path: str) -> None:
    tries = [site.request(path, "POST", body=b"").status for _ in range(60)]
    assert 429 in tries
    assert tries.count(200) < 40
    assert [site.request(path).status for _ in range(60)] == [200] * 60


def test_without_gunicorn_there_is_an_answer_all_the_same(site: Site) -> None:
    assert site.request("/scheduler/").status == 502


# Static files


def test_static_files_are_kept_for_as_long_as_their_name_allows(site: Site) -> None:
    plain, hashed = site.request("/static/app.css"), site.request("/static/app.0123456789ab.css")
    assert plain["Cache-Control"] == "public, max-age=3600"
    assert hashed["Cache-Control"] == "public, max-age=31536000, immutable"
    for answer in (plain, hashed):
        assert (answer.status, answer["Content-Type"]) == (200, "text/css")
        assert answer["X-Content-Type-Options"] == "nosniff"
    assert site.request("/static/gone.0123456789ab.css").status == 404
    assert not site.request("/static/gone.0123456789ab.css").has("Cache-Control")


@pytest.mark.parametrize("path", ["/static/", "/static/staticfiles.json"])
def test_there_is_no_list_of_static_files(site: Site, path: str) -> None:
    assert site.request(path).status in {403, 404}


def test_a_link_among_the_static_files_is_not_followed(site: Site) -> None:
    (site.folder / "static" / "link.css").symlink_to(site.folder / "outside")
    assert SECRET not in site.request("/static/link.css").body
