"""Downloads through nginx and gunicorn: our permission check beside guardian's ``has_perm``, and beside no check."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.utils import timezone

from benchmarks.waiting import Processes, Unusable, free_port, listens, wait_until
from scheduler import outputs
from scheduler.models import OutputFile, Run, Task
from tests import servers

if TYPE_CHECKING:
    import argparse

CONNECTIONS = 16
SMALL, LARGE = 1024, 1024**3
CHUNK = 256 * 1024

NGINX = """\
{user}worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    {temporary}
    sendfile on;
    tcp_nopush on;
    access_log off;
    keepalive_requests 1000000;
    upstream web {{ server unix:{socket} fail_timeout=0; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_pass http://web;
        }}
        location ^~ /protected/ {{ internal; alias {store}/; disable_symlinks on from={store}; }}
        location ^~ /static-store/ {{ alias {store}/; }}
    }}
}}
"""


def measure(options: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Downloads a second and GB a second by name, into ``figures``. Raises Unusable."""
    folder = Path(os.environ["SCHEDULER_VAR"])
    processes = Processes(folder / "servers.log")
    cookie, small, large = contents()
    store = settings.SENDFILE_ROOT
    ways = {
        "scheduler": "/scheduler/files/{file}/",
        "guardian_sendfile2": "/peer/{file}/",
        "nginx_static": "/static-store/{run}/{file}",
    }
    figures |= {"downloads_per_s": {}, "download_gb_per_s": {}}
    try:
        port = start(processes, folder, store)
        for _ in range(options.rounds):  # by turns: what disturbs the machine meanwhile meets them all
            for name, path in ways.items():
                address = path.format(file=small.pk, run=small.run.uuid)
                rate = downloads_per_second(port, address, cookie, options.seconds)
                figures["downloads_per_s"].setdefault(name, []).append(rate)
        for _ in range(options.rounds):
            for name in ("scheduler", "nginx_static"):
                address = ways[name].format(file=large.pk, run=large.run.uuid)
                figures["download_gb_per_s"].setdefault(name, []).append(gigabytes_per_second(port, address, cookie))
    finally:
        processes.end()


def contents() -> tuple[str, OutputFile, OutputFile]:
    """The cookie of somebody who may view one task's output, and two files of that task."""
    outputs.make_root()
    now = timezone.now()
    reader = get_user_model().objects.create_user("reader")
    task = Task.objects.create(name="makes files", program_root="benchmarks", program_path="one_query.py")
    task.grant(reader, "view_output")
    ended = {"status": "completed", "reason": "exit_code", "exit_code": 0, "trigger": "manual"}
    run = Run.objects.create(task=task, queued_at=now, due_at=now, ready_at=now, finished_at=now, **ended)
    files = []
    for name, size in (("small.bin", SMALL), ("large.bin", LARGE)):
        file = OutputFile.objects.create(run=run, name=name, size=size, sha256="0" * 64, created_at=now)
        path = outputs.file_path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as written:
            written.truncate(size)  # without blocks on disk: the disk is not what is measured
        files.append(file)
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(reader.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = reader.get_session_auth_hash()
    session.create()
    return f"{settings.SESSION_COOKIE_NAME}={session.session_key}", files[0], files[1]


def start(processes: Processes, folder: Path, store: Path) -> int:
    """Start gunicorn, as the unit of deploy/ does, and an nginx on loopback; its port."""
    web = folder / "gunicorn.sock"
    kind = ["--worker-class", "gthread", "--workers", "2", "--threads", "8", "--no-control-socket"]
    command = [sys.executable, "-m", "gunicorn", "--bind", f"unix:{web}", "--umask", "0", *kind]
    processes.start([*command, "--log-level", "warning", "conf.wsgi"])
    wait_until(web.exists, "gunicorn listens")
    port = free_port()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    values = {
        "folder": folder,
        "socket": web,
        "store": store,
        "port": port,
        "user": "user root;\n" if os.geteuid() == 0 else "",  # the folders are this user's own
        "temporary": " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds),
    }
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(**values))
    nginx = servers.program("nginx")
    assert nginx is not None
    processes.start([str(nginx), "-p", str(folder), "-c", str(configuration), "-g", "daemon off;"])
    wait_until(lambda: listens(port), "nginx listens")
    return port


def downloads_per_second(port: int, path: str, cookie: str, seconds: float) -> float:
    """By wrk where it is installed, else by threads of this process."""
    get(port, path, cookie, SMALL)
    wrk = servers.program("wrk")
    if wrk is None:
        return by_threads(port, path, cookie, seconds)
    extent = ["--threads", "2", "--connections", str(CONNECTIONS), "--duration", f"{max(round(seconds), 1)}s"]
    done = subprocess.run(
        [str(wrk), *extent, "--header", f"Cookie: {cookie}", f"http://localhost:{port}{path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if rate is None or "Non-2xx" in done.stdout:
        raise Unusable(f"wrk could not download: {(done.stdout + done.stderr).strip()[-300:]!r}")
    return float(rate[1])


def by_threads(port: int, path: str, cookie: str, seconds: float) -> float:
    counts = [0] * CONNECTIONS
    problems: list[BaseException] = []
    until = time.monotonic() + seconds

    def download(number: int) -> None:
        try:
            connection = http.client.HTTPConnection("localhost", port, timeout=30)
            while time.monotonic() < until:
                connection.request("GET", path, headers={"Cookie": cookie})
                answer = connection.getresponse()
                if answer.status != 200 or len(answer.read()) != SMALL:
                    raise Unusable(f"{path} was answered with {answer.status}.")
                counts[number] += 1
            connection.close()
        except (OSError, http.client.HTTPException, Unusable) as error:
            problems.append(error)

    threads = [threading.Thread(target=download, args=[number]) for number in range(CONNECTIONS)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise Unusable(str(problems[0]))
    return sum(counts) / (time.monotonic() - begin)


def get(port: int, path: str, cookie: str, size: int) -> None:
    """One download of that size. Raises Unusable when it is anything else."""
    connection = http.client.HTTPConnection("localhost", port, timeout=30)
    connection.request("GET", path, headers={"Cookie": cookie})
    answer = connection.getresponse()
    got = len(answer.read())
    connection.close()
    if answer.status != 200 or got != size:
        raise Unusable(f"{path} was answered with {answer.status} and {got} bytes.")


def gigabytes_per_second(port: int, path: str, cookie: str) -> float:
    """One download, its bytes thrown away."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        begin = time.monotonic()
        request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        buffer = bytearray(CHUNK)
        got = 0
        while count := connection.recv_into(buffer):
            got += count
        took = time.monotonic() - begin
    if got < LARGE:
        raise Unusable(f"{path} ended after {got} bytes.")
    return got / took / 1e9
