"""Every sample task, really run: as a run of the scheduler and by hand, against a database of its own."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections import Counter
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.simulated_run import PROJECT, SECONDS, SimulatedRun, by_hand, execute

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAMPLES = PROJECT / "sample_tasks"
PROGRAMS = sorted(path.name for path in SAMPLES.glob("*.py"))

pytestmark = pytest.mark.processes


@pytest.fixture
def simulated(tmp_path: Path) -> SimulatedRun:
    return SimulatedRun(tmp_path / "run")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# A site with a database that other processes can reach


class Site:
    """The project with an empty, migrated database of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.variables = {
            "DJANGO_SETTINGS_MODULE": "conf.settings",
            "DJANGO_SECRET_KEY": "only-for-tests-" + "x" * 50,
            "SCHEDULER_VAR": str(folder),
            "DATABASE_URL": url,
        }
        self.folder = folder

    def do(self, text: str) -> Any:
        """Run Python in the site; gives what the text assigns to ``result``."""
        start = "import json, django; django.setup(); result = None\n"
        done = execute(
            [sys.executable, "-c", f"{start}{text}\nprint(json.dumps(result, default=str))"],
            env={**by_hand(), **self.variables},
            cwd=self.folder,
        )
        assert done.code == 0, done.log
        return json.loads(done.log)


ON_POSTGRESQL = os.environ.get("DATABASE_URL", "").startswith(("postgres", "pgsql"))


def _postgresql(database: str, template: str = "") -> str:
    """Make a scratch database; gives its URL."""
    with _server() as cursor:
        cursor.execute(f'CREATE DATABASE "{database}"' + (f' TEMPLATE "{template}"' if template else ""))
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{database}").geturl()


def _drop(database: str) -> None:
    with _server() as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')


@contextlib.contextmanager
def _server() -> Iterator[Any]:
    import psycopg

    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        yield connection.cursor()


def _migrate(site: Site) -> None:
    done = execute(
        [sys.executable, PROJECT / "manage.py", "migrate", "-v0"], env={**by_hand(), **site.variables}, cwd=site.folder
    )
    assert done.code == 0, done.log


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name (PostgreSQL) or the file (SQLite) of a migrated database, from which each test gets a copy."""
    folder = tmp_path_factory.mktemp("migrated")
    if not ON_POSTGRESQL:
        file = folder / "site.sqlite3"
        _migrate(Site(folder, f"sqlite:///{file}"))
        yield str(file)
        return
    name = f"samples_{uuid.uuid4().hex}"
    try:
        _migrate(Site(folder, _postgresql(name)))
        yield name
    finally:
        _drop(name)


@pytest.fixture
def site(migrated: str, tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    if not ON_POSTGRESQL:
        shutil.copy(migrated, folder / "site.sqlite3")
        yield Site(folder, f"sqlite:///{folder / 'site.sqlite3'}")
        return
    name = f"samples_{uuid.uuid4().hex}"
    try:
        yield Site(folder, _postgresql(name, template=migrated))
    finally:
        _drop(name)


@pytest.fixture
def site_run(site: Site, simulated: SimulatedRun) -> SimulatedRun:
    """A run of a ``django`` task of that site."""
    simulated.environment.update(site.variables)
    return simulated


# All of them


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_says_what_it_does(simulated: SimulatedRun, name: str) -> None:
    result = simulated.execute(SAMPLES / name, "-h")

    assert result.code == 0
    assert result.log.startswith(f"usage: {name}")
    assert "Traceback" not in result.log


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "run_command.py"])
def test_an_unknown_option_is_one_sentence_and_exit_code_2(simulated: SimulatedRun, name: str) -> None:
    result = simulated.execute(SAMPLES / name, "--no-such-option")

    assert result.code == 2
    assert result.log.splitlines()[-1].startswith(f"{name}: error: ")


def test_they_may_be_run_by_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler refuses programs that others may write."""
    assert [path.name for path in SAMPLES.iterdir() if path.is_file() and path.stat().st_mode & 0o022] == []
    assert (SAMPLES / "word_count.sh").stat().st_mode & 0o111


# machine_report


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_machine_report_measures_this_machine(simulated: SimulatedRun) -> None:
    result = simulated.execute(SAMPLES / "machine_report.py", "--processes", "4")

    assert (result.code, result.log) == (0, "")
    assert simulated.files() == ["machine_report.csv", "machine_report.html"]
    rows = read_csv(simulated.output / "machine_report.csv")
    values = {(row["section"], row["item"], row["measure"], row["unit"]): row["value"] for row in rows}
    assert float(values["memory", "memory", "total", "bytes"]) == psutil.virtual_memory().total
    assert float(values["machine", os.uname().nodename, "processors", ""]) == psutil.cpu_count()
    disks = {row["item"] for row in rows if row["section"] == "disk"}
    assert disks
    for disk in disks:
        assert float(values["disk", disk, "total", "bytes"]) == psutil.disk_usage(disk).total
    processes = [float(row["value"]) for row in rows if (row["section"], row["measure"]) == ("process", "memory")]
    assert len(processes) == 4
    assert processes == sorted(processes, reverse=True)
    assert re.fullmatch(r"Memory \d+ % used; fullest disk .*: \d+ %, .* free\.", simulated.messages[-1])
    last = simulated.progress[-1]
    assert last["progress"] == last["total"]


def test_machine_report_page_stands_alone(simulated: SimulatedRun) -> None:
    simulated.execute(SAMPLES / "machine_report.py")

    page = Page()
    page.feed((simulated.output / "machine_report.html").read_text(encoding="utf-8"))
    tags = {tag for tag, _attributes in page.tags}
    assert {"html", "table", "style"} <= tags
    assert not tags & {"script", "link", "img", "iframe"}
    assert not any(name.startswith("on") or name in {"src", "href"} for _tag, given in page.tags for name in given)
    assert {"Memory", "Disk", "Process"} <= set(page.text)


def test_machine_report_does_not_trust_the_names_of_processes(simulated: SimulatedRun, tmp_path: Path) -> None:
    name = "=<b>&evil"
    shutil.copy(shutil.which("sleep") or "", tmp_path / name)
    with subprocess.Popen([tmp_path / name, "600"]) as process:
        try:
            result = simulated.execute(SAMPLES / "machine_report.py", "--processes", "10000")
        finally:
            process.kill()

    assert result.code == 0
    items = {row["item"] for row in read_csv(simulated.output / "machine_report.csv")}
    assert any(item.startswith(f"'{name} ({process.pid}") for item in items)
    text = (simulated.output / "machine_report.html").read_text(encoding="utf-8")
    assert "=&lt;b&gt;&amp;evil (" in text
    assert "<b>" not in text


# export_users


def test_export_users_writes_all_users_and_no_password(site: Site, site_run: SimulatedRun) -> None:
    hashes = site.do(
        """
from django.contrib.auth.models import Group, User
anna = User.objects.create_user("anna", "anna@example.com", "secret one", first_name="=1+1", last_name="Müller")
bob = User.objects.create_user("bob", password="secret two", is_active=False)
anna.groups.add(Group.objects.create(name="editors"), Group.objects.create(name="+admins"))
User.objects.bulk_create(User(username=f"user{number}", password="!") for number in range(600))
result = [anna.password, bob.password]
"""
    )

    result = site_run.execute(SAMPLES / "export_users.py")

    assert (result.code, result.log) == (0, "")
    assert site_run.files() == ["users.csv", "users.json"]
    rows = read_csv(site_run.output / "users.csv")
    people = json.loads((site_run.output / "users.json").read_text(encoding="utf-8"))
    assert len(rows) == len(people) == 602
    assert [row["username"] for row in rows] == [person["username"] for person in people]
    anna = people[0]
    assert anna["username"] == "anna"
    assert anna["first_name"] == "=1+1"
    assert anna["groups"] == ["+admins", "editors"]
    assert anna["is_active"] is True
    assert anna["last_login"] is None
    assert people[1]["is_active"] is False
    # A spreadsheet calculates what starts with one of = + - @.
    assert rows[0]["first_name"] == "'=1+1"
    assert rows[0]["groups"] == "'+admins, editors"
    assert rows[0]["last_name"] == "Müller"
    for name in site_run.files():
        text = (site_run.output / name).read_text(encoding="utf-8")
        assert "password" not in text
        assert not any(each in text for each in hashes)
    assert site_run.progress[-1] == {"progress": 602, "total": 602, "label": "users"}
    assert site_run.messages == ["602 users exported."]


def test_export_users_can_leave_out_who_may_not_log_in(site: Site, site_run: SimulatedRun) -> None:
    site.do(
        """
from django.contrib.auth.models import User
User.objects.create_user("anna")
User.objects.create_user("bob", is_active=False)
"""
    )

    site_run.execute(SAMPLES / "export_users.py", "--active")

    assert [row["username"] for row in read_csv(site_run.output / "users.csv")] == ["anna"]
    assert site_run.messages == ["1 user exported."]


def test_export_users_knows_other_user_models(simulated: SimulatedRun, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    for name, text in {
        "own_settings.py": f"""
SECRET_KEY = "only-for-a-test"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "people"]
AUTH_USER_MODEL = "people.Person"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {str(tmp_path / "own.sqlite3")!r}}}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
""",
        "people/__init__.py": "",
        "people/models.py": """
import uuid
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import models
class Visible(models.Manager):
    def get_queryset(self):
        return super().get_queryset().filter(hidden=False)
class Person(AbstractBaseUser):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.EmailField(unique=True)
    hidden = models.BooleanField(default=False)
    api_token = models.CharField(max_length=40)
    picture = models.BinaryField(null=True)
    boss = models.ForeignKey("self", null=True, on_delete=models.SET_NULL)
    objects = Visible()
    USERNAME_FIELD = "email"
""",
        "fill.py": """
import django
django.setup()
from django.core.management import call_command
from people.models import Person
call_command("migrate", run_syncdb=True, verbosity=0)
boss = Person.objects.create(pk="0" * 32, email="boss@example.com", hidden=True, api_token="secret", password="secret")
Person.objects.create(pk="1" * 32, email="anna@example.com", boss=boss, api_token="secret", password="secret")
""",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    simulated.environment = {"DJANGO_SETTINGS_MODULE": "own_settings", "PYTHONPATH": f"{PROJECT}:{folder}"}
    filled = simulated.execute(folder / "fill.py")
    assert filled.code == 0, filled.log

    result = simulated.execute(SAMPLES / "export_users.py")

    assert (result.code, result.log) == (0, "")
    people = json.loads((simulated.output / "users.json").read_text(encoding="utf-8"))
    nobody, anna = str(uuid.UUID(int=0)), str(uuid.UUID("1" * 32))
    assert people == [
        {"last_login": None, "id": nobody, "email": "boss@example.com", "hidden": True, "boss_id": None},
        {"last_login": None, "id": anna, "email": "anna@example.com", "hidden": False, "boss_id": nobody},
    ]
    assert [row["email"] for row in read_csv(simulated.output / "users.csv")] == [
        "boss@example.com",
        "anna@example.com",
    ]

    refused = simulated.execute(SAMPLES / "export_users.py", "--active")
    assert refused.code == 2
    assert "have no field is_active" in refused.log


# backup_database


def test_backup_database_can_be_restored(site: Site, site_run: SimulatedRun, tmp_path: Path) -> None:
    site.do(
        """
from django.contrib.auth.models import User
User.objects.bulk_create(User(username=f"user{number}", password="!") for number in range(3000))
"""
    )

    result = site_run.execute(SAMPLES / "backup_database.py")

    assert result.code == 0, result.log
    [name] = site_run.files()
    users = _restored_users(site_run.output / name, tmp_path)
    assert sorted(users) == sorted(f"user{number}" for number in range(3000))
    assert re.fullmatch(rf"{re.escape(name)}: [\d.]+ \w+, .*\d+ tables.*\.", site_run.messages[-1])
    last = site_run.progress[-1]
    assert last["progress"] == last["total"]
    # Nothing of the work is left over.
    assert [path.name for path in site_run.output.iterdir()] == [name]


def _restored_users(backup: Path, tmp_path: Path) -> list[str]:
    if not ON_POSTGRESQL:
        assert re.fullmatch(r"default-\d{8}-\d{6}Z\.sqlite3\.gz", backup.name)
        restored = tmp_path / "restored.sqlite3"
        restored.write_bytes(gzip.decompress(backup.read_bytes()))
        with contextlib.closing(sqlite3.connect(f"file:{restored}?mode=ro", uri=True)) as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
            return [row[0] for row in database.execute("SELECT username FROM auth_user")]
    import psycopg

    assert re.fullmatch(r"default-\d{8}-\d{6}Z\.dump", backup.name)
    name = f"samples_{uuid.uuid4().hex}"
    try:
        url = _postgresql(name)
        subprocess.run(["pg_restore", "--no-owner", "--dbname", url, backup], check=True, timeout=SECONDS)
        with psycopg.connect(url) as database:
            return [row[0] for row in database.execute("SELECT username FROM auth_user")]
    finally:
        _drop(name)


@pytest.mark.skipif(ON_POSTGRESQL, reason="about SQLite")
def test_backup_database_goes_on_while_others_write(site: Site, site_run: SimulatedRun, tmp_path: Path) -> None:
    """Each write of another process would start SQLite's copy anew, and it would never end."""
    site.do(
        """
from django.contrib.auth.models import User
User.objects.bulk_create(User(username=f"user{number}", password="x" * 128) for number in range(20_000))
"""
    )
    file = site.folder / "site.sqlite3"
    writer = tmp_path / "writer.py"
    writer.write_text(
        """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
number = 0
while True:
    number += 1
    database.execute("UPDATE auth_user SET first_name = ?, last_name = ? WHERE username = 'user1'", (number, number))
    if number == 1: print(flush=True)
"""
    )
    with subprocess.Popen([sys.executable, writer, file], stdout=subprocess.PIPE) as writing:
        try:
            assert writing.stdout is not None
            assert writing.stdout.readline()
            result = site_run.execute(SAMPLES / "backup_database.py")
            assert writing.poll() is None
        finally:
            writing.kill()

    assert result.code == 0, result.log
    [name] = site_run.files()
    (tmp_path / "restored.sqlite3").write_bytes(gzip.decompress((site_run.output / name).read_bytes()))
    with contextlib.closing(sqlite3.connect(tmp_path / "restored.sqlite3")) as database:
        assert database.execute("SELECT count(*), sum(first_name != last_name) FROM auth_user").fetchone() == (
            20_000,
            0,
        )


@pytest.mark.skipif(ON_POSTGRESQL, reason="about SQLite")
def test_backup_database_does_not_pass_a_damaged_database(site: Site, site_run: SimulatedRun) -> None:
    site.do(
        """
from django.contrib.auth.models import User
User.objects.bulk_create(User(username=f"user{number}", password="x" * 128) for number in range(3000))
"""
    )
    file = site.folder / "site.sqlite3"
    content = bytearray(file.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8 * 4096] = b"\xaa" * (8 * 4096)
    file.write_bytes(content)

    result = site_run.execute(SAMPLES / "backup_database.py")

    assert result.code == 1
    # Where it is damaged depends on what lies in its middle: the copying meets it, or the check of the copy.
    assert re.match("No backup of “default”: (The copy is damaged|database disk image is malformed)", result.log)
    assert len(result.log.splitlines()) == 1
    assert list(site_run.output.iterdir()) == []


@pytest.mark.skipif(not ON_POSTGRESQL, reason="about PostgreSQL")
def test_backup_database_keeps_the_password_out_of_the_arguments(
    site: Site, site_run: SimulatedRun, tmp_path: Path
) -> None:
    parts = urlsplit(site.url)
    user, _, host = parts.netloc.rpartition("@")
    site_run.environment["DATABASE_URL"] = parts._replace(netloc=f"{user.split(':')[0]}:pass%2Fword@{host}").geturl()
    folder = tmp_path / "bin"
    folder.mkdir()
    spy = folder / "pg_dump"
    spy.write_text(f'#!/bin/sh\nenv >{tmp_path}/env\necho "$@" >{tmp_path}/argv\nexit 9\n')
    spy.chmod(0o755)
    site_run.environment["PATH"] = f"{folder}:{os.environ['PATH']}"

    result = site_run.execute(SAMPLES / "backup_database.py")

    assert result.code == 1
    assert result.log == "No backup of “default”: pg_dump failed with exit code 9; the log has its words.\n"
    given = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert given["PGPASSWORD"] == "pass/word"
    assert given["PGDATABASE"] == parts.path[1:]
    assert "DATABASE_URL" not in given
    assert "DJANGO_SECRET_KEY" not in given
    assert "pass" not in (tmp_path / "argv").read_text().replace("--no-password", "")
    assert list(site_run.output.iterdir()) == []


def test_backup_database_says_which_databases_there_are(site: Site, site_run: SimulatedRun) -> None:
    result = site_run.execute(SAMPLES / "backup_database.py", "--database", "other")

    assert result.code == 2
    assert "the settings have no database “other”, only: default" in result.log


# log_report

LOG = """\
192.0.2.1 - - [03/Nov/2026:23:59:59 +0100] "GET /a?x=1 HTTP/1.1" 200 100 "-" "Agent \\"quoted\\""
192.0.2.1 - anna smith [03/Nov/2026:23:59:59 +0100] "GET /a HTTP/1.1" 304 - "https://example.com/" "Agent"
2001:db8::1 - - [04/Nov/2026:00:00:01 +0100] "POST /b HTTP/2.0" 200 50 "-" "-"
192.0.2.1 - - [04/Nov/2026:00:00:02 +0100] "GET =cmd|x HTTP/1.1" 404 7 "-" "-"
192.0.2.1 - - [04/Nov/2026:00:00:02 +0100] "\\x16\\x03\\x01" 400 9 "-" "-"
192.0.2.1 - - [04/Nov/2026:00:00:03 +0100] "GET /caf\xe9 HTTP/1.1" 200 1 "-" "-"
this is no line of a log
192.0.2.1 - - [04/Abc/2026:00:00:02 +0100] "GET /c HTTP/1.1" 200 7 "-" "-"

"""


@pytest.mark.parametrize("packed", [False, True])
def test_log_report_counts_a_given_log(simulated: SimulatedRun, tmp_path: Path, packed: bool) -> None:
    log = tmp_path / "access.log"
    content = LOG.encode("latin-1")
    log.write_bytes(gzip.compress(content) if packed else content)

    result = simulated.execute(SAMPLES / "log_report.py", str(log))

    assert (result.code, result.log) == (0, "")
    assert simulated.files() == ["hits_by_day.csv", "hits_by_path.csv", "hits_by_status.csv"]
    found = {
        by: [tuple(row.values()) for row in read_csv(simulated.output / f"hits_by_{by}.csv")]
        for by in ("path", "status", "day")
    }
    assert found["path"] == [
        ("/a", "2", "100"),
        ("(no valid request)", "1", "9"),
        ("/b", "1", "50"),
        ("/caf\N{REPLACEMENT CHARACTER}", "1", "1"),
        ("'=cmd|x", "1", "7"),
    ]
    assert found["status"] == [("200", "3", "151"), ("304", "1", "0"), ("400", "1", "9"), ("404", "1", "7")]
    assert found["day"] == [("2026-11-03", "2", "100"), ("2026-11-04", "4", "67")]
    assert simulated.messages[-1] == "9 lines counted, 3 malformed, 5 paths."
    size = log.stat().st_size
    assert simulated.progress[-1] == {"progress": size, "total": size, "label": "bytes read"}


def test_log_report_counts_the_log_that_it_made(simulated: SimulatedRun) -> None:
    result = simulated.execute(SAMPLES / "log_report.py", "--generate", "5000", "--seed", "3")

    assert result.code == 0
    lines = (simulated.output / "access.log").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 5000
    # Counted in another way: the words of a whole line have fixed places.
    whole = [line.split('"')[1:3] for line in lines if len(line) > 30]
    statuses = Counter(rest.split()[0] for _request, rest in whole)
    paths = Counter(request.split()[1].split("?")[0] for request, _rest in whole if "HTTP" in request)
    by_status = {row["status"]: int(row["hits"]) for row in read_csv(simulated.output / "hits_by_status.csv")}
    by_path = {row["path"]: int(row["hits"]) for row in read_csv(simulated.output / "hits_by_path.csv")}
    by_day = {row["day"]: int(row["hits"]) for row in read_csv(simulated.output / "hits_by_day.csv")}
    assert by_status == statuses
    assert {path: hits for path, hits in by_path.items() if path != "(no valid request)"} == paths
    assert sum(by_day.values()) == len(whole) < 5000
    assert 7 <= len(by_day) <= 8
    assert simulated.messages[-1] == f"5000 lines counted, {5000 - len(whole)} malformed, {len(by_path)} paths."


def test_log_report_makes_the_same_traffic_from_the_same_seed(tmp_path: Path) -> None:
    runs = [SimulatedRun(tmp_path / name) for name in ("one", "two", "three")]
    for each, seed in zip(runs, ["1", "1", "2"], strict=True):
        each.execute(SAMPLES / "log_report.py", "--generate", "300", "--seed", seed)

    one, two, three = ((each.output / "hits_by_path.csv").read_text() for each in runs)
    assert one == two != three


def test_log_report_generates_a_log_of_its_own_size_when_it_is_not_said(simulated: SimulatedRun) -> None:
    assert simulated.execute(SAMPLES / "log_report.py", "--generate").code == 0

    assert simulated.messages[-1].startswith("20000 lines counted, ")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "The log {log} cannot be read: No such file or directory."),
        (gzip.compress(LOG.encode() * 1000)[:-20], "The log {log} cannot be read: Compressed file ended"),
        (b"\x1f\x8b not gzip", "The log {log} cannot be read: "),
        (b"not\na log\n", "The log {log} has 2 lines, and none is in the combined log format."),
    ],
)
def test_log_report_says_what_is_wrong_with_a_log(
    simulated: SimulatedRun, tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    log = tmp_path / "access.log"
    if content is not None:
        log.write_bytes(content)

    result = simulated.execute(SAMPLES / "log_report.py", str(log))

    assert result.code == 1
    assert result.log.startswith(sentence.format(log=log))
    assert len(result.log.splitlines()) == 1
    assert simulated.files() == []


def test_log_report_needs_a_log(simulated: SimulatedRun) -> None:
    assert simulated.execute(SAMPLES / "log_report.py").code == 2


# clear_sessions


def test_clear_sessions_removes_the_expired_ones_and_says_how_many(site: Site, site_run: SimulatedRun) -> None:
    site.do(
        """
from datetime import timedelta
from django.contrib.sessions.models import Session
from django.utils import timezone
now = timezone.now()
for number in range(3):
    Session.objects.create(session_key=f"old{number}", session_data="x", expire_date=now - timedelta(days=1))
Session.objects.create(session_key="new", session_data="x", expire_date=now + timedelta(days=1))
"""
    )

    result = site_run.execute(SAMPLES / "clear_sessions.py")

    assert (result.code, result.log) == (0, "")
    assert site_run.messages == ["3 expired sessions removed."]
    left = site.do(
        """
from django.contrib.sessions.models import Session
result = list(Session.objects.values_list("pk", flat=True))
"""
    )
    assert left == ["new"]


def test_clear_sessions_knows_sites_that_keep_sessions_elsewhere(simulated: SimulatedRun, tmp_path: Path) -> None:
    (tmp_path / "cache_settings.py").write_text(
        """
SECRET_KEY = "only-for-a-test"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.sessions"]
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
"""
    )
    simulated.environment = {"DJANGO_SETTINGS_MODULE": "cache_settings", "PYTHONPATH": f"{PROJECT}:{tmp_path}"}

    result = simulated.execute(SAMPLES / "clear_sessions.py")

    assert (result.code, result.log) == (0, "")
    assert "nobody counts them" in simulated.messages[0]


# run_command and word_count


def test_run_command_passes_arguments_output_and_exit_code_on(simulated: SimulatedRun) -> None:
    result = simulated.execute(
        SAMPLES / "run_command.py", "--", "sh", "-c", 'echo "$@" >&2; exit 5', "-h", "$HOME", "a b"
    )

    assert (result.code, result.log) == (5, "$HOME a b\n")
    assert simulated.messages == ["“sh” failed with exit code 5."]


def test_run_command_needs_no_dashes(simulated: SimulatedRun) -> None:
    result = simulated.execute(SAMPLES / "run_command.py", "echo", "-h", "--", "x")

    assert (result.code, result.log) == (0, "-h -- x\n")
    assert simulated.messages == []


def test_run_command_passes_a_signal_on_as_a_shell_does(simulated: SimulatedRun) -> None:
    result = simulated.execute(SAMPLES / "run_command.py", "sh", "-c", "kill -KILL $$")

    assert result.code == 128 + signal.SIGKILL
    assert simulated.messages == ["“sh” failed with exit code 137 (SIGKILL)."]


def test_run_command_says_that_there_is_no_such_program(simulated: SimulatedRun) -> None:
    result = simulated.execute(SAMPLES / "run_command.py", "no-such-program")

    assert result.code == 127
    assert result.log.startswith("There is no program “no-such-program”")
    assert len(result.log.splitlines()) == 1


def test_run_command_says_that_a_program_is_not_executable(simulated: SimulatedRun, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("x")

    result = simulated.execute(SAMPLES / "run_command.py", str(tmp_path / "data.txt"))

    assert result.code == 126
    assert "cannot be run: Permission denied." in result.log
    assert len(result.log.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["--"], [""]])
def test_run_command_needs_a_program(simulated: SimulatedRun, arguments: list[str]) -> None:
    result = simulated.execute(SAMPLES / "run_command.py", *arguments)

    assert result.code == 2
    assert "name the program to run" in result.log


def test_run_command_hands_on_only_the_variables_that_are_named(simulated: SimulatedRun) -> None:
    simulated.environment = {"WANTED": "1", "UNWANTED": "1"}

    result = simulated.execute(SAMPLES / "run_command.py", "--env", "WANTED", "--env", "UNSET", "env")

    names = {line.split("=")[0] for line in result.log.splitlines()}
    assert "WANTED" in names
    assert not names & {"UNWANTED", "UNSET"}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / 'some "texts"'
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("one two\nthree\n")
    (folder / "sub" / 'b "quoted", \\.txt').write_text("four")
    (folder / "c\nnewline.txt").write_text("is left out")
    (folder / "d.md").write_text("five six\n")
    return folder


WORDS = [
    {"file": "./a.txt", "lines": "2", "words": "3", "bytes": "14"},
    {"file": "./d.md", "lines": "1", "words": "2", "bytes": "9"},
    {"file": './sub/b "quoted", \\.txt', "lines": "0", "words": "1", "bytes": "4"},
]


def test_word_count_reports_and_writes_through_run_command(simulated: SimulatedRun, texts: Path) -> None:
    result = simulated.execute(SAMPLES / "run_command.py", "word_count.sh", str(texts))

    assert (result.code, result.log) == (0, "")
    assert simulated.files() == ["word_count.csv"]
    assert read_csv(simulated.output / "word_count.csv") == WORDS
    assert simulated.messages == [f"Counting the words of 3 files in {texts}", "6 words in 3 lines of 3 files."]
    assert simulated.progress == [{"progress": done, "total": 3, "label": "files"} for done in (1, 2, 3)]


def test_word_count_takes_a_pattern(simulated: SimulatedRun, texts: Path) -> None:
    simulated.execute(SAMPLES / "run_command.py", "--", "word_count.sh", str(texts), "*.md")

    assert read_csv(simulated.output / "word_count.csv") == WORDS[1:2]


def test_word_count_counts_its_own_folder_when_none_is_named(simulated: SimulatedRun) -> None:
    assert simulated.execute(SAMPLES / "run_command.py", "word_count.sh").code == 0

    counted = {row["file"] for row in read_csv(simulated.output / "word_count.csv")}
    assert {"./word_count.sh", "./countdown.py"} <= counted


def test_word_count_works_by_hand(texts: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()

    result = execute([SAMPLES / "word_count.sh", texts], env={"PATH": os.environ["PATH"]}, cwd=here)

    assert result.code == 0
    assert json.loads(result.log.splitlines()[-1]) == {"message": "6 words in 3 lines of 3 files."}
    assert read_csv(here / "word_count.csv") == WORDS


def test_word_count_says_that_there_is_no_folder(simulated: SimulatedRun) -> None:
    result = simulated.execute(SAMPLES / "run_command.py", "word_count.sh", "/no/such/folder")

    assert (result.code, result.log) == (2, "There is no folder “/no/such/folder”; name one that can be read.\n")
    assert simulated.files() == []


# purge_runs

# One task with runs of 0, 10, 20 … days ago; gives their ids, the newest first.
HISTORY = """
from datetime import timedelta
from django.utils import timezone
from scheduler.models import OutputFile, Recurrence, Run, RunEvent, Schedule, StoreRemoval, Task
import uuid
now = timezone.now()
HOST = uuid.UUID(int=7)

def task(name):
    return Task.objects.create(name=name, program_root="sample_tasks", program_path="countdown.py")

def finished(task, days, status="completed", reason="exit_code", **values):
    at = now - timedelta(days=days)
    return Run.objects.create(
        task=task, queued_at=at, due_at=at, ready_at=at, finished_at=at, status=status, reason=reason, **values)

def history(name, count):
    mine = task(name)
    return [finished(mine, 10 * number, host=HOST).pk for number in range(count)]
"""


def test_purge_runs_goes_by_age_and_by_number(site: Site, site_run: SimulatedRun) -> None:
    first, second = site.do(
        HISTORY
        + """
result = [history("first", 6), history("second", 3)]
for pk in result[0]:
    run = Run.objects.get(pk=pk)
    OutputFile.objects.create(run=run, name="a", size=1024, sha256="0" * 64, created_at=now)
    OutputFile.objects.create(run=run, name="b", size=1024, sha256="0" * 64, created_at=now)
    run.record(RunEvent.What.FINISHED, now=now)
"""
    )

    result = site_run.execute(SAMPLES / "purge_runs.py", "--days", "15", "--keep", "3")

    assert (result.code, result.log) == (0, "")
    left, removals, hosts, files, events = site.do(
        HISTORY
        + """
result = [
    sorted(Run.objects.values_list("pk", flat=True)),
    StoreRemoval.objects.count(),
    [str(each) for each in StoreRemoval.objects.values_list("host", flat=True).distinct()],
    OutputFile.objects.count(),
    RunEvent.objects.count(),
]
"""
    )
    # Of the first the newest three are kept, though one is old; the second has no more than three.
    assert left == sorted(first[:3] + second)
    assert (removals, hosts, files, events) == (3, [str(uuid.UUID(int=7))], 6, 3)
    assert site_run.messages == ["3 runs with 6 files (6.0 KiB) deleted."]
    assert site_run.progress[-1] == {"progress": 3, "total": 3, "label": "runs"}


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["--days", "25", "--keep", "0"], 3),
        (["--days", "0", "--keep", "2"], 2),
        (["--days", "15", "--keep", "4"], 4),
        (["--days", "90"], 6),
    ],
)
def test_purge_runs_by_age_alone_or_by_number_alone(
    site: Site, site_run: SimulatedRun, arguments: list[str], kept: int
) -> None:
    ids = site.do(HISTORY + "result = history('task', 6)")

    assert site_run.execute(SAMPLES / "purge_runs.py", *arguments).code == 0

    assert site.do(HISTORY + "result = sorted(Run.objects.values_list('pk', flat=True))") == sorted(ids[:kept])


def test_purge_runs_never_takes_what_is_queued_or_processing(site: Site, site_run: SimulatedRun) -> None:
    expected = site.do(
        HISTORY
        + """
mine = task("task")
long_ago = now - timedelta(days=500)
kept = [
    Run.objects.create(task=mine, queued_at=long_ago, due_at=long_ago),
    Run.objects.create(task=mine, queued_at=long_ago, due_at=long_ago, ready_at=long_ago),
    Run.objects.create(task=mine, queued_at=long_ago, due_at=long_ago, ready_at=long_ago, claimed_at=long_ago,
        status="processing", claim_token="t", host=HOST),
]
finished(mine, 500)
finished(mine, 500, "failed", "lost")
finished(mine, 500, "cancelled", "stopped_by_user")
finished(mine, 500, "skipped", "overlap")
result = [run.pk for run in kept]
"""
    )

    site_run.execute(SAMPLES / "purge_runs.py", "--days", "0", "--keep", "0")

    assert site.do(HISTORY + "result = sorted(Run.objects.values_list('pk', flat=True))") == expected
    assert site_run.messages == ["4 runs with 0 files (0 B) deleted."]


def test_purge_runs_leaves_schedules_as_they_are(site: Site, site_run: SimulatedRun) -> None:
    before = site.do(
        HISTORY
        + """
mine = task("task")
daily = Recurrence.objects.create(name="daily", kind="every", every=1, unit="days")
def schedule():
    one = Schedule.objects.create(task=mine, recurrence=daily, anchor=now - timedelta(days=400))
    for days in (300, 200):
        finished(mine, days, schedule=one, slot_at=now - timedelta(days=days))
    return one
def take_out(schedule):
    slot = schedule.next_slot(schedule.next_run.slot_at)
    return finished(mine, 250, "cancelled", "stopped_by_user", schedule=schedule, slot_at=slot).pk

going = schedule()
going.plan(now)
# Somebody took out the slot after the next one, long ago; one is to come, one passed while no poller was up.
coming = schedule()
coming.plan(now)
waiting = schedule()
waiting.plan(now - timedelta(days=150))
# The same where the schedule was disabled afterwards, and may be enabled again.
disabled = schedule()
disabled.plan(now)
taken_out = [take_out(coming), take_out(waiting), take_out(disabled)]
disabled.enabled = False
disabled.save()
disabled.plan(now)
schedules = [going, coming, waiting, disabled]
result = {
    "taken_out": taken_out,
    "schedules": [each.pk for each in schedules],
    "next": [each.next_run_id for each in schedules],
}
"""
    )

    assert site_run.execute(SAMPLES / "purge_runs.py", "--days", "0", "--keep", "0").code == 0

    after = site.do(
        HISTORY
        + f"""
schedules = [Schedule.objects.get(pk=pk) for pk in {before["schedules"]}]
result = {{
    "finished": sorted(Run.objects.finished().values_list("pk", flat=True)),
    "next": [schedule.next_run_id for schedule in schedules],
}}
"""
    )
    assert after["finished"] == sorted(before["taken_out"])
    assert after["next"] == before["next"]
    assert site_run.messages == ["8 runs with 0 files (0 B) deleted."]


def test_purge_runs_takes_the_slots_of_a_schedule_that_is_over(site: Site, site_run: SimulatedRun) -> None:
    site.do(
        HISTORY
        + """
mine = task("task")
once = Recurrence.objects.create(name="once", kind="once")
over = Schedule.objects.create(task=mine, recurrence=once, anchor=now - timedelta(days=200))
finished(mine, 200, schedule=over, slot_at=over.anchor)
over.plan(now)
"""
    )

    site_run.execute(SAMPLES / "purge_runs.py", "--days", "90", "--keep", "0")

    left = site.do(
        HISTORY
        + """
Schedule.objects.get().plan(now)
result = [Run.objects.count(), Schedule.objects.get().ended]
"""
    )
    assert left == [0, True]


def test_purge_runs_dry_run_lists_what_would_go_and_deletes_nothing(site: Site, site_run: SimulatedRun) -> None:
    ids = site.do(HISTORY + "result = history('my task', 4)")

    result = site_run.execute(SAMPLES / "purge_runs.py", "--days", "15", "--keep", "0", "--dry-run")

    assert result.code == 0
    listed = [line.split()[0] for line in result.log.splitlines()]
    assert listed == [f"#{pk}" for pk in sorted(ids[2:])]
    assert all("my task: completed " in line for line in result.log.splitlines())
    assert site_run.messages == ["2 runs with 0 files (0 B) would be deleted."]
    assert site.do(HISTORY + "result = Run.objects.count()") == 4


def test_purge_runs_can_be_about_one_task(site: Site, site_run: SimulatedRun) -> None:
    mine, others = site.do(HISTORY + "result = [history('mine', 3), history('others', 3)]")

    site_run.execute(SAMPLES / "purge_runs.py", "--days", "0", "--keep", "1", "--task", "mine")

    assert site.do(HISTORY + "result = sorted(Run.objects.values_list('pk', flat=True))") == sorted(mine[:1] + others)

    refused = site_run.execute(SAMPLES / "purge_runs.py", "--task", "nobody's")
    assert refused.code == 2
    assert "there is no task “nobody's”" in refused.log


def test_purge_runs_works_in_chunks(site: Site, site_run: SimulatedRun) -> None:
    site.do(
        HISTORY
        + """
mine = task("task")
at = now - timedelta(days=200)
Run.objects.bulk_create(
    Run(task=mine, queued_at=at, due_at=at, ready_at=at, finished_at=at, status="completed", reason="exit_code")
    for number in range(1000))
"""
    )

    site_run.execute(SAMPLES / "purge_runs.py", "--keep", "5")

    assert site.do(HISTORY + "result = Run.objects.count()") == 5
    assert site_run.messages == ["995 runs with 0 files (0 B) deleted."]


# countdown


def test_countdown_reports_every_second(simulated: SimulatedRun) -> None:
    result = simulated.execute(SAMPLES / "countdown.py", "2")

    assert (result.code, result.log) == (0, "")
    assert simulated.messages == ["2 seconds to go", "1 seconds to go", "Counted 2 seconds."]
    assert [(each["progress"], each["total"]) for each in simulated.progress] == [(0, 2), (1, 2), (2, 2)]


def test_countdown_ends_properly_when_it_is_stopped(simulated: SimulatedRun) -> None:
    with subprocess.Popen(
        [sys.executable, SAMPLES / "countdown.py", "600"],
        env=simulated.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as program:
        # Wait for its first message.
        while program.poll() is None and not simulated.messages:
            pass
        program.send_signal(signal.SIGTERM)
        log, _ = program.communicate(timeout=SECONDS)

    assert (program.returncode, log) == (143, "")
    assert re.fullmatch(r"Stopped after \d+ of 600 seconds\.", simulated.messages[-1])


@pytest.mark.parametrize("seconds", ["-1", "x", "1e3", "86401"])
def test_countdown_refuses_what_is_no_time(simulated: SimulatedRun, seconds: str) -> None:
    result = simulated.execute(SAMPLES / "countdown.py", "--", seconds)

    assert result.code == 2
    assert "countdown.py: error: argument seconds" in result.log


# fails


def test_fails_by_an_exception(simulated: SimulatedRun) -> None:
    result = simulated.execute(SAMPLES / "fails.py")

    assert result.code == 1
    assert result.log.endswith("RuntimeError: This task fails on purpose.\n")


def test_fails_by_an_exit_code(simulated: SimulatedRun) -> None:
    result = simulated.execute(SAMPLES / "fails.py", "--how", "exit")

    assert (result.code, result.log) == (3, "This task fails on purpose, with exit code 3.\n")


def test_fails_by_a_signal(simulated: SimulatedRun) -> None:
    result = simulated.execute(SAMPLES / "fails.py", "--how", "signal")

    assert (result.code, result.log) == (-signal.SIGKILL, "")
    assert simulated.messages == ["About to fail (signal)."]


# By hand


def test_by_hand_they_find_the_project_and_its_models(site: Site, tmp_path: Path) -> None:
    site.do("from django.contrib.auth.models import User\nUser.objects.create_user('anna')")
    variables = {**by_hand(), **site.variables}
    del variables["DJANGO_SETTINGS_MODULE"]
    here = tmp_path / "here"
    here.mkdir()

    result = execute([sys.executable, SAMPLES / "export_users.py"], env=variables, cwd=here)

    assert result.code == 0, result.log
    assert result.log.splitlines()[-1] == "1 user exported."
    assert [row["username"] for row in read_csv(here / "users.csv")] == ["anna"]


# The examples in the documentation


def example(language: str) -> str:
    text = (PROJECT / "docs" / "writing_tasks.md").read_text(encoding="utf-8")
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return str(found)


def test_the_python_example_of_the_documentation_works(site: Site, site_run: SimulatedRun) -> None:
    pk = site.do(
        """
from django.contrib.auth.models import User
User.objects.create_user("eve")
result = User.objects.create_user("anna").pk
"""
    )

    result = site_run.execute_text(example("python"), "--longer-than", "3")

    assert (result.code, result.log) == (0, "")
    assert read_csv(site_run.output / "names.csv") == [{"id": str(pk), "length": "4"}]
    assert site_run.messages == ["1 names written."]


def test_the_shell_example_of_the_documentation_works(simulated: SimulatedRun, tmp_path: Path) -> None:
    script = tmp_path / "steps.sh"
    script.write_text(example("sh"))
    script.chmod(0o755)

    result = simulated.execute(SAMPLES / "run_command.py", str(script))

    assert (result.code, result.log) == (0, "")
    assert (simulated.output / "result.txt").read_text() == "some result\n"
    assert simulated.messages == ["Three steps done."]
    assert simulated.progress[-1] == {"progress": 3, "total": 3, "label": "steps"}


def test_every_sample_task_is_documented() -> None:
    text = (PROJECT / "docs" / "writing_tasks.md").read_text(encoding="utf-8")
    table = text.partition("## The sample tasks")[2]

    named = re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)
    assert sorted(named) == sorted(path.name for path in SAMPLES.iterdir() if path.is_file())
