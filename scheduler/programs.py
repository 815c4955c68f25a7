"""The programs that may be run: Python files below the folders of ``PROGRAM_ROOTS``.

A program is named ``root/relative/path.py``. It is resolved and checked when a task is saved and again at each start.
"""

from __future__ import annotations

import ast
import hashlib
import os
import stat
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from django.utils.translation import gettext

from scheduler.conf import scheduler_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_DEPTH = 5
LONGEST_SOURCE = 1024 * 1024
LISTED_AT_MOST = 2000


class ProgramError(Exception):
    """A program cannot be run; the text is one sentence for people."""


@dataclass(frozen=True, slots=True)
class Program:
    root: str
    path: str

    def __str__(self) -> str:
        return join(self.root, self.path)


def join(root: str, path: str) -> str:
    return f"{root}/{path}"


def split(name: str) -> Program:
    """The two parts of ``root/relative/path.py``. Raises ProgramError when there are none."""
    root, _, path = name.partition("/")
    if not root or not path:
        raise ProgramError(gettext("“%(program)s” names no program.") % {"program": name})
    return Program(root, path)


def found() -> list[Program]:
    """Every program that ``resolve`` accepts, sorted by name; hidden files and ``_private.py`` are left out."""
    programs: list[Program] = []
    for root, folder in sorted(scheduler_settings().program_roots.items()):
        for path in sorted(_python_files(folder, folder)):
            if len(programs) >= LISTED_AT_MOST:
                return programs
            try:
                resolve(root, path)
            except ProgramError:
                continue
            programs.append(Program(root, path))
    return programs


def _python_files(folder: Path, top: Path, depth: int = 0) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith((".", "_")):
            continue
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            if depth < MAX_DEPTH:
                yield from _python_files(path, top, depth + 1)
        elif entry.name.endswith(".py"):
            yield str(path.relative_to(top))


def resolve(root: str, path: str) -> Path:
    """The real file of a program.

    Raises ProgramError with one sentence when the root is unknown, the path leaves it (also by a symlink), the file is
    missing, not a regular file or unreadable, or when the file or a folder down to it is writable for group or others.
    """
    name = join(root, path)
    top = scheduler_settings().program_roots.get(root)
    if top is None:
        raise ProgramError(gettext("“%(root)s” is not one of the program folders in the settings.") % {"root": root})
    parts = path.split("/")
    # Not printable: control characters, bidi marks, and bytes that no page and no database can hold.
    if not path.isprintable() or not path.endswith(".py") or any(part in {"", ".", ".."} for part in parts):
        raise ProgramError(gettext("“%(program)s” is not the name of a Python program.") % {"program": _shown(name)})
    try:
        real_top = top.resolve(strict=True)
        real = (top / path).resolve(strict=True)
        if not real.is_relative_to(real_top):
            raise ProgramError(gettext("“%(program)s” lies outside its program folder.") % {"program": name})
        if not stat.S_ISREG(real.stat().st_mode):
            raise ProgramError(gettext("“%(program)s” is not a regular file.") % {"program": name})
        for place in [real, *real.parents]:
            _refuse_writable(place)
            if place == real_top:
                break
    except OSError as error:
        raise ProgramError(
            gettext("“%(program)s” cannot be read: %(error)s.") % {"program": name, "error": error.strerror or error}
        ) from error
    except RuntimeError as error:  # what pathlib makes of ELOOP before Python 3.13
        raise ProgramError(
            gettext("“%(program)s” cannot be read: its symbolic links lead round in a circle.") % {"program": name}
        ) from error
    if not os.access(real, os.R_OK):
        raise ProgramError(gettext("“%(program)s” cannot be read: permission denied.") % {"program": name})
    return real


@dataclass(frozen=True, slots=True)
class Source:
    """A program's text, as far as it is read."""

    text: str
    sha256: str
    size: int
    docstring: str
    uses_argparse: bool

    @property
    def is_cut(self) -> bool:
        return self.size > LONGEST_SOURCE


def read(path: Path) -> Source:
    """The source of a resolved program, at most 1 MB of it. Raises OSError."""
    with path.open("rb") as file:
        content = file.read(LONGEST_SOURCE + 1)
        size = os.fstat(file.fileno()).st_size
    return _source(content, max(size, len(content)))


@lru_cache(maxsize=64)
def _source(content: bytes, size: int) -> Source:
    text = content[:LONGEST_SOURCE].decode(errors="replace")
    docstring, uses_argparse = "", False
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    else:
        docstring = ast.get_docstring(tree) or ""
        uses_argparse = any(_imports_argparse(node) for node in ast.walk(tree))
    return Source(text, hashlib.sha256(content).hexdigest(), size, docstring, uses_argparse)


def _imports_argparse(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            return any(alias.name == "argparse" for alias in names)
        case ast.ImportFrom(module="argparse", level=0):
            return True
    return False


def interpreter(name: str) -> Path | None:
    """The Python of this name in the settings; None for the empty name, the site's own.

    Raises ProgramError with one sentence when the name is unknown, or nothing that can be executed is there.
    """
    if not name:
        return None
    path = scheduler_settings().interpreters.get(name)
    if path is None:
        raise ProgramError(gettext("“%(name)s” is not one of the interpreters in the settings.") % {"name": name})
    # Never resolved: a virtual environment knows itself by the path that it was started by.
    if not path.is_file() or not os.access(path, os.X_OK):
        raise ProgramError(
            gettext("The interpreter “%(name)s” cannot be executed: %(path)s.") % {"name": name, "path": path}
        )
    return path


def _shown(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)


def _refuse_writable(place: Path) -> None:
    """Whoever can write a program can run code as the task's user: only the owner may."""
    if place.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ProgramError(
            gettext("“%(place)s” can be written by other users than its owner; run chmod go-w on it.")
            % {"place": place.name}
        )
