"""A site as deploy/ sets it up: nginx with the very file, gunicorn by the very line of the unit, on loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"
NAME = "localhost"
PATIENCE_SECONDS = 60.0


def need(*programs: str) -> None:
    """Skip the test loudly where a program is missing; in CI it fails."""
    missing = [name for name in programs if servers.program(name) is None]
    if missing and servers.in_ci():
        pytest.fail(f"not installed, and in CI nothing is skipped for it: {', '.join(missing)}")
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: NOT TESTED HERE")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Any, what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    pytest.fail(f"waited {PATIENCE_SECONDS:.0f} s in vain until {what}")


def fill_in(file: Path, variables: dict[str, str]) -> str:
    """A file of deploy/ with its variables put in, by the command of docs/deploy.md."""
    command = [DEPLOY / "fill-in", file]
    return subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=True, cwd=PROJECT
    ).stdout


def exec_line(unit: str) -> list[str]:
    """The argument list of a unit's ExecStart."""
    [line] = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    return shlex.split(line)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    need("openssl")
    paths = folder / "certificate.pem", folder / "key.pem"
    subject = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    out = ["-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run(["openssl", "req", "-x509", *kind, *subject, *out], check=True, capture_output=True)
    return paths


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        """A header that is there exactly once."""
        [value] = [value for key, value in self.headers if key.lower() == name.lower()]
        return value

    def has(self, name: str) -> bool:
        return any(key.lower() == name.lower() for key, _ in self.headers)


@dataclass
class Site:
    """nginx in a folder of its own, and whatever listens on its upstream's socket."""

    folder: Path
    http_port: int = field(default_factory=free_port)
    https_port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("store", "static", "nginx"):
            (self.folder / name).mkdir(exist_ok=True)
        self.certificate, self.key = certificate(self.folder)
        self.tls = ssl.create_default_context(cafile=str(self.certificate))

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def socket(self) -> Path:
        return self.folder / "gunicorn.sock"

    @property
    def address(self) -> str:
        return f"https://{NAME}:{self.https_port}"

    @property
    def variables(self) -> dict[str, str]:
        return {
            "SERVER_NAME": NAME,
            "ADDRESS": "127.0.0.1",
            "HTTP_PORT": str(self.http_port),
            "HTTPS_PORT": str(self.https_port),
            "CERTIFICATE": str(self.certificate),
            "CERTIFICATE_KEY": str(self.key),
            "STATIC": str(self.folder / "static"),
            "STORE": str(self.store),
            "GUNICORN_SOCKET": str(self.socket),
            "PROJECT": str(PROJECT),
            "STATE": str(self.folder),
            "ENVIRONMENT": str(self.folder / "environment"),
            "WEB_USER": "www-data",
            "POLLER_USER": "daemon",
            "STORE_GROUP": "www-data",
        }

    def start_nginx(self) -> None:
        need("nginx", "envsubst")
        top = self.folder / "nginx"
        (top / "scheduler.conf").write_text(fill_in(DEPLOY / "nginx" / "scheduler.conf", self.variables))
        (top / "nginx.conf").write_text(main_configuration(top, user="root" if os.geteuid() == 0 else None))
        command = [str(servers.program("nginx")), "-p", str(top), "-c", "nginx.conf", "-e", str(top / "error.log")]
        test = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert test.returncode == 0, test.stderr
        assert "warn" not in test.stderr, test.stderr
        self.start([*command, "-g", "daemon off;"])
        wait_until(lambda: listens(self.https_port), "nginx listens")

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
        self.processes.append(process)
        return process

    def end(self) -> None:
        """End each process by its own pid."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def request(
        self, path: str, method: str = "GET", *, body: bytes | None = None, plain: bool = False, **headers: str
    ) -> Answer:
        """One request, with the path sent as it stands here; ``x_real_ip`` is the header X-Real-IP."""
        connection: http.client.HTTPConnection
        if plain:
            connection = http.client.HTTPConnection(NAME, self.http_port, timeout=PATIENCE_SECONDS)
        else:
            connection = http.client.HTTPSConnection(NAME, self.https_port, timeout=PATIENCE_SECONDS, context=self.tls)
        with contextlib.closing(connection):
            names = {name.replace("_", "-").title(): value for name, value in headers.items()}
            connection.request(method, path, body=body, headers=names)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main_configuration(folder: Path, *, user: str | None) -> str:
    """What Debian's nginx.conf says around a site's file, without its folders."""
    temporary = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        (f"user {user};\n" if user else "")
        + f"worker_processes 2;\npid {folder}/nginx.pid;\nevents {{ worker_connections 512; }}\n"
        + f"http {{\n    include /etc/nginx/mime.types;\n    default_type application/octet-stream;\n{temporary}"
        + "    sendfile on;\n    tcp_nopush on;\n    gzip on;\n    access_log off;\n"
        + f"    include {folder}/scheduler.conf;\n}}\n"
    )


class FakeUpstream:
    """In gunicorn's place: answers every request with the headers that it got, and with what a test wants beside."""

    def __init__(self, path: Path) -> None:
        self.answer_headers: dict[str, str] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(65536)
            if not chunk:
                return
            data += chunk
        lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        got = [tuple(line.split(": ", 1)) if ": " in line else (line.rstrip(":"), "") for line in lines[1:]]
        body = json.dumps({"line": lines[0], "headers": got}).encode()
        extra = "".join(f"{name}: {value}\r\n" for name, value in self.answer_headers.items())
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}"
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode("latin-1") + body)

    def end(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Site]:
    site = Site(folder)
    try:
        yield site
    finally:
        site.end()
        shutil.rmtree(folder, ignore_errors=True)


def terminate(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(PATIENCE_SECONDS)
