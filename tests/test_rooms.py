"""Who may import whom: the rooms of ``scheduler/``, as docs/decisions/ and the design have them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
APP = PROJECT / "scheduler"

# Room -> the rooms that its modules may import, wherever in the file (also for types only).
MAY_IMPORT: dict[str, set[str]] = {
    # Leaves
    "states": set(),
    "recurrences": set(),
    "calendars": set(),
    "delays": set(),
    "conf": set(),
    "supervisor": set(),
    "sendfile": set(),
    "signals": set(),
    "prepared": set(),
    "arguments": set(),
    "sqlite_lock": set(),
    # Next to leaves
    "words": {"recurrences"},
    "preview": {"calendars", "recurrences"},
    "forecast": {"calendars", "recurrences"},
    "crontabs": {"recurrences"},
    "programs": {"conf"},
    "wakeup": {"conf"},
    "client_address": {"conf"},
    "probe": {"conf"},
    "checks": {"conf"},
    "logs": {"sendfile"},
    "ansi": {"logs"},
    "pictures": set(),
    "previews": {"logs", "pictures", "sendfile"},
    # The rows and the rule about them
    "models": {
        *("calendars", "conf", "delays", "prepared", "preview", "programs", "recurrences", "states", "wakeup", "words"),
    },
    "access": {"models", "prepared"},
    "audit": {"client_address", "models"},
    "pausing": {"audit", "models"},
    "crontab_import": {"conf", "crontabs", "models", "programs", "recurrences", "words"},
    # Files, processes, decisions
    "outputs": {"conf", "models", "supervisor"},
    "executors": {"conf", "models", "outputs", "programs", "supervisor", "task", "wakeup"},
    "poller": {
        "conf",
        "executors",
        "models",
        "outputs",
        "prepared",
        "programs",
        "signals",
        "sqlite_lock",
        "states",
        "supervisor",
        "wakeup",
    },
    "doctor": {"checks", "conf", "models", "probe", "programs", "sqlite_lock"},
    # What task programs import
    "task": set(),
    # What people see
    "argument_fields": {"access", "arguments", "models", "outputs", "programs"},
    "forms": {"access", "argument_fields", "models", "preview", "programs", "recurrences"},
    "admin": {
        *("access", "argument_fields", "audit", "conf", "forms"),
        *("models", "pausing", "programs", "recurrences", "states", "templatetags"),
    },
    "views": {
        "access",
        "ansi",
        "argument_fields",
        "audit",
        "calendars",
        "forecast",
        "forms",
        "logs",
        "models",
        "outputs",
        "pausing",
        "prepared",
        "preview",
        "previews",
        "probe",
        "programs",
        "recurrences",
        "sendfile",
        "states",
        "templatetags",
        "wakeup",
    },
    "templatetags": {"logs", "models", "preview", "states", "views"},
    "urls": {"views"},
    "apps": {"checks"},
    # Thin: they parse, call and print
    "management": {
        "access",
        "calendars",
        "conf",
        "crontab_import",
        "doctor",
        "executors",
        "logs",
        "models",
        "outputs",
        "poller",
        "preview",
        "recurrences",
    },
}

# What touches operating system processes
PROCESSES = {"subprocess", "multiprocessing", "psutil", "signal", "scheduler.supervisor", "scheduler.poller"}
HTTP = {"django.http", "django.shortcuts", "django.template", "django.views", "scheduler.views"}


def modules() -> list[Path]:
    return [path for path in sorted(APP.rglob("*.py")) if "migrations" not in path.parts]


def room_of(path: Path) -> str:
    return path.relative_to(APP).with_suffix("").parts[0]


def imports(path: Path, *, at_import_time: bool = False) -> set[str]:
    """The full names of everything that a module imports; with ``at_import_time`` only when it is loaded itself."""
    package = list(path.relative_to(PROJECT).with_suffix("").parts[:-1])
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *filter(None, [node.module])])
            found |= {f"{start}.{alias.name}" for alias in node.names}
        if at_import_time and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_types(node)):
            continue
        pending.extend(ast.iter_child_nodes(node))
    return found


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def rooms_in(names: set[str]) -> set[str]:
    parts = [name.split(".") for name in names]
    return {each[1] for each in parts if each[0] == "scheduler" and len(each) > 1} & {
        room_of(path) for path in modules()
    }


def is_within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_every_room_is_known() -> None:
    assert {room_of(path) for path in modules()} - {"__init__"} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    for path in modules():
        if room_of(path) == room:
            assert rooms_in(imports(path)) - {room} <= MAY_IMPORT[room], path


def test_the_app_knows_nothing_of_the_project_around_it() -> None:
    for path in modules():
        for name in imports(path):
            assert not is_within(name, {"conf", "demo", "sample_tasks", "tests"}), path


def test_the_supervisor_needs_only_the_standard_library_and_itself() -> None:
    for path in sorted((APP / "supervisor").glob("*.py")):
        outside = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
        # Started as a folder it is no part of the package: then its own name is "supervisor".
        assert outside <= {"scheduler", "supervisor"}, path
        assert rooms_in(imports(path)) <= {"supervisor"}, path


def test_a_task_program_gets_its_interface_without_django_or_the_rest_of_the_app() -> None:
    loaded = {name.split(".")[0] for name in imports(APP / "task.py", at_import_time=True)}
    assert loaded <= set(sys.stdlib_module_names)


def test_the_leaves_know_neither_rows_nor_the_clock() -> None:
    for leaf in ("states", "recurrences", "conf", "calendars", "delays", "words", "preview", "forecast", "crontabs"):
        names = imports(APP / f"{leaf}.py")
        assert not {name for name in names if is_within(name, {"django.db"})} - {"django.db.models.TextChoices"}, leaf
        assert not {name for name in names if is_within(name, {"time", "django.utils.timezone"})}, leaf
        source = (APP / f"{leaf}.py").read_text(encoding="utf-8")
        assert ".now(" not in source, leaf
        assert ".today(" not in source, leaf


def test_rows_know_neither_processes_nor_http() -> None:
    for path in sorted((APP / "models").glob("*.py")):
        # A signal's number has a name for people (sending one needs os.kill), and a size has its units.
        harmless = {"signal", "django.template.defaultfilters.filesizeformat"}
        assert not {name for name in imports(path) - harmless if is_within(name, PROCESSES | HTTP)}, path


def test_pages_and_forms_never_touch_a_process() -> None:
    for path in modules():
        if room_of(path) in {"views", "forms", "argument_fields", "admin", "urls", "templatetags"}:
            assert not {name for name in imports(path) if is_within(name, PROCESSES | {"scheduler.executors"})}, path
            assert "os.kill" not in path.read_text(encoding="utf-8"), path


def test_the_poller_neither_renders_nor_decides_permissions() -> None:
    for path in sorted((APP / "poller").glob("*.py")):
        assert not {name for name in imports(path) if is_within(name, HTTP | {"scheduler.access", "guardian"})}, path


def test_statuses_are_filtered_only_by_the_querysets() -> None:
    for path in modules():
        if room_of(path) not in {"models", "states"}:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    given = {keyword.arg for keyword in node.keywords if keyword.arg}
                    if node.func.attr in {"filter", "exclude", "update"}:
                        assert not {name for name in given if name.split("__")[0] == "status"}, (path, node.lineno)
