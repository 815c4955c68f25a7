"""Started by a task's own Python as ``python …/describe.py PROGRAM``: says, as JSON, what its argparse parser takes.

The program runs until it parses its arguments, and ends there; what it writes itself goes nowhere. Only the standard
library is used, and nothing of this package: the interpreter may be another one than the site's.
"""

from __future__ import annotations

import argparse
import datetime
import enum
import inspect
import json
import os
import pathlib
import runpy
import sys
from collections.abc import Callable
from typing import Any, NoReturn

VERSION = 1
LONGEST_TEXT = 1000
MOST_PARAMETERS = 300
MOST_CHOICES = 500
# Variables that hold no secret: what else is in the environment is not repeated as somebody's default.
HARMLESS = {"PATH", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "HOME", "USER", "LOGNAME", "TMPDIR"}
HARMLESS |= {"PYTHONPATH", "PYTHONUNBUFFERED", "DJANGO_SETTINGS_MODULE", "PWD", "OLDPWD", "SHLVL", "_"}
SHORTEST_SECRET = 4  # letters; a shorter value is also an ordinary word


def main() -> None:
    """Run the program that is named, and write what it takes to what was stdout."""
    answer = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    program = sys.argv[1]
    sys.argv[:] = [program]
    sys.path[0] = os.path.dirname(program)
    take_over(answer)
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit:
        pass
    except BaseException as error:
        # The text of most errors may hold anything; that of these two is about the program.
        text = f": {error}" if isinstance(error, (ImportError, SyntaxError)) else ""
        say(answer, {"problem": (type(error).__name__ + text)[:LONGEST_TEXT]})
    os._exit(0)


def take_over(answer: int) -> None:
    """Let the first parser that is given the command line's arguments describe itself instead of parsing them."""
    parse_known_args = argparse.ArgumentParser.parse_known_args

    def describe_strict(parser: Any, args: Any = None, namespace: Any = None) -> Any:
        if args:  # others than the command line's, which are none
            return parse_strict(parser, args, namespace)
        return say(answer, described(parser, strict=True))

    def describe_known(parser: Any, args: Any = None, namespace: Any = None) -> Any:
        if args:
            return parse_known_args(parser, args, namespace)
        return say(answer, described(parser, strict=False))

    def parse_strict(parser: Any, args: Any, namespace: Any) -> Any:
        found, more = parse_known_args(parser, args, namespace)
        if more:
            parser.error("unrecognized arguments: " + " ".join(more))
        return found

    argparse.ArgumentParser.parse_args = describe_strict  # type: ignore[assignment]
    argparse.ArgumentParser.parse_known_args = describe_known  # type: ignore[assignment]


def say(answer: int, content: dict[str, Any]) -> NoReturn:
    os.write(answer, (json.dumps(content) + "\n").encode())
    os._exit(0)


def described(parser: Any, *, strict: bool) -> dict[str, Any]:
    try:
        return {"version": VERSION, "strict": strict, **content_of(parser, depth=0)}
    except Exception as error:
        return {"problem": f"{type(error).__name__}: its parser cannot be read"}


def content_of(parser: Any, *, depth: int) -> dict[str, Any]:
    exclusive: dict[int, dict[str, Any]] = {}
    for number, group in enumerate(parser._mutually_exclusive_groups):
        for action in group._group_actions:
            exclusive[id(action)] = {"number": number, "required": bool(group.required)}
    groups: list[dict[str, str]] = []
    group_of: dict[int, int] = {}
    for group in parser._action_groups:
        if group in (parser._positionals, parser._optionals) or not group._group_actions:
            continue
        for action in group._group_actions:
            group_of[id(action)] = len(groups)
        groups.append({"title": text(group.title), "description": text(group.description)})
    parameters: list[dict[str, Any]] = []
    commands: dict[str, Any] | None = None
    for action in parser._actions:
        if isinstance(action, (argparse._HelpAction, argparse._VersionAction)) or action.help == argparse.SUPPRESS:
            continue
        if isinstance(action, argparse._SubParsersAction):
            if depth:
                return {"problem": "nested"}
            commands = commands_of(action)
            continue
        if len(parameters) == MOST_PARAMETERS:
            return {"problem": "many"}
        parameter = parameter_of(parser, action)
        parameter["group"] = group_of.get(id(action))
        parameter["exclusive"] = exclusive.get(id(action))
        parameters.append(parameter)
    return {
        "description": text(parser.description and parser._get_formatter()._format_text(parser.description).strip()),
        "prefix": parser.prefix_chars,
        "from_file": parser.fromfile_prefix_chars or "",
        "abbreviations": bool(getattr(parser, "allow_abbrev", True)),
        "groups": groups,
        "parameters": parameters,
        "commands": commands,
    }


def commands_of(action: Any) -> dict[str, Any]:
    helps = {each.dest: text(each.help) for each in action._choices_actions}
    found: list[dict[str, Any]] = []
    seen: set[int] = set()
    for name, parser in action.choices.items():
        if id(parser) not in seen:  # else another name of the same
            seen.add(id(parser))
            found.append({"name": name, "help": helps.get(name, ""), **content_of(parser, depth=1)})
    return {"required": bool(action.required), "help": text(action.help), "choices": found}


def parameter_of(parser: Any, action: Any) -> dict[str, Any]:
    metavar = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar or ())
    return {
        "dest": str(action.dest),
        "flags": list(action.option_strings),
        "kind": kind_of(action),
        "nargs": action.nargs,
        "type": type_of(action),
        "choices": choices_of(action),
        "required": bool(action.required),
        "default": default_of(action),
        "label": text(metavar),
        "help": help_of(parser, action),
    }


def kind_of(action: Any) -> str:
    if type(action).__name__ == "BooleanOptionalAction":
        return "either"
    if isinstance(action, (argparse._CountAction, argparse._AppendConstAction)):
        return "count"
    if isinstance(action, argparse._ExtendAction):
        return "extend"
    if isinstance(action, argparse._AppendAction):
        return "append"
    return "flag" if action.nargs == 0 else "value"


def type_of(action: Any) -> str:
    kind = action.type
    if kind in (int, float):
        return str(kind.__name__)
    if kind is open or (isinstance(kind, argparse.FileType) and "r" in vars(kind)["_mode"]):
        return "file"
    if isinstance(kind, type) and issubclass(kind, pathlib.PurePath):
        return "file"
    if inspect.isfunction(kind) and returned_by(kind) in (int, float, "int", "float"):
        return "float" if "float" in str(returned_by(kind)) else "int"
    return date_of(kind) or "text"


def date_of(kind: Any) -> str:
    """Whether it makes a date or a time of a text in ISO 8601, and of which sort."""
    samples: dict[type, tuple[str, str]] = {
        datetime.datetime: ("datetime", "2026-01-31T12:30"),
        datetime.date: ("date", "2026-01-31"),
        datetime.time: ("time", "12:30"),
    }
    for sort, (name, sample) in samples.items():
        if getattr(kind, "__name__", "") == "fromisoformat" and getattr(kind, "__self__", None) is sort:
            return name
        # A function that says that it makes one: it is tried with this text.
        if inspect.isfunction(kind) and returned_by(kind) in (sort, sort.__name__, f"datetime.{sort.__name__}"):
            try:
                return name if type(kind(sample)) is sort else ""
            except Exception:
                return ""
    return ""


def returned_by(function: Callable[..., Any]) -> object:
    return getattr(function, "__annotations__", {}).get("return")


def choices_of(action: Any) -> list[str] | None:
    """What can be chosen, each as it is typed; None when that cannot be told."""
    try:
        found = list(action.choices) if action.choices is not None and len(action.choices) <= MOST_CHOICES else None
    except TypeError:
        return None
    if found is None:
        return None
    typed = [typed_as(action.type, choice) for choice in found]
    known = [name for name in typed if name is not None]
    return known if len(known) == len(typed) else None


def typed_as(kind: Any, choice: Any) -> str | None:
    if kind is None or kind is str:
        return str(choice)
    names = [choice.value, choice.name] if isinstance(choice, enum.Enum) else [choice]
    for name in map(str, names):
        try:
            if kind(name) == choice:
                return name
        except Exception:
            continue
    return None


def default_of(action: Any) -> str:
    value = action.default
    counted = isinstance(action, argparse._CountAction)
    if value is None or value is argparse.SUPPRESS or (action.nargs == 0 and not counted):
        return ""
    if isinstance(value, (list, tuple)):
        return text(" ".join(map(str, value)))
    return text(value)


def help_of(parser: Any, action: Any) -> str:
    try:
        return text(action.help and parser._get_formatter()._expand_help(action))
    except Exception:
        return text(action.help)


def text(value: object) -> str:
    """A text for people; nothing when it holds the value of a variable that may be a secret."""
    if value is None or value is argparse.SUPPRESS:
        return ""
    shown = str(value)
    for name, secret in os.environ.items():
        if name not in HARMLESS and len(secret) >= SHORTEST_SECRET and secret in shown:
            return ""
    return shown[:LONGEST_TEXT]


if __name__ == "__main__":
    main()
