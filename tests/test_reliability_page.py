"""docs/reliability.md names a test for every case, and each of them exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PAGE = (PROJECT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in PAGE.partition("| Case |")[2].splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| **"))
]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((PROJECT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_the_table_is_found() -> None:
    assert len(ROWS) >= 40
    assert len(NAMED) >= 50


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_every_case_says_what_the_user_sees_and_names_its_tests(row: list[str]) -> None:
    case, what_is_seen, tests = row
    assert case
    assert what_is_seen
    assert re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`(, `tests/[\w/]+\.py::test_\w+`)*", tests)


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_every_named_test_exists(path: str, name: str) -> None:
    assert name in functions_of(path)


def test_every_test_of_the_fault_suite_is_named() -> None:
    for path in sorted((PROJECT / "tests" / "faults").glob("test_*.py")):
        name = f"tests/faults/{path.name}"
        tests = {function for function in functions_of(name) if function.startswith("test_")}
        assert tests <= {test for file, test in NAMED if file == name}, name
