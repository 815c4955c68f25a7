"""The system checks: each wrong set-up is told in one sentence, and a right one in none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.conf import settings as site
from django.core.checks import run_checks
from django.db import connection

from scheduler import checks

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_django.fixtures import Settings


def ids() -> set[str]:
    return {message.id or "" for message in run_checks(tags=["scheduler"])}


def test_this_project_is_set_up_as_it_should_be() -> None:
    assert run_checks(tags=["scheduler"]) == []


class Replica:
    """A site's router that sends what is only read to a copy of its database."""

    def db_for_read(self, _model: object, **_hints: object) -> str:
        return "replica"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SCHEDULER", None, "scheduler.E001"),
        ("ANONYMOUS_USER_NAME", "AnonymousUser", "scheduler.W002"),
        ("SENDFILE_ROOT", "/nowhere", "scheduler.E004"),
        ("SENDFILE_ROOT", None, "scheduler.E004"),
        ("SENDFILE_BACKEND", "", "scheduler.E005"),
        ("USE_TZ", False, "scheduler.E006"),
        ("DATABASE_ROUTERS", ["tests.test_checks.Replica"], "scheduler.E011"),
        ("AUTHENTICATION_BACKENDS", ["django.contrib.auth.backends.ModelBackend"], "scheduler.E007"),
    ],
)
def test_a_wrong_setting_is_told(settings: Settings, name: str, value: object, expected: str) -> None:
    setattr(settings, name, value)
    assert ids() == {expected}


def test_a_site_without_guardian_is_told(settings: Settings) -> None:
    settings.INSTALLED_APPS = [app for app in site.INSTALLED_APPS if app != "guardian"]
    assert "scheduler.E002" in {message.id for message in checks.check_site()}


def test_a_missing_program_folder_is_told(settings: Settings, tmp_path: Path) -> None:
    settings.SCHEDULER = {**site.SCHEDULER, "PROGRAM_ROOTS": {"gone": tmp_path / "gone"}}
    assert ids() == {"scheduler.W001"}


def test_a_store_behind_a_symbolic_link_is_the_same_store(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    settings.SCHEDULER = {**site.SCHEDULER, "STORE": tmp_path / "link"}
    settings.SENDFILE_ROOT = tmp_path / "real"
    assert ids() == set()


def test_sqlite_with_its_default_transactions_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.check_sqlite(databases=["default"]) == []
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})
    expected = ["scheduler.W003"] if connection.vendor == "sqlite" else []
    assert [message.id for message in checks.check_sqlite(databases=["default"])] == expected


def test_a_database_that_is_not_asked_for_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})
    assert checks.check_sqlite(databases=None) == []


@pytest.mark.parametrize("name", ["MEDIA_ROOT", "STATIC_ROOT"])
@pytest.mark.parametrize(("store", "public"), [("public/store", "public"), ("store", "store/public"), ("same", "same")])
def test_a_store_that_the_web_server_shows_to_everybody_is_told(
    settings: Settings, tmp_path: Path, name: str, store: str, public: str
) -> None:
    settings.SCHEDULER = {**site.SCHEDULER, "STORE": tmp_path / store}
    settings.SENDFILE_ROOT = tmp_path / store
    setattr(settings, name, str(tmp_path / public))
    assert ids() == {"scheduler.E008"}


def test_a_link_does_not_hide_that_the_store_is_public(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "public")
    settings.SCHEDULER = {**site.SCHEDULER, "STORE": tmp_path / "link" / "store"}
    settings.SENDFILE_ROOT = tmp_path / "link" / "store"
    settings.MEDIA_ROOT = str(tmp_path / "public")
    assert ids() == {"scheduler.E008"}


def test_folders_beside_each_other_are_fine(settings: Settings, tmp_path: Path) -> None:
    settings.SCHEDULER = {**site.SCHEDULER, "STORE": tmp_path / "store"}
    settings.SENDFILE_ROOT = tmp_path / "store"
    settings.MEDIA_ROOT = str(tmp_path / "store2")
    assert ids() == set()


def test_a_store_that_everybody_can_write_is_told(settings: Settings, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    settings.SCHEDULER = {**site.SCHEDULER, "STORE": tmp_path}
    settings.SENDFILE_ROOT = tmp_path
    assert ids() == {"scheduler.E009"}


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_program_folder_that_others_can_write_is_told(settings: Settings, tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    settings.SCHEDULER = {**site.SCHEDULER, "PROGRAM_ROOTS": {"tasks": tmp_path}}
    assert ids() == {"scheduler.W004"}


@pytest.mark.parametrize("url", [None, "", "/", "//", "protected/", "/protected"])
def test_behind_nginx_the_address_of_the_internal_location_has_a_slash_at_both_ends(
    settings: Settings, url: str | None
) -> None:
    settings.SENDFILE_URL = url
    assert ids() == set()  # streamed by ourselves, nobody asks for it
    settings.SENDFILE_BACKEND = checks.NGINX_BACKEND
    assert ids() == {"scheduler.E010"}


def test_what_is_not_meant_for_production_is_told_only_there(settings: Settings) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert ids() == set()
    expected = {"scheduler.W006", "scheduler.W008"} | ({"scheduler.W007"} if connection.vendor == "sqlite" else set())
    assert {message.id for message in checks.check_production()} == expected
    settings.SENDFILE_BACKEND = checks.NGINX_BACKEND
    settings.SCHEDULER = {**site.SCHEDULER, "CLIENT_ADDRESS_HEADER": "X-Real-IP"}
    assert {message.id for message in checks.check_production()} <= {"scheduler.W007"}
