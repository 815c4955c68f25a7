"""Form fields of the admin pages: a user by name."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from django.db.models import Model

    UserChoiceField = forms.ModelChoiceField[Model]
else:
    UserChoiceField = forms.ModelChoiceField


def join_arguments(arguments: list[str] | None) -> str:
    """The arguments as one line, as for a shell."""
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
