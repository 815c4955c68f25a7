"""What a program takes on its command line, and the two ways between a list of arguments and the fields of a form.

A description is what ``supervisor/describe.py`` says about a program's argparse parser. Both ways go through argparse
itself: a parser is built from the description that writes down what was given, and a list is accepted only when it says
the same again. So nothing is lost: what the fields cannot say raises ``InexpressibleError``.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

VERSION = 1
REST, COMMAND = "rest", "command"
SEVERAL = ("*", "+", "...")
# An option that takes as many values as come after it.
GREEDY = ("?", "*", "+", "...")
_NEGATIVE_NUMBER = re.compile(r"^-\d+$|^-\d*\.\d+$")  # what argparse takes for one

Given = dict[str, list[list[str]]]
"""Key of a parameter -> the values of each time that it was given. A flag has no values; ``either`` has its flag."""


class InexpressibleError(Exception):
    """The form cannot say this, or the program's parser is one that no form can be made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One argument of a program: an option with its flags, or a positional one."""

    key: str
    """Its name in the form: made of the program's own, so that it stays when others come and go."""
    dest: str
    flags: tuple[str, ...] = ()
    kind: str = "value"
    """value, flag, count, either (``--x`` or ``--no-x``), append or extend."""
    nargs: int | str | None = None
    type: str = "text"
    """text, int, float, date, datetime, time or file."""
    choices: tuple[str, ...] | None = None
    required: bool = False
    default: str = ""
    label: str = ""
    help: str = ""
    group: int | None = None
    exclusive: int | None = None
    exclusive_required: bool = False

    @property
    def flag(self) -> str:
        """The flag that is written: the first long one."""
        return next((flag for flag in self.flags if len(flag) > 2 and flag[1] == flag[0]), self.flags[0])

    @property
    def takes_several(self) -> bool:
        return isinstance(self.nargs, int) or self.nargs in SEVERAL

    @property
    def is_required(self) -> bool:
        """A positional argument that may be left out is none, whatever argparse calls it."""
        return self.required and self.nargs not in {"?", "*", "..."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    title: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A sub-command with arguments of its own; the whole program has the name ""."""

    name: str = ""
    help: str = ""
    description: str = ""
    prefix: str = "-"
    abbreviations: bool = True
    groups: tuple[Group, ...] = ()
    parameters: tuple[Parameter, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    program: Command
    commands: tuple[Command, ...] = ()
    command_required: bool = False
    command_help: str = ""
    strict: bool = True
    """Whether the program refuses what its parser does not know; else it may take further arguments."""
    from_file: str = ""
    """An argument that begins with one of these characters stands for a file of arguments."""
    every: Mapping[str, Parameter] = field(default_factory=dict)

    def command(self, name: str) -> Command | None:
        return next((each for each in self.commands if each.name == name), None)

    # From a list to what was given

    def read(self, arguments: Sequence[str]) -> Given:
        """What a list of arguments says. Raises InexpressibleError when the form could not say the same."""
        if any(self.from_file and argument.startswith(tuple(self.from_file)) for argument in arguments):
            raise InexpressibleError(f"{arguments}")
        parser = _Parser(allow_abbrev=self.program.abbreviations, prefix_chars=self.program.prefix, add_help=False)
        _fill(parser, self.program)
        if self.commands:
            commands = parser.add_subparsers(dest=COMMAND, parser_class=_Parser)
            for command in self.commands:
                _fill(
                    commands.add_parser(
                        command.name,
                        allow_abbrev=command.abbreviations,
                        prefix_chars=command.prefix,
                        add_help=False,
                    ),
                    command,
                )
        try:
            found, rest = parser.parse_known_args(list(arguments))
        except (argparse.ArgumentError, ValueError, TypeError, IndexError) as error:
            raise InexpressibleError(str(error)) from error
        given: Given = {key: value for key, value in vars(found).items() if key in self.every}
        if getattr(found, COMMAND, None) is not None:
            given[COMMAND] = [[getattr(found, COMMAND)]]
        if rest:
            if self.strict:
                raise InexpressibleError(" ".join(rest))
            given[REST] = [rest]
        for key, times in given.items():
            parameter = self.every.get(key)
            if parameter is None:
                continue
            if parameter.kind == "extend":
                given[key] = [[value for values in times for value in values]]
            elif parameter.kind in {"value", "flag", "either"} and len(times) > 1:
                raise InexpressibleError(parameter.flag)
        return given

    # From what was given to a list

    def write(self, given: Given) -> list[str]:
        """The list of arguments that says this. Raises InexpressibleError when there is none."""
        arguments = self._write(given)
        if self.read(arguments) != given:
            raise InexpressibleError(" ".join(arguments))
        return arguments

    def _write(self, given: Given) -> list[str]:
        command = self.command(given[COMMAND][0][0]) if COMMAND in given else None
        arguments = _of(self.program, given, last=command is None and REST not in given)
        if command is not None:
            arguments += [command.name, *_of(command, given, last=REST not in given)]
        return arguments + [value for values in given.get(REST, []) for value in values]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InexpressibleError(message)


class _Record(argparse.Action):
    """Writes down each time that the argument was given."""

    def __call__(self, _parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        times = [] if values is None else [values] if isinstance(values, str) else list(values)
        if self.metavar == "either":
            times = [str(option_string)]
        vars(namespace).setdefault(self.dest, []).append(times)


def _fill(parser: argparse.ArgumentParser, command: Command) -> None:
    try:
        for parameter in command.parameters:
            names = parameter.flags or (parameter.key,)
            # Without a value of its own, an option with nargs "?" gives its const.
            options: dict[str, Any] = {"dest": parameter.key} if parameter.flags else {}
            action = parser.add_argument(
                *names,
                action=_Record,
                nargs=_nargs(parameter),
                default=argparse.SUPPRESS,
                metavar="either" if parameter.kind == "either" else None,
                **options,
            )
            action.required = False  # what is missing is said by the form
    except (argparse.ArgumentError, ValueError, TypeError) as error:
        raise InexpressibleError(str(error)) from error


def _nargs(parameter: Parameter) -> Any:
    return 0 if parameter.kind in {"flag", "count", "either"} else parameter.nargs


def _of(command: Command, given: Given, *, last: bool) -> list[str]:
    """The arguments of the program itself, or of a sub-command; ``last``: nothing comes after them."""
    options = [each for each in command.parameters if each.flags and each.key in given]
    positional = [each for each in command.parameters if not each.flags and each.key in given]
    # Greedy options first: what comes after them must not be taken for a value of theirs.
    options.sort(key=lambda each: each.nargs not in GREEDY)
    written = [value for each in options for times in given[each.key] for value in _option(each, times, command)]
    values = [value for each in positional for times in given[each.key] for value in times]
    if not last or any(each.nargs == "..." for each in command.parameters):
        return written + values
    if any(value.startswith(tuple(command.prefix)) and not _NEGATIVE_NUMBER.match(value) for value in values):
        return [*written, "--", *values]
    return values + written


def _option(parameter: Parameter, values: list[str], command: Command) -> Iterator[str]:
    if parameter.kind == "either":
        yield values[0]
    elif len(values) == 1 and not parameter.takes_several and values[0].startswith(tuple(command.prefix)):
        flag = parameter.flag
        yield f"{flag}{values[0]}" if len(flag) == 2 else f"{flag}={values[0]}"
    else:
        yield parameter.flag
        yield from values


# What describe.py says


def read_description(content: Mapping[str, Any]) -> Description:
    """The description in what a program has said. Raises InexpressibleError when no form can be made of it."""
    if content.get("version") != VERSION or "problem" in content:
        raise InexpressibleError(str(content.get("problem", "")))
    keys: set[str] = {REST, COMMAND}
    program = _command(content, keys, "")
    found = content.get("commands") or {}
    commands = tuple(_command(each, keys, f"{each['name']}-") for each in found.get("choices", ()))
    description = Description(
        program=program,
        commands=commands,
        command_required=bool(found.get("required")),
        command_help=found.get("help", ""),
        strict=bool(content["strict"]),
        from_file=content.get("from_file", ""),
        every={each.key: each for command in (program, *commands) for each in command.parameters},
    )
    description.read([])
    return description


def _command(content: Mapping[str, Any], keys: set[str], before: str) -> Command:
    if "problem" in content:
        raise InexpressibleError(str(content["problem"]))
    return Command(
        name=content.get("name", ""),
        help=content.get("help", ""),
        description=content["description"],
        prefix=content["prefix"],
        abbreviations=content["abbreviations"],
        groups=tuple(Group(title=each["title"], description=each["description"]) for each in content["groups"]),
        parameters=tuple(_parameter(each, keys, before) for each in content["parameters"]),
    )


def _parameter(content: Mapping[str, Any], keys: set[str], before: str) -> Parameter:
    if content["nargs"] not in (None, "?", *SEVERAL) and not isinstance(content["nargs"], int):
        raise InexpressibleError(str(content["nargs"]))
    name = re.sub(r"[^0-9A-Za-z_]+", "_", before + content["dest"])
    key, number = f"of-{name}", 1
    while key in keys:
        number += 1
        key = f"of-{name}-{number}"
    keys.add(key)
    exclusive = content.get("exclusive") or {}
    parameter = Parameter(
        key=key,
        dest=content["dest"],
        flags=tuple(content["flags"]),
        kind=content["kind"],
        nargs=content["nargs"],
        type=content["type"],
        choices=None if content["choices"] is None else tuple(content["choices"]),
        required=content["required"],
        default=content["default"],
        label=content["label"],
        help=content["help"],
        group=content["group"],
        exclusive=exclusive.get("number"),
        exclusive_required=bool(exclusive.get("required")),
    )
    return replace(parameter, nargs=None) if _nargs(parameter) == 0 else parameter
