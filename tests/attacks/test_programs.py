"""Which program names are refused, whoever writes them into a row: a form, a shell, a restored backup."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from scheduler import programs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(settings: Any, tmp_path: Path) -> Path:
    """A program folder with one good program, ``good.py``, and a file beside the folder."""
    folder = tmp_path / "programs"
    (folder / "inner").mkdir(parents=True, mode=0o755)
    (folder / "good.py").write_text("print('good')\n")
    (folder / "inner" / "good.py").write_text("print('good')\n")
    (tmp_path / "outside.py").write_text("print('outside')\n")
    for path in (folder, folder / "inner", folder / "good.py", folder / "inner" / "good.py", tmp_path / "outside.py"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    settings.SCHEDULER = {**settings.SCHEDULER, "PROGRAM_ROOTS": {"programs": folder}}
    return folder


@pytest.mark.parametrize(
    "path",
    [
        "../outside.py",
        "inner/../../outside.py",
        "inner/../good.py",
        "./good.py",
        "/etc/passwd",
        "/good.py",
        "inner//good.py",
        "good.py/",
        "good.py/..",
        "%2e%2e/outside.py",
        "%2e%2e%2foutside.py",
        "..%2foutside.py",
        "..\\outside.py",
        "good.py\0",
        "good\0.py",
        "good.py\0.py",
        "good.py\n",
        "good.PY",
        "good",
        "inner",
        "",
        ".",
        "..",
        "-c.py",
        "good.py; reboot",
        "x" * 300 + ".py",
        "\ud800.py",
        "~root/x.py",
    ],
)
def test_a_name_that_is_no_program_below_its_folder_is_refused_in_one_sentence(folder: Path, path: str) -> None:
    with pytest.raises(programs.ProgramError) as refused:
        programs.resolve("programs", path)
    assert "Traceback" not in str(refused.value)
    assert str(folder) not in str(refused.value)


@pytest.mark.parametrize("root", ["other", "", "..", "/", "programs/", "programs/inner", "PROGRAMS"])
def test_a_folder_that_is_not_in_the_settings_is_refused(folder: Path, root: str) -> None:
    with pytest.raises(programs.ProgramError, match="is not one of the program folders"):
        programs.resolve(root, "good.py")


def _link_out(folder: Path) -> None:
    (folder / "bad.py").symlink_to(folder.parent / "outside.py")


def _link_out_by_a_folder(folder: Path) -> None:
    (folder / "bad").symlink_to(folder.parent)


def _loop(folder: Path) -> None:
    (folder / "bad.py").symlink_to("bad.py")


def _dangling(folder: Path) -> None:
    (folder / "bad.py").symlink_to("nothing.py")


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "bad.py")


def _subfolder(folder: Path) -> None:
    (folder / "bad.py").mkdir(mode=0o755)


def _mode(mode: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "bad.py").write_text("print('bad')\n")
        (folder / "bad.py").chmod(mode)

    return spoil


def _writable_target(folder: Path) -> None:
    (folder / "inner" / "good.py").chmod(0o666)
    (folder / "bad.py").symlink_to("inner/good.py")


def _writable_folder(folder: Path) -> None:
    (folder / "bad").mkdir()
    (folder / "bad" / "outside.py").write_text("print('bad')\n")
    (folder / "bad" / "outside.py").chmod(0o644)
    (folder / "bad").chmod(0o777)


@pytest.mark.parametrize(
    ("spoil", "path"),
    [
        (_link_out, "bad.py"),
        (_link_out_by_a_folder, "bad/outside.py"),
        (_loop, "bad.py"),
        (_dangling, "bad.py"),
        (_fifo, "bad.py"),
        (_subfolder, "bad.py"),
        (_mode(0o646), "bad.py"),
        (_mode(0o664), "bad.py"),
        (_writable_target, "bad.py"),
        (_writable_folder, "bad/outside.py"),
    ],
)
def test_what_leads_out_or_can_be_written_by_others_is_refused_and_not_offered(
    folder: Path, spoil: Callable[[Path], None], path: str
) -> None:
    spoil(folder)
    with pytest.raises(programs.ProgramError):
        programs.resolve("programs", path)
    assert path not in {program.path for program in programs.found()}
    assert programs.resolve("programs", "good.py") == (folder / "good.py").resolve()


@pytest.mark.parametrize("name", [b"bad\xff.py", b"line\nend.py", b"\x1b[31m.py", "gnp\u202eyp.py".encode()])
def test_a_file_whose_name_cannot_be_shown_is_not_offered(folder: Path, name: bytes) -> None:
    place = os.path.join(os.fsencode(folder), name)
    with open(place, "w") as file:
        file.write("print('bad')\n")
    os.chmod(place, 0o644)
    assert {program.path for program in programs.found()} == {"good.py", "inner/good.py"}
    with pytest.raises(programs.ProgramError) as refused:
        programs.resolve("programs", os.fsdecode(name))
    assert str(refused.value).isprintable()
    assert str(refused.value).encode()


def test_a_program_folder_that_others_can_write_has_no_programs(folder: Path) -> None:
    assert programs.found()
    folder.chmod(0o777)
    assert programs.found() == []
    with pytest.raises(programs.ProgramError, match="chmod go-w"):
        programs.resolve("programs", "good.py")
