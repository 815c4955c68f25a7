"""Form fields of the admin pages: a line of arguments, a user by name."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from django.db.models import Model

    UserChoiceField = forms.ModelChoiceField[Model]
else:
    UserChoiceField = forms.ModelChoiceField


class ArgumentsField(forms.CharField):
    """A list of strings as one line, written as for a shell; no shell ever sees it."""

    def __init__(self, **kwargs: Any) -> None:
        # A textarea, because an input of one line would drop the line breaks inside a quoted argument.
        kwargs.setdefault(
            "widget", forms.Textarea(attrs={"rows": 1, "class": "vLargeTextField", "spellcheck": "false"})
        )
        kwargs.setdefault("label", capfirst(_("arguments")))
        super().__init__(**{"required": False, "strip": False, **kwargs})

    def prepare_value(self, value: Any) -> Any:
        return join_arguments(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> list[str]:  # type: ignore[override]
        """The arguments. Raises ValidationError with one sentence for an unbalanced quote."""
        line = str(super().to_python(value) or "").replace("\r\n", "\n")
        try:
            return shlex.split(line)
        except ValueError as error:
            raise ValidationError(
                _(
                    "A quote or a backslash at the end of the arguments is not closed. "
                    "Close it, or put a backslash before it."
                )
            ) from error

    def run_validators(self, value: Any) -> None:
        # The validators of a CharField are about strings.
        for argument in value or []:
            super().run_validators(argument)

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return (initial or []) != self.to_python(data)
        except ValidationError:
            return True


class OptionalArgumentsField(ArgumentsField):
    """None when the line is empty."""

    def to_python(self, value: Any) -> list[str] | None:  # type: ignore[override]
        return super().to_python(value) or None

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return (initial or None) != self.to_python(data)
        except ValidationError:
            return True


def join_arguments(arguments: list[str] | None) -> str:
    """The arguments as the line that ``ArgumentsField`` reads."""
    return shlex.join(arguments or [])


def wall_time(instant: datetime, zone: tzinfo) -> datetime:
    """What the wall clock of a zone shows at an instant; naive."""
    return timezone.localtime(instant, zone).replace(tzinfo=None, fold=0)


class UserNameField(UserChoiceField):
    """A user, by exact name: no list that would name everybody."""

    default_error_messages = {"invalid_choice": _("There is no user “%(value)s”.")}
    widget = forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"})

    def prepare_value(self, value: Any) -> Any:
        # The initial value of a form is the row's key; what was typed is a name.
        if value is None or isinstance(value, str):
            return value
        user: Any = value if hasattr(value, "_meta") else self.queryset.filter(pk=value).first()  # type: ignore[union-attr]
        return user.get_username() if user is not None else value
