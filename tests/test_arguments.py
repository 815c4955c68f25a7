"""What programs say about their arguments, and the way from a list of arguments to fields and back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scheduler.arguments import Description, InexpressibleError, read_description
from scheduler.supervisor import folder
from tests import argparse_program

DESCRIBE = Path(folder.__file__).with_name("describe.py")
PROGRAM = Path(argparse_program.__file__)


def said(program: Path, **variables: str) -> dict[str, Any]:
    """What a program says when it is asked."""
    answer = subprocess.run(
        [sys.executable, DESCRIBE, program], capture_output=True, text=True, check=True, cwd="/", env=variables
    )
    assert answer.stderr == ""
    return dict(json.loads(answer.stdout)) if answer.stdout else {}


def description(tmp_path: Path, source: str) -> Description:
    return read_description(said_by(tmp_path, source))


def said_by(tmp_path: Path, source: str) -> dict[str, Any]:
    program = tmp_path / "program.py"
    program.write_text("import argparse\nparser = argparse.ArgumentParser()\nadd = parser.add_argument\n" + source)
    return said(program)


@pytest.fixture(scope="module")
def everything() -> Description:
    return read_description(said(PROGRAM, TESTS_TOKEN="a secret of the site"))


# What a program says


def test_a_program_says_what_it_takes_and_does_nothing_else(everything: Description) -> None:
    found = {each.dest: each for each in everything.program.parameters}
    assert {name: each.type for name, each in found.items() if each.type != "text"} == {
        "number": "int",
        "share": "float",
        "even": "int",
        "since": "date",
        "at": "datetime",
        "clock": "time",
        "input": "file",
    }
    assert {name: each.kind for name, each in found.items() if each.kind != "value"} == {
        "dry_run": "flag",
        "verbose": "count",
        "cache": "either",
        "tag": "append",
    }
    assert [name for name, each in found.items() if each.is_required] == ["source", "format"]
    assert found["colour"].choices == ("red", "blue")
    assert (found["number"].default, found["number"].help) == ("7", "how many (default: 7)")
    assert found["number"].flag == "--number"
    assert found["input"].label == "FILE"
    assert [group.title for group in everything.program.groups] == ["Where it goes"]
    assert found["mail"].exclusive == found["folder"].exclusive is not None
    assert everything.program.description == "Takes everything."
    assert "hidden" not in found


def test_no_value_of_a_variable_is_repeated_as_a_default(everything: Description) -> None:
    assert "a secret of the site" not in repr(everything)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("raise RuntimeError('password=1234')", "RuntimeError"),
        ("def broken(:", "SyntaxError"),
        ("a = parser.add_subparsers().add_parser('a').add_subparsers()\nparser.parse_args()", "nested"),
        ("for i in range(301): add(f'--x{i}')\nparser.parse_args()", "many"),
    ],
)
def test_a_program_that_no_form_can_be_made_of_says_why(tmp_path: Path, source: str, problem: str) -> None:
    with pytest.raises(InexpressibleError, match=problem.split(":")[0]) as raised:
        description(tmp_path, source)
    assert "1234" not in str(raised.value)


@pytest.mark.parametrize("source", ["print('no arguments')", "raise SystemExit(3)", "parser.parse_args(['--x'])"])
def test_a_program_that_parses_nothing_of_its_command_line_says_nothing(tmp_path: Path, source: str) -> None:
    assert said_by(tmp_path, source) == {}


def test_a_program_that_parses_a_list_of_its_own_first_is_asked_at_the_second(tmp_path: Path) -> None:
    source = "one = argparse.ArgumentParser()\none.parse_args([])\none.add_argument('--x')\n"
    made = description(tmp_path, "add('--x')\nassert parser.parse_args(['--x', '1']).x == '1'\nparser.parse_args()")
    assert [each.dest for each in made.program.parameters] == ["x"]
    assert said_by(tmp_path, source)["parameters"] == []


def test_modules_beside_the_program_are_found(tmp_path: Path) -> None:
    (tmp_path / "folder.py").write_text("NAME = '--beside'\n")  # as one of the supervisor's
    made = description(tmp_path, "import folder\nadd(folder.NAME)\nparser.parse_args()")
    assert made.program.parameters[0].flags == ("--beside",)


# There and back


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a", "--format", "csv"],
        ["a", "b", "c", "--number", "3", "--format", "json", "--dry-run"],
        ["a", "--verbose", "--verbose", "--cache", "--tag", "x", "--tag", "y"],
        ["a", "--no-cache", "--pair", "1", "2", "--days", "mon", "wed"],
        ["a", "--generate"],
        ["a", "--generate", "30", "--mail", "me@example.org"],
        ["--format=-x", "--", "-a", "b"],
        ["a", "--share", "-1.5"],
    ],
)
def test_a_list_comes_back_as_it_was(everything: Description, arguments: list[str]) -> None:
    given = everything.read(arguments)
    assert everything.read(everything.write(given)) == given


def test_what_is_written_is_what_argparse_reads(everything: Description) -> None:
    line = ["-n", "5", "src", "--tag=-x", "--since", "2026-01-31", "--format", "csv", "-vv", "--days", "tue", "mon"]
    written = everything.write(everything.read(line))
    assert argparse_program.parser().parse_args(written) == argparse_program.parser().parse_args(line)
    assert "--tag=-x" in written


@pytest.mark.parametrize(
    "arguments",
    [
        ["a", "--number", "1", "--number", "2"],
        ["a", "--hidden", "x"],
        ["a", "--unknown"],
        ["a", "--pair", "1"],
        ["a", "--number"],
    ],
)
def test_what_the_fields_cannot_say_is_not_shown_in_them(everything: Description, arguments: list[str]) -> None:
    with pytest.raises(InexpressibleError):
        everything.read(arguments)


def test_a_value_that_looks_like_an_option_is_refused_where_argparse_would_take_it_for_one(
    everything: Description,
) -> None:
    with pytest.raises(InexpressibleError):
        everything.write({"of-source": [["a"]], "of-pair": [["-x", "y"]]})


COMMANDS = """
add('--verbose', action='store_true')
commands = parser.add_subparsers(required=True)
copy = commands.add_parser('copy', help='copy it')
copy.add_argument('target')
copy.add_argument('--force', action='store_true')
move = commands.add_parser('move', aliases=['mv'])
move.add_argument('--target', '-t')
parser.parse_args()
"""


def test_a_sub_command_has_arguments_of_its_own(tmp_path: Path) -> None:
    made = description(tmp_path, COMMANDS)
    assert [each.name for each in made.commands] == ["copy", "move"]
    assert made.command_required
    given = made.read(["--verbose", "copy", "there", "--force"])
    assert made.write(given) == ["--verbose", "copy", "there", "--force"]
    assert set(given) == {"of-verbose", "command", "of-copy_target", "of-copy_force"}
    with pytest.raises(InexpressibleError):
        made.read(["mv", "-t", "x"])  # the form has only the first name of a command


def test_a_remainder_keeps_its_options(tmp_path: Path) -> None:
    made = description(tmp_path, "add('--env', action='append')\nadd('program', nargs='...')\nparser.parse_args()")
    line = ["--env", "HOME", "ls", "-l", "--env", "x"]
    assert made.write(made.read(line)) == line


def test_a_program_that_takes_unknown_arguments_gets_them_as_the_rest(tmp_path: Path) -> None:
    made = description(tmp_path, "add('--known')\nparser.parse_known_args()")
    assert not made.strict
    given = made.read(["--known", "1", "--other", "2"])
    assert given == {"of-known": [["1"]], "rest": [["--other", "2"]]}
    assert made.write(given) == ["--known", "1", "--other", "2"]


def test_a_file_of_arguments_is_left_to_the_line(tmp_path: Path) -> None:
    source = "parser = argparse.ArgumentParser(fromfile_prefix_chars='@')\nparser.add_argument('x', nargs='*')\n"
    made = description(tmp_path, source + "parser.parse_args()")
    with pytest.raises(InexpressibleError):
        made.read(["@/etc/passwd"])


def test_two_arguments_with_one_name_have_two_keys(tmp_path: Path) -> None:
    made = description(tmp_path, "add('--on', dest='x')\nadd('--off', dest='x')\nparser.parse_args()")
    assert [each.key for each in made.program.parameters] == ["of-x", "of-x-2"]
