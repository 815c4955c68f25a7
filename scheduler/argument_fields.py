"""The arguments of a program as a form field: typed fields where the program uses argparse, else one line.

Every page that takes arguments uses ``ArgumentsField``; ``field.use(known_form(task, ...))`` gives it the program.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import F
from django.forms.widgets import Script
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.safestring import mark_safe
from django.utils.text import capfirst
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from scheduler import access, outputs, programs
from scheduler.arguments import (
    COMMAND,
    REST,
    Command,
    Description,
    Given,
    Group,
    InexpressibleError,
    Parameter,
    read_description,
)
from scheduler.models import OutputFile, ProgramForm, Task
from scheduler.models.task import validate_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.contrib.auth.models import AnonymousUser, User
    from django.utils.safestring import SafeString

OWN, FORM, LINE = "own", "form", "line"
FILES_OFFERED = 50
RUNS_LOOKED_AT = 100
LONGEST_LINE = 10_000
# Of flags that may be repeated, such as -v
MOST_TIMES = 100


# What is known of a program


@dataclass(frozen=True, slots=True)
class OfferedFile:
    """A file of a run, which a program can be given."""

    path: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownForm:
    """What the pages know of the arguments that a task's program takes."""

    task: Task | None = None
    description: Description | None = None
    key: str = ""
    """Changes with the program: a form that was made for another one is told by it."""
    waiting: bool = False
    """A poller is about to ask the program."""
    problem: str = ""
    """Why there is no form although the program uses argparse, in a sentence."""
    files: tuple[OfferedFile, ...] = ()

    @property
    def own_line(self) -> str:
        return shlex.join(self.task.arguments) if self.task is not None else ""

    @property
    def takes_files(self) -> bool:
        return self.description is not None and any(each.type == "file" for each in self.description.every.values())


def known_form(task: Task | None, *, user: User | AnonymousUser | None, now: datetime) -> KnownForm:
    """What is known of a task's program; a poller is asked to find it out when it is not.

    Only for people who may run or change the task: it makes the first part of the program run. ``user`` is whom files
    of runs are offered to.
    """
    if task is None or not task.program_path:
        return KnownForm(task=task)
    try:
        source = programs.read(programs.resolve(task.program_root, task.program_path))
    except (programs.ProgramError, OSError):
        return KnownForm(task=task)
    if not source.uses_argparse:
        return KnownForm(task=task)
    row = ProgramForm.of(task, sha256=source.sha256, now=now)
    key = f"{row.pk}-{row.sha256[:16]}"
    if row.is_waiting:
        return KnownForm(task=task, key=key, waiting=True)
    try:
        if row.problem or row.answer is None:
            raise InexpressibleError(row.problem)
        known = KnownForm(task=task, key=key, description=read_description(row.answer))
    except InexpressibleError as error:
        return KnownForm(task=task, key=key, problem=_why(str(error)))
    if known.takes_files and user is not None:
        known = replace(known, files=tuple(_offered_files(user)))
    return known


def _why(problem: str) -> str:
    """Why no form can be made, in a sentence."""
    sentences = {
        "nested": gettext("The program has sub-commands of sub-commands; write its arguments as a line."),
        "many": gettext("The program takes too many arguments for a form; write them as a line."),
        "slow": gettext("The program took too long to say which arguments it takes; write them as a line."),
        "silent": gettext("The program did not say which arguments it takes; write them as a line."),
        "changed": gettext("The program was changed while it was asked; open the page once more."),
        "unreadable": gettext("The program could not be asked which arguments it takes; write them as a line."),
    }
    if problem in sentences:
        return sentences[problem]
    text = gettext("The program could not say which arguments it takes (%(error)s); write them as a line.")
    return text % {"error": problem or gettext("no reason given")}


def _offered_files(user: User | AnonymousUser) -> list[OfferedFile]:
    """The newest files of runs that this person may see and whose output this person may read."""
    runs = access.runs_with(user, "view_output").filter(finished_at__isnull=False, task__in=access.visible_tasks(user))
    newest = list(runs.order_by("-finished_at", "-id").values_list("pk", flat=True)[:RUNS_LOOKED_AT])
    found = OutputFile.objects.of_program().filter(run__in=newest).select_related("run__task")
    return [
        OfferedFile(
            str(outputs.file_path(file)),
            gettext("%(file)s, of “%(task)s” #%(run)s, %(date)s")
            % {
                "file": file.name,
                "task": file.run.task.name,
                "run": file.run_id,
                "date": formats.date_format(timezone.localtime(file.created_at), "Y-m-d H:i"),
            },
        )
        for file in found.order_by(F("run").desc(), "name")[:FILES_OFFERED]
    ]


# One argument as a field


class ArgumentText(forms.CharField):
    """A value of one line, as it is passed on."""

    def __init__(self, *, kind: str = "text", **kwargs: Any) -> None:
        self.kind = kind
        super().__init__(strip=kind != "text", **kwargs)

    def clean(self, value: Any) -> str:
        text = str(super().clean(value))
        if "\n" in text or "\r" in text:
            raise ValidationError(_("This is one line."), code="lines")
        if text:
            _check(self.kind, text)
        return text


def _check(kind: str, text: str) -> None:
    """Raises ValidationError unless the text is what a browser's field of this kind gives."""
    try:
        match kind:
            case "int":
                if str(int(text)) != text:
                    raise ValueError
            case "float":
                if not math.isfinite(float(text)) or text != text.strip() or "_" in text:
                    raise ValueError
            case "date":
                datetime.strptime(text, "%Y-%m-%d")
            case "datetime":
                datetime.strptime(text, "%Y-%m-%dT%H:%M:%S" if text.count(":") == 2 else "%Y-%m-%dT%H:%M")
            case "time":
                datetime.strptime(text, "%H:%M:%S" if text.count(":") == 2 else "%H:%M")
    except ValueError as error:
        sentences = {
            "int": _("Enter a whole number."),
            "float": _("Enter a number."),
            "date": _("Enter a date, such as 2026-03-29."),
            "datetime": _("Enter a date and a time, such as 2026-03-29 04:30."),
            "time": _("Enter a time, such as 04:30."),
        }
        raise ValidationError(sentences[kind], code="invalid") from error


class ArgumentLines(forms.CharField):
    """Several values, one a line."""

    widget = forms.Textarea(attrs={"rows": 3, "spellcheck": "false"})

    def __init__(self, *, parameter: Parameter, **kwargs: Any) -> None:
        self.parameter = parameter
        super().__init__(strip=False, **kwargs)

    def clean(self, value: Any) -> list[str]:
        lines = [line for line in super().clean(value).replace("\r\n", "\n").split("\n") if line]
        if self.parameter.kind == "append" and self.parameter.takes_several:
            return lines
        if self.parameter.type in {"int", "float", "date", "datetime", "time"}:
            for line in lines:
                _check(self.parameter.type, line)
        count = self.parameter.nargs
        if isinstance(count, int) and lines and len(lines) != count:
            text = ngettext("Enter %(n)d value.", "Enter %(n)d values, one a line.", count)
            raise ValidationError(text % {"n": count}, code="count")
        return lines


class ShellLine(forms.CharField):
    """Several values on one line, as in a shell."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(strip=False, **kwargs)

    def clean(self, value: Any) -> list[str]:
        return split_line(super().clean(value))


def split_line(line: str) -> list[str]:
    """The arguments on a line. Raises ValidationError, with one sentence, for an open quote."""
    try:
        return shlex.split(line)
    except ValueError as error:
        text = _("A quote is not closed, or a backslash comes last. Close the quote, or put a backslash before it.")
        raise ValidationError(text, code="quotes") from error


INPUT_TYPES = {"int": "number", "float": "number", "date": "date", "datetime": "datetime-local", "time": "time"}


def _field(parameter: Parameter) -> forms.Field:
    shown: dict[str, Any] = {
        "label": _label(parameter),
        "help_text": parameter.help,
        # Missing values are refused only for the sub-command that is chosen: see ``clean``.
        "required": False,
    }
    placeholder = {"placeholder": parameter.default, "autocomplete": "off"}
    if parameter.kind == "flag":
        return forms.BooleanField(**shown)
    if parameter.kind == "count":
        widget = forms.NumberInput(attrs={"min": 0, "max": MOST_TIMES})
        return forms.IntegerField(min_value=0, max_value=MOST_TIMES, widget=widget, **shown)
    if parameter.kind == "either":
        return forms.ChoiceField(
            choices=[("", _not_given(parameter)), *((each, each) for each in parameter.flags)], **shown
        )
    if parameter.choices is not None and parameter.nargs in (None, "?") and parameter.kind != "append":
        empty = [("", "---------" if parameter.is_required else _not_given(parameter))]
        return forms.ChoiceField(choices=[*empty, *((each, each) for each in parameter.choices)], **shown)
    if parameter.choices is not None and (parameter.nargs in {"*", "+"}) != (parameter.kind == "append"):
        choices = [(each, each) for each in parameter.choices]
        return forms.MultipleChoiceField(choices=choices, widget=forms.CheckboxSelectMultiple, **shown)
    if parameter.nargs == "...":
        return ShellLine(widget=forms.TextInput(attrs=placeholder), **shown)
    if parameter.takes_several or parameter.kind == "append":
        return ArgumentLines(parameter=parameter, **shown)
    attributes = {**placeholder}
    attributes["type"] = INPUT_TYPES.get(parameter.type, "text")
    if parameter.type in {"float", "datetime", "time"}:
        attributes["step"] = "any" if parameter.type == "float" else "1"
    widget_class = forms.NumberInput if attributes["type"] == "number" else forms.TextInput
    return ArgumentText(kind=parameter.type, widget=widget_class(attrs=attributes), **shown)


def _label(parameter: Parameter) -> str:
    if parameter.flags:
        return parameter.flag
    return parameter.label or parameter.dest


def _not_given(parameter: Parameter) -> str:
    return (
        gettext("not given (%(value)s)") % {"value": parameter.default} if parameter.default else gettext("not given")
    )


# All arguments as a form


class ProgramArguments(forms.Form):
    """The arguments of one program. ``cleaned_arguments`` is the list that it says, once it is valid."""

    use_required_attribute = False

    def __init__(self, known: KnownForm, data: Mapping[str, Any] | None, *, given: Given | None = None, prefix: str):
        assert known.description is not None
        self.known, self.description = known, known.description
        self.given: Given = {}
        self.cleaned_arguments: list[str] = []
        super().__init__(data, prefix=prefix, initial=_initial(self.description, given or {}, known))
        if self.description.commands:
            empty = [] if self.description.command_required else [("", gettext("none"))]
            choices = [*empty, *((each.name, each.name) for each in self.description.commands)]
            self.fields[COMMAND] = forms.ChoiceField(
                label=gettext("Command"),
                choices=choices,
                required=self.description.command_required,
                help_text=self.description.command_help,
            )
        for parameter in self.description.every.values():
            self.fields[parameter.key] = _field(parameter)
            if parameter.type == "file" and known.files and isinstance(self.fields[parameter.key], ArgumentText):
                files = [("", gettext("or a file of a run")), *((each.path, each.label) for each in known.files)]
                self.fields[f"{parameter.key}-file"] = forms.ChoiceField(
                    choices=files, required=False, label=gettext("or a file of a run")
                )
            if parameter.flags and parameter.kind == "value" and parameter.nargs == "?":
                self.fields[f"{parameter.key}-bare"] = forms.BooleanField(
                    required=False, label=gettext("without a value")
                )
        if not self.description.strict:
            self.fields[REST] = ShellLine(
                label=gettext("Further arguments"),
                required=False,
                help_text=gettext("As in a shell: the program takes what its parser does not name."),
            )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        command = self.description.command(str(cleaned.get(COMMAND, "")))
        given: Given = {}
        for part in filter(None, (self.description.program, command)):
            for parameter in part.parameters:
                if parameter.key not in self.errors and (times := self._times(parameter)):
                    given[parameter.key] = times
                elif parameter.is_required and parameter.key not in self.errors:
                    self.add_error(parameter.key, ValidationError(_("This argument is required."), code="required"))
            self._clean_exclusive(part, given)
        if command is not None:
            given[COMMAND] = [[command.name]]
        if rest := cleaned.get(REST):
            given[REST] = [rest]
        self.given = given
        if self.errors:
            return cleaned
        try:
            self.cleaned_arguments = self.description.write(given)
        except InexpressibleError:
            text = _(
                "argparse cannot tell these values apart: one of them looks like an option, or comes after an option "
                "that takes as many as there are. Write the arguments as a line."
            )
            self.add_error(None, ValidationError(text, code="ambiguous"))
        return cleaned

    def _times(self, parameter: Parameter) -> list[list[str]]:
        """The values of each time that the argument is given; empty: it is not."""
        value = self.cleaned_data.get(f"{parameter.key}-file") or self.cleaned_data.get(parameter.key)
        if self.cleaned_data.get(f"{parameter.key}-bare") and not value:
            return [[]]
        if not value:
            return []
        if parameter.kind == "flag":
            return [[]]
        if parameter.kind == "count":
            return [[]] * int(value)
        if isinstance(value, str):
            return [[value]]
        if isinstance(self.fields[parameter.key], forms.MultipleChoiceField):
            value = [choice for choice in parameter.choices or () if choice in value]  # as they stand on the page
        if parameter.kind == "append":
            return [split_line(each) for each in value] if parameter.takes_several else [[each] for each in value]
        return [list(value)]

    def _clean_exclusive(self, part: Command, given: Given) -> None:
        groups: dict[int, list[Parameter]] = {}
        for parameter in part.parameters:
            if parameter.exclusive is not None:
                groups.setdefault(parameter.exclusive, []).append(parameter)
        for group in groups.values():
            chosen = [each for each in group if each.key in given]
            names = ", ".join(_label(each) for each in group)
            if len(chosen) > 1:
                text = gettext("Give only one of these: %(names)s.") % {"names": names}
                self.add_error(chosen[-1].key, ValidationError(text, code="exclusive"))
            elif not chosen and group[0].exclusive_required and not any(each.key in self.errors for each in group):
                text = gettext("Give one of these: %(names)s.") % {"names": names}
                self.add_error(group[0].key, ValidationError(text, code="required"))

    # How it is shown

    @property
    def sections(self) -> list[Section]:
        """The fields by group: of the program first, then of each sub-command."""
        found = []
        for part in (self.description.program, *self.description.commands):
            plain = [self._row(each) for each in part.parameters if each.group is None]
            groups = [
                Section(group=group, rows=[self._row(each) for each in part.parameters if each.group == number])
                for number, group in enumerate(part.groups)
            ]
            found += [
                replace(section, command=part.name)
                for section in (Section(rows=plain), *groups)
                if section.rows or (part.name and section.group is None)
            ]
        return found

    @property
    def command(self) -> forms.BoundField | None:
        return self[COMMAND] if COMMAND in self.fields else None

    @property
    def rest(self) -> forms.BoundField | None:
        return self[REST] if REST in self.fields else None

    def _row(self, parameter: Parameter) -> ArgumentRow:
        def extra(name: str) -> forms.BoundField | None:
            return self[f"{parameter.key}-{name}"] if f"{parameter.key}-{name}" in self.fields else None

        return ArgumentRow(parameter, self[parameter.key], extra("file"), extra("bare"))


@dataclass(frozen=True, slots=True)
class ArgumentRow:
    parameter: Parameter
    field: forms.BoundField
    file: forms.BoundField | None
    bare: forms.BoundField | None

    @property
    def note(self) -> str:
        """What the widget itself does not say."""
        parameter, notes = self.parameter, []
        if parameter.is_required:
            notes.append(gettext("Required."))
        if isinstance(self.field.field, ArgumentLines):
            notes.append(gettext("One a line."))
            if parameter.kind == "append" and parameter.takes_several:
                notes.append(gettext("Each line holds the values of one time, as in a shell."))
            if parameter.default:
                notes.append(gettext("Default: %(value)s.") % {"value": parameter.default})
        return " ".join(notes)

    @property
    def is_checkbox(self) -> bool:
        return self.parameter.kind == "flag"

    @property
    def is_group(self) -> bool:
        return isinstance(self.field.field, forms.MultipleChoiceField)


@dataclass(frozen=True, slots=True)
class Section:
    rows: list[ArgumentRow] = field(default_factory=list)
    group: Group | None = None
    command: str = ""


def _initial(description: Description, given: Given, known: KnownForm) -> dict[str, Any]:
    values: dict[str, Any] = {}
    offered = {each.path for each in known.files}
    for key, times in given.items():
        parameter = description.every.get(key)
        if parameter is None:
            values[key] = shlex.join(times[0]) if key == REST else times[0][0]
        elif parameter.kind == "flag":
            values[key] = True
        elif parameter.kind == "count":
            values[key] = len(times)
        elif parameter.choices is not None and (parameter.takes_several or parameter.kind == "append"):
            values[key] = [value for each in times for value in each]
        elif parameter.nargs == "...":
            values[key] = shlex.join(times[0])
        elif parameter.kind == "append":
            values[key] = "\n".join(shlex.join(each) if parameter.takes_several else each[0] for each in times)
        elif parameter.takes_several:
            values[key] = "\n".join(times[0])
        elif not times[0]:
            values[f"{key}-bare"] = True
        elif parameter.type == "file" and times[0][0] in offered:
            values[f"{key}-file"] = times[0][0]
        else:
            values[key] = times[0][0]
    return values


def form_for(known: KnownForm, arguments: Sequence[str], *, prefix: str) -> ProgramArguments | None:
    """The form filled with a list of arguments; None when it cannot say just this list."""
    if known.description is None:
        return None
    try:
        given = known.description.read(arguments)
    except InexpressibleError:
        return None
    form = ProgramArguments(known, None, given=given, prefix=prefix)
    if arguments:
        # As a browser would send it back.
        sent = ProgramArguments(known, _as_sent(form), prefix=prefix)
        sent.full_clean()
        # What is missing is to be filled in.
        codes = {each.code for errors in sent.errors.as_data().values() for each in errors}
        if codes - {"required"} or sent.given != given:
            return None
    return form


def _as_sent(form: ProgramArguments) -> dict[str, Any]:
    return {form.add_prefix(name): value for name, value in form.initial.items() if name in form.fields}


# The field


@dataclass(frozen=True, slots=True)
class Entered:
    """What a browser has sent for the arguments."""

    name: str
    line: str
    way: str = LINE
    key: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


class ArgumentsWidget(forms.Widget):
    """Typed fields, or one line; without JavaScript the reader chooses between them, too."""

    class Media:
        css = {"all": ["scheduler/arguments.css"]}
        js = [Script("scheduler/arguments.js", defer=True)]

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        super().__init__(attrs)
        self.known = KnownForm()
        self.optional = False

    def value_from_datadict(self, data: Mapping[str, Any], files: Any, name: str) -> Entered | None:
        if name not in data and f"{name}-way" not in data:
            return None
        line, way, key = data.get(name) or "", data.get(f"{name}-way", LINE), data.get(f"{name}-key", "")
        return Entered(name, str(line), str(way), str(key), data)

    def value_omitted_from_data(self, data: Mapping[str, Any], files: Any, name: str) -> bool:
        return name not in data and f"{name}-way" not in data

    def id_for_label(self, id_: str) -> str:
        return id_ if self.known.description is None else ""

    def render(self, name: str, value: Any, attrs: dict[str, Any] | None = None, renderer: Any = None) -> SafeString:
        known, task = self.known, self.known.task
        form, way, note = None, LINE, known.problem
        if isinstance(value, Entered):
            line = value.line
            if known.description is not None:
                way = value.way if value.way in {FORM, OWN} else LINE
                form = ProgramArguments(known, value.data, prefix=name) if way == FORM else self._from_line(name, line)
                form = form or ProgramArguments(known, None, prefix=name)
        else:
            arguments: list[str] | None = value
            line = "" if arguments is None else shlex.join(arguments)
            shown = (task.arguments if task is not None else []) if arguments is None else arguments
            form = form_for(known, shown, prefix=name)
            if form is not None:
                way = OWN if self.optional and arguments is None else FORM
            elif known.description is not None:
                note = gettext("The form cannot show these arguments just as they are; here they are as a line.")
                form = ProgramArguments(known, None, prefix=name)
                way = OWN if self.optional and arguments is None else LINE
        context = {
            "name": name,
            "id": (attrs or {}).get("id", f"id_{name}"),
            "attrs": {key: value for key, value in {**self.attrs, **(attrs or {})}.items() if key != "id"},
            "form": form,
            "way": way,
            "line": line,
            "note": note,
            "known": known,
            "optional": self.optional,
            "url": reverse("scheduler:task-arguments", args=[task.pk]) if task is not None and task.pk else "",
        }
        return mark_safe(render_to_string("scheduler/_arguments.html", context))  # noqa: S308  (a template of ours)

    def _from_line(self, name: str, line: str) -> ProgramArguments | None:
        try:
            return form_for(self.known, split_line(line), prefix=name)
        except ValidationError:
            return None


class ArgumentsField(forms.Field):
    """A list of arguments. With ``optional=True`` it may be None: the task's own arguments."""

    widget: Any = ArgumentsWidget

    def __init__(self, *, optional: bool = False, **kwargs: Any) -> None:
        self.optional = optional
        self.known = KnownForm()
        kwargs.setdefault("label", capfirst(_("arguments")))
        super().__init__(**{"required": False, **kwargs})
        self.widget.optional = optional

    def use(self, known: KnownForm) -> None:
        """Take the arguments of this program."""
        self.known = self.widget.known = known

    def clean(self, value: Any) -> list[str] | None:
        """The arguments. Raises ValidationError with sentences."""
        if not isinstance(value, Entered):
            return None if self.optional else []
        if value.way == OWN and self.optional:
            return None
        if value.way == FORM:
            return self._clean_form(value)
        if len(value.line) > LONGEST_LINE:
            text = _("The line has more than %(most)d characters. Put long values into a file.")
            raise ValidationError(text, code="long", params={"most": LONGEST_LINE})
        arguments = split_line(value.line.replace("\r\n", "\n"))
        validate_arguments(arguments)
        return None if self.optional and not arguments else arguments

    def _clean_form(self, value: Entered) -> list[str]:
        if self.known.description is None or value.key != self.known.key:
            text = _("The program has changed since this form was made. Look the arguments over, then send it again.")
            raise ValidationError(text, code="stale")
        form = ProgramArguments(self.known, value.data, prefix=value.name)
        if not form.is_valid():
            sentence = ngettext("Correct the argument below.", "Correct the arguments below.", len(form.errors))
            raise ValidationError(sentence, code="arguments")
        validate_arguments(form.cleaned_arguments)
        return form.cleaned_arguments

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.clean(data) != initial)
        except ValidationError:
            return True
