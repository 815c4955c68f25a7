"""docs/deploy.md, followed to the letter: its own commands, in a scratch folder, to a download and beyond.

Two kinds of blocks are left out: what installs Debian packages (they have to be there) and what only a person can do
(``by hand``). Where no systemd runs, ``systemctl`` is the stand-in beside this file, which starts the units' own lines.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from django.db import connection

from .site import PROJECT, free_port, main_configuration, need

if TYPE_CHECKING:
    from collections.abc import Iterator

STAND_IN = Path(__file__).with_name("stand_in_systemctl.py")
PAGE = (PROJECT / "docs" / "deploy.md").read_text(encoding="utf-8")
USERS = {"WEB_USER": "sched-page-web", "POLLER_USER": "sched-page", "STORE_GROUP": "sched-page-store"}
DATABASE = "scheduler_page"
# The tests' own PostgreSQL is reached by a socket in a private folder, and by these users only from then on.
OPEN_DATABASE = 'chgrp "$STORE_GROUP" "$PGHOST"; chmod 0750 "$PGHOST"\n'
SERVICES = ("nginx", "scheduler-web", "scheduler-poller")

pytestmark = pytest.mark.processes


def blocks() -> list[tuple[str, str]]:
    """(kind, text) of each block of the page, in its order."""
    return re.findall(r"^```(\w[\w ]*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_has_no_other_kind_of_block() -> None:
    assert {kind for kind, _ in blocks()} == {"sh", "sh packages", "sh by hand", "text"}


@pytest.mark.parametrize("text", [text for kind, text in blocks() if kind.startswith("sh")], ids=lambda text: text[:30])
def test_every_block_is_shell(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def scratch(transactional_db: None) -> Iterator[Path]:
    if connection.vendor != "postgresql":
        pytest.skip("the page is about PostgreSQL; this part of the test run is on SQLite")
    if os.geteuid() != 0:
        pytest.skip("the page is followed as root: NOT TESTED HERE")
    need("nginx", "envsubst", "openssl", "git", "curl", "useradd", "runuser", "psql")
    folder = Path(tempfile.mkdtemp(prefix="scheduler-page-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        end(folder)
        shutil.rmtree(folder, ignore_errors=True)


def end(folder: Path) -> None:
    """Take back what the page leaves outside the folder: processes, users, the database."""
    subprocess.run([sys.executable, STAND_IN, "stop", *SERVICES], env=surroundings(folder), check=False)
    for name in (USERS["WEB_USER"], USERS["POLLER_USER"]):
        subprocess.run(["userdel", name], capture_output=True, check=False)
    subprocess.run(["groupdel", USERS["STORE_GROUP"]], capture_output=True, check=False)
    sockets = Path(connection.settings_dict["HOST"])
    sockets.chmod(0o700)
    os.chown(sockets, -1, 0)
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        cursor.execute(f"DROP ROLE IF EXISTS {DATABASE}")


def surroundings(folder: Path) -> dict[str, str]:
    """The names of step 1, for a scratch folder and free ports; Debian's own programs, and nothing of this test run."""
    given = connection.settings_dict
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "LANG", "HTTP"))}
    top = folder / "prefix"
    return {
        **kept,
        **USERS,
        "PATH": f"{folder}/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        "PREFIX": str(top),
        "SOURCE": str(folder / "source"),
        "SERVER_NAME": "localhost",
        "ADDRESS": "127.0.0.1",
        "HTTP_PORT": port(folder, "http"),
        "HTTPS_PORT": port(folder, "https"),
        "DATABASE": DATABASE,
        "DATABASE_HOST": quote(str(given["HOST"]), safe=""),
        "PGHOST": str(given["HOST"]),
        "PGUSER": str(given["USER"]),
        # For the stand-in:
        "STAND_IN_STATE": str(folder),
        "UNITS": str(top / "etc" / "systemd" / "system"),
        "NGINX_FOLDER": str(top / "etc" / "nginx"),
    }


def port(folder: Path, name: str) -> str:
    file = folder / f"port.{name}"
    if not file.exists():
        file.write_text(str(free_port()))
    return file.read_text()


def prepare(folder: Path) -> None:
    """What a Debian server has before the page begins: the project's repository, nginx's main file, systemctl."""
    listed = subprocess.run(
        ["git", "-C", PROJECT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (PROJECT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / "source" / name)
    who = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    for command in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "--message", "As it is now"]):
        subprocess.run(["git", "-C", folder / "source", *command], check=True)
    nginx = folder / "prefix" / "etc" / "nginx"
    nginx.mkdir(parents=True)
    main = main_configuration(nginx, user="www-data").replace("scheduler.conf", "sites-enabled/*")
    (nginx / "nginx.conf").write_text(f"error_log {nginx}/error.log;\n{main}")
    (folder / "bin").mkdir()
    systemctl = folder / "bin" / "systemctl"
    systemctl.write_text(f'#!/bin/sh\nexec /usr/bin/python3 "{STAND_IN}" "$@"\n')
    systemctl.chmod(0o755)


def matches(expected: str, line: str) -> bool:
    """Whether a line is the one that the page shows; ``…`` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, line) is not None


def test_the_page_leads_from_an_empty_folder_to_a_download_an_upgrade_and_a_restored_backup(scratch: Path) -> None:
    prepare(scratch)
    steps: list[tuple[str, list[str]]] = []
    for kind, text in blocks():
        if kind == "sh":
            steps.append((text, []))
        elif kind == "text":
            names = {"scheduler-web": USERS["WEB_USER"], "scheduler-store": USERS["STORE_GROUP"]}
            for name, here in names.items():
                text = text.replace(name, here)
            text = re.sub(r"\bscheduler :", f"{USERS['POLLER_USER']} :", text)
            text = re.sub(r": scheduler\b", f": {USERS['POLLER_USER']}", text)
            text = text.replace("root scheduler", f"root {USERS['POLLER_USER']}")
            text = re.sub(r"^ scheduler$", f" {DATABASE}", text, flags=re.MULTILINE)
            steps[-1][1].extend(text.splitlines())
    steps = [(text + OPEN_DATABASE if "useradd" in text else text, expected) for text, expected in steps]
    script = "set -eu\n" + "".join(f"echo '@@ {number}'\n{text}" for number, (text, _) in enumerate(steps))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=scratch,
        env=surroundings(scratch),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    logs = "".join(f"\n--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in scratch.glob("*.log"))
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}{logs}"
    seen = re.split(r"^@@ \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    assert len(seen) == len(steps)
    for (text, expected), output in zip(steps, seen, strict=True):
        for wanted in expected:
            assert any(matches(wanted, line) for line in output.splitlines()), f"{text}\n{wanted!r} not in:\n{output}"
    check_what_is_there(scratch / "prefix")


def check_what_is_there(top: Path) -> None:
    """What the page promises about owners, beside what it shows."""
    code = top / "opt" / "scheduler"
    for place in (
        code,
        code / "manage.py",
        top / "srv" / "scheduler" / "tasks",
        top / "var" / "lib" / "scheduler" / "static",
    ):
        found = place.stat()
        assert (found.st_uid, found.st_mode & 0o022) == (0, 0), place
    store = top / "var" / "lib" / "scheduler" / "data" / "store"
    files = [path for path in store.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert path.group() == USERS["STORE_GROUP"]
        assert path.owner() == USERS["POLLER_USER"]
        assert path.stat().st_mode & 0o777 == 0o640
