"""Reading a crontab, line by line, as cron would: pure text in, plain data out.

The rules are those of crontab(5) of Debian's cron, with ``CRON_TZ`` of cronie.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils.translation import gettext

from scheduler import recurrences

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_LINE = 10_000  # characters
DEFAULT_SHELL = "/bin/sh"

MAIL = {"MAILTO", "MAILFROM", "MAIL", "CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING"}
ACCOUNT = {"LOGNAME", "USER"}
DELAYS = {"RANDOM_DELAY", "START_HOURS_RANGE", "PERSIST", "JITTER"}
# Whoever may look at a task sees its arguments: what looks like this is not copied into them.
SECRET_NAME = re.compile(r"PASS|PWD|SECRET|TOKEN|KEY|CREDENTIAL|AUTH", re.IGNORECASE)
SECRET_VALUE = re.compile(r"://[^/\s]*:[^/\s]*@")


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that runs a command."""

    number: int
    rule: str
    """Five fields with single spaces, or an alias; it can be read by ``recurrences.Cron``."""
    text: str
    """The command as it stands in the file."""
    command: str
    """What the shell gets: up to the first ``%``, each ``\\%`` being a ``%``."""
    stdin: str | None
    """What the command reads: the lines after the first ``%``; None when there is none."""
    user: str
    """The user of a system crontab; empty in a user's own."""
    zone: str
    """What ``CRON_TZ`` says at this line; empty: the machine's own."""
    shell: str
    variables: tuple[tuple[str, str], ...]
    """The environment lines above that the command is to get, in their order."""
    secrets: tuple[str, ...]
    """Names of those whose values are left out, because they look like secrets."""
    description: str
    """The comment right above."""


@dataclass(frozen=True, slots=True)
class Setting:
    """An environment line, and in one sentence what becomes of it."""

    number: int
    name: str
    becomes: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that cannot be taken, and in one sentence why."""

    number: int
    reason: str


Line = Entry | Setting | Refused


def read(data: bytes, *, user_column: bool = False) -> list[Line]:
    """What each line says; empty lines and comments are left out.

    With ``user_column`` a line has the user after the times, as in /etc/crontab.
    """
    reader = _Reader(user_column)
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [found for number, line in enumerate(lines, 1) if (found := reader.line(number, line)) is not None]


class _Reader:
    """What the lines so far have set for those below."""

    def __init__(self, user_column: bool) -> None:
        self.user_column = user_column
        self.variables: dict[str, str] = {}
        self.secrets: dict[str, None] = {}
        self.shell = DEFAULT_SHELL
        self.zone = ""
        self.unknown_zone = ""
        self.comments: list[str] = []

    def line(self, number: int, raw: bytes) -> Line | None:
        comments, self.comments = self.comments, []
        try:
            text = raw.decode("utf-8").strip(" \t\r")
        except UnicodeDecodeError:
            return Refused(number, gettext("This line is not UTF-8 text. Save the file as UTF-8, then try again."))
        if not text:
            return None
        if text.startswith("#"):
            self.comments = [*comments, text]
            return None
        if len(text) > LONGEST_LINE:
            reason = gettext("This line has more than %(most)d characters. Put the command into a script.")
            return Refused(number, reason % {"most": LONGEST_LINE})
        if "\0" in text:
            return Refused(number, gettext("This line contains a NUL character, which no program can receive."))
        if setting := re.fullmatch(r"""(["']?)([A-Za-z_]\w*)\1[ \t]*=[ \t]*(.*)""", text, re.ASCII | re.DOTALL):
            return self._setting(number, setting[2], _unquoted(setting[3]))
        return self._entry(number, text, _description(comments))

    def _setting(self, number: int, name: str, value: str) -> Setting | Refused:
        if name in DELAYS:
            reason = gettext("%(name)s is not known here: the lines below start at their time.")
            return Refused(number, reason % {"name": name})
        if name == "CRON_TZ":
            return self._zone(number, value)
        if name == "SHELL":
            self.shell = value or DEFAULT_SHELL
            becomes = gettext("the commands below are read by %(value)s") % {"value": self.shell}
        elif name in MAIL:
            becomes = gettext("not used, as nothing is mailed: what a command prints is the log of its run")
        elif name in ACCOUNT:
            becomes = gettext("not used: a command has the name of the account that it runs as")
        elif SECRET_NAME.search(name) or SECRET_VALUE.search(value):
            self.variables.pop(name, None)
            self.secrets[name] = None
            becomes = gettext(
                "its value looks like a secret and is not copied, as arguments can be seen; set it in the poller's "
                "environment and add its name to SCHEDULER['ENVIRONMENT']: the commands below then get it"
            )
        else:
            self.secrets.pop(name, None)
            self.variables[name] = value
            becomes = gettext("the commands below get it")
            if name == "TZ":
                becomes = gettext(
                    "the commands below get it; their times are not read in it, as in cron (CRON_TZ is for that)"
                )
            elif name == "HOME":
                becomes = gettext("the commands below get it, and start in that folder")
        return Setting(number, name, becomes)

    def _zone(self, number: int, value: str) -> Setting | Refused:
        try:
            self.zone = recurrences.named_zone(value).key if value else ""
        except recurrences.InvalidRule as error:
            self.unknown_zone = value
            return Refused(number, str(error))
        self.unknown_zone = ""
        becomes = gettext("the times below are read in %(zone)s") % {"zone": value or gettext("the default zone")}
        return Setting(number, "CRON_TZ", becomes)

    def _entry(self, number: int, text: str, description: str) -> Entry | Refused:
        fields, rest = _split(text, 1 if text.startswith("@") else 5)
        rule, user = " ".join(fields), ""
        if reason := self._problem(rule):
            return Refused(number, reason)
        if self.user_column:
            users, rest = _split(rest, 1)
            user = "".join(users)
        if not rest:
            return Refused(number, gettext("There is no command in this line."))
        command, percent, stdin = _before_percent(rest)
        if not command.strip():
            return Refused(number, gettext("There is no command before the “%” in this line."))
        return Entry(
            number,
            rule,
            text=rest,
            command=command,
            stdin=stdin if percent else None,
            user=user,
            zone=self.zone,
            shell=self.shell,
            variables=tuple(self.variables.items()),
            secrets=tuple(self.secrets),
            description=description,
        )

    def _problem(self, rule: str) -> str:
        if rule.lower() == "@reboot":
            return gettext(
                "@reboot is not a time but the start of the machine. Start the command from a systemd unit, or the "
                "task by hand."
            )
        if self.unknown_zone:
            reason = gettext("Its time zone “%(zone)s” (CRON_TZ above) is unknown.")
            return reason % {"zone": self.unknown_zone}
        try:
            recurrences.Cron(rule)
        except recurrences.InvalidRule as error:
            return str(error)
        return ""


def _split(text: str, count: int) -> tuple[list[str], str]:
    """So many words, and what comes after them."""
    parts = re.split(r"[ \t]+", text, maxsplit=count)
    return parts[:count], parts[count] if len(parts) > count else ""


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] in "\"'" and value[-1] == value[0] else value


def _before_percent(text: str) -> tuple[str, bool, str]:
    """The command, whether a ``%`` ends it, and what it reads, which ends with a line end if there is any."""
    command, *lines = re.split(r"(?<!\\)%", text)
    stdin = "\n".join(lines)
    if stdin and not stdin.endswith("\n"):
        stdin += "\n"
    return command.replace("\\%", "%"), bool(lines), stdin.replace("\\%", "%")


def _description(comments: list[str]) -> str:
    """The words of the comment lines; not those that explain the columns or switch a line off."""
    return "\n".join(_words(comments))


def _words(comments: list[str]) -> Iterator[str]:
    for comment in comments:
        words = comment.strip("# \t")
        fields, command = _split(words, 1 if words.startswith("@") else 5)
        explains_columns = re.match(r"m(in(ute)?)?\s+h(our)?\b", words, re.IGNORECASE)
        if explains_columns or re.match(r"[A-Z_]+=", words) or not re.search(r"\w", words):
            continue
        try:
            recurrences.Cron(" ".join(fields))
        except recurrences.InvalidRule:
            yield words
        else:
            if not command:
                yield words
