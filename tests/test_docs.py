"""The documentation is complete: a setting, a variable or a command that nobody can find does not exist."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from scheduler.conf import SchedulerSettings

PROJECT = Path(__file__).resolve().parent.parent
SETTINGS_PAGE = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")
PAGES = {path: path.read_text(encoding="utf-8") for path in [PROJECT / "README.md", *PROJECT.glob("docs/**/*.md")]}
SETTING_NAMES = sorted(field.name.upper() for field in dataclasses.fields(SchedulerSettings))


def environment_variables(path: Path) -> set[str]:
    """The names that a module reads from the environment, as literals."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(
                func=ast.Attribute(value=owner, attr="get" | "getenv"), args=[ast.Constant(value=str(name)), *_]
            ):
                if ast.unparse(owner) in {"os.environ", "os"}:
                    found.add(name)
            case ast.Subscript(value=owner, slice=ast.Constant(value=str(name))) if ast.unparse(owner) == "os.environ":
                found.add(name)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="dj_database_url"), attr="config")):
                found.add("DATABASE_URL")
    return found


def commands() -> list[str]:
    return sorted(path.stem for path in PROJECT.glob("*/management/commands/*.py") if not path.stem.startswith("_"))


def table_rows(page: str) -> set[str]:
    """What stands in backquotes in the first column of the page's tables."""
    return {
        name
        for line in page.splitlines()
        if line.startswith("|")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }


@pytest.mark.parametrize("name", SETTING_NAMES)
def test_every_setting_has_its_row(name: str) -> None:
    assert name in table_rows(SETTINGS_PAGE)


def test_every_environment_variable_has_its_row() -> None:
    read = environment_variables(PROJECT / "conf" / "settings.py")
    assert {"DATABASE_URL", "DJANGO_DEBUG", "SCHEDULER_VAR"} <= read
    assert read - table_rows(SETTINGS_PAGE) == set()


def test_no_variable_or_setting_is_documented_that_does_not_exist() -> None:
    known = {
        *SETTING_NAMES,
        *environment_variables(PROJECT / "conf" / "settings.py"),
        *environment_variables(PROJECT / "tests" / "servers.py"),
        *(f"SENDFILE_{name}" for name in ("BACKEND", "ROOT", "URL")),
        "SCHEDULER_TESTS_FULL",
    }
    assert table_rows(SETTINGS_PAGE) <= known


@pytest.mark.parametrize("command", commands())
def test_every_command_is_documented(command: str) -> None:
    assert any(re.search(rf"`(python manage\.py )?{command}[` ]", text) for text in PAGES.values())


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", PAGES[page]):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in PROJECT.glob("docs/decisions/*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_picture_is_shown_and_every_picture_that_is_shown_is_there() -> None:
    folder = PROJECT / "docs" / "screenshots"
    shown = re.findall(r"\(([\w-]+\.png)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(path.name for path in folder.glob("*.png"))
