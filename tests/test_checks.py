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


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SCHEDULER", None, "scheduler.E001"),
        ("ANONYMOUS_USER_NAME", "AnonymousUser", "scheduler.W002"),
        ("SENDFILE_ROOT", "/nowhere", "scheduler.E004"),
        ("SENDFILE_ROOT", None, "scheduler.E004"),
        ("SENDFILE_BACKEND", "", "scheduler.E005"),
        ("USE_TZ", False, "scheduler.E006"),
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
