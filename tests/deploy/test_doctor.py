"""``manage.py doctor``: a line each, and for everything that can go wrong the line that says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Permission
from django.core import signing
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from scheduler import doctor, outputs, probe
from scheduler.models import Poller
from scheduler.poller.host import this_host

from .conftest import environment_of
from .site import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

    from django.test import Client

    from .site import Site


@pytest.fixture
def healthy(db: None, settings: Any, tmp_path: Path) -> Path:
    """A set-up in which everything is well; its ROOT."""
    (tmp_path / "programs").mkdir(mode=0o755)
    (tmp_path / "programs" / "report.py").write_text("print('hello')")
    root = tmp_path / "root"
    settings.SCHEDULER = {**settings.SCHEDULER, "ROOT": root, "PROGRAM_ROOTS": {"tasks": tmp_path / "programs"}}
    settings.SENDFILE_ROOT = root / "store"
    outputs.make_root()
    now = timezone.now()
    Poller.objects.create(
        host=this_host().id,
        host_name="here",
        pid=1,
        boot_id="boot",
        start_ticks=1,
        version="0.1.0",
        capacity=4,
        started_at=now,
        seen_at=now,
    )
    return root


def wrong() -> dict[str, str]:
    found = list(doctor.examine(url="", now=timezone.now()))
    assert all("\n" not in finding.text for finding in found)
    return {finding.what: finding.text for finding in found if not finding.is_well}


def test_a_healthy_set_up_is_green(healthy: Path) -> None:
    assert wrong() == {}


def test_the_command_prints_a_line_each_and_ends_with_0_or_1(healthy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("doctor")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 14
    assert all(line.startswith("ok ") for line in lines)
    (healthy / "store").chmod(0o2777)
    with pytest.raises(SystemExit) as ended:
        call_command("doctor")
    assert ended.value.code == 1
    assert "WRONG  folders" in capsys.readouterr().out


def test_without_a_poller_it_says_how_to_start_one(healthy: Path) -> None:
    Poller.objects.update(seen_at=timezone.now() - timedelta(minutes=1))
    assert "systemctl start scheduler-poller" in wrong()["poller"]
    (healthy / "host.json").unlink()
    assert "none was ever up" in wrong()["poller"]
    (healthy / "host.json").write_text("{")
    assert "is damaged" in wrong()["poller"]


def test_a_poller_of_an_older_version_is_to_be_restarted(healthy: Path) -> None:
    Poller.objects.update(version="0.0.1")
    assert wrong()["poller"] == "version 0.0.1 runs, 0.1.0 is installed; restart it"


def test_a_poller_that_starts_nothing_on_a_full_disk_is_told(healthy: Path) -> None:
    Poller.objects.update(is_out_of_room=True)
    assert wrong()["poller"] == "here (1) starts no run, since its disk is nearly full; purge old runs, or make room"


def test_starts_that_are_cold_are_told_with_the_reason_unless_that_was_chosen(healthy: Path, settings: Any) -> None:
    Poller.objects.update(cold_reason="LookupError: no\nsuch luck")
    assert "here (1): LookupError: no such luck" in wrong()["warm starts"]
    settings.SCHEDULER = {**settings.SCHEDULER, "WARM": False}
    assert wrong() == {}
    settings.SCHEDULER = {**settings.SCHEDULER, "WARM": True}
    Poller.objects.update(ended_at=timezone.now())
    assert "warm starts" not in wrong()


@pytest.mark.parametrize(
    ("folder", "mode"),
    [("", 0o700), ("", 0o733), ("runs", 0o755), ("wake", 0o750), ("store", 0o2755), ("store", 0o700)],
)
def test_a_folder_with_another_mode_is_told_with_the_command_that_mends_it(
    healthy: Path, folder: str, mode: int
) -> None:
    (healthy / folder).chmod(mode)
    said = wrong()["folders"]
    assert f"has the mode {mode:o}" in said
    command = said.partition("run ")[2].split()
    subprocess.run(command, check=True)
    assert wrong() == {}


def test_a_folder_that_is_missing_is_told(healthy: Path) -> None:
    shutil.rmtree(healthy / "wake")
    assert "is missing" in wrong()["folders"]


def test_a_folder_of_another_user_is_told(healthy: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("changing the owner needs root: NOT TESTED HERE")
    os.chown(healthy / "store", 1, -1)
    assert "and not to root" in wrong()["folders"]


def test_a_store_group_that_is_missing_or_not_the_folders_is_told(healthy: Path, settings: Any) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "STORE_GROUP": "no-such-group"}
    assert "groupadd --system no-such-group" in wrong()["store group"]
    settings.SCHEDULER = {**settings.SCHEDULER, "STORE_GROUP": "www-data"}
    assert "chgrp www-data" in wrong()["store group"]


def test_a_full_disk_is_told(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FREE_BYTES", 10**18)
    assert "GiB are free" in wrong()["disk"]


def test_program_folders_and_users_are_looked_at(healthy: Path, settings: Any) -> None:
    given = settings.SCHEDULER
    given["PROGRAM_ROOTS"]["tasks"].chmod(0o777)
    settings.SCHEDULER = {**given, "PROGRAM_USERS": {"tasks": "no-such-user"}}
    found = wrong()
    assert "chmod go-w" in found["programs"]
    assert "no-such-user" in found["task users"]
    assert "(manage.py check tells them all)" in found["settings"]


def test_permissions_that_are_not_in_the_database_are_told(healthy: Path) -> None:
    Permission.objects.filter(codename="view_output").delete()
    assert wrong()["permissions"] == "not in the database: view_output; run manage.py migrate"


def test_a_pending_migration_is_told(healthy: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'demo'")
    assert "pending: 1, the first is demo.0001_initial" in wrong()["migrations"]


def test_a_missing_cache_table_is_told(healthy: Path, settings: Any) -> None:
    table = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "nowhere"}
    settings.CACHES = {**settings.CACHES, "logins": table}
    assert "manage.py createcachetable" in wrong()["cache tables"]


# The probe


def test_the_probe_is_there_for_the_doctor_only_and_only_while_it_waits(healthy: Path, client: Client) -> None:
    with probe.probe() as sent:
        answer = client.get(f"/scheduler/probe/{sent.token}/")
        assert (answer.status_code, b"".join(answer)) == (200, sent.content)
        assert answer["Content-Disposition"].startswith("attachment")
        assert client.get(f"/scheduler/probe/{sent.path.name}/").status_code == 404
        assert client.get(f"/scheduler/probe/{sent.token[:-1]}/").status_code == 404
    assert not sent.path.exists()
    assert client.get(f"/scheduler/probe/{sent.token}/").status_code == 404


def test_a_signed_name_is_no_use_after_a_minute(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with probe.probe() as sent:
        assert probe.path_of(sent.token) == sent.path
        monkeypatch.setattr(probe, "SECONDS", -1)
        assert probe.path_of(sent.token) is None


@pytest.mark.parametrize("name", ["../../etc/passwd", "", 7, None, ["x"], "0" * 31])
def test_even_a_signed_name_leads_to_nothing_but_a_probe(healthy: Path, name: object) -> None:
    assert probe.path_of(signing.dumps(name, salt=probe.SALT)) is None


def test_a_signature_for_something_else_is_none_for_the_probe(healthy: Path) -> None:
    assert probe.path_of(signing.dumps("0" * 32)) is None


# Through nginx


def ask(site: Site, url: str, **variables: str) -> str:
    """The doctor's line about downloads, from a process of its own."""
    command = [sys.executable, str(PROJECT / "manage.py"), "doctor", "--url", url, "--no-color"]
    environment = {**environment_of(site), "SSL_CERT_FILE": str(site.certificate), **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    [line] = [line for line in done.stdout.splitlines() if line[7:].startswith("downloads")]
    return line


@pytest.mark.processes
def test_it_sees_whether_downloads_arrive(whole_site: Site) -> None:
    assert ask(whole_site, whole_site.address).startswith("ok ")
    assert [path for path in whole_site.store.iterdir() if path.is_file()] == []


@pytest.mark.processes
def test_it_says_why_they_do_not(whole_site: Site, tmp_path: Path) -> None:
    assert "is not trusted" in ask(whole_site, whole_site.address, SSL_CERT_FILE="/dev/null")
    assert "does not answer" in ask(whole_site, "https://localhost:1")
    assert "no address of a site" in ask(whole_site, "localhost")
    (tmp_path / "store").mkdir()
    # Django and nginx mean different folders:
    assert "compare SENDFILE_URL" in ask(whole_site, whole_site.address, SCHEDULER_ROOT=str(tmp_path))
