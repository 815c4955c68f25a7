"""docs/security.md names a test for every attack, and each of them exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in PAGE.partition("| Attack |")[2].splitlines()
    if line.startswith("|") and not line.startswith("|---")
]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((PROJECT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_the_table_is_found() -> None:
    assert len(ROWS) >= 30
    assert len(NAMED) >= 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_every_attack_says_what_happens_and_names_its_tests(row: list[str]) -> None:
    attack, what_happens, tests = row
    assert attack
    assert what_happens
    assert re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`(, `tests/[\w/]+\.py::test_\w+`)*", tests)


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_every_named_test_exists(path: str, name: str) -> None:
    assert name in functions_of(path)
