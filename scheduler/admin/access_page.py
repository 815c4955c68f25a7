"""The page on which people and groups get and lose their permissions on one task.

guardian's own admin pages ask only for the global change permission, so that a person could give itself what it has
not; here ``manage_access`` on the task decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Q
from django.http import HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext, override

from scheduler import access, audit
from scheduler.models import AuditEntry, Task, TaskGroupObjectPermission, TaskUserObjectPermission
from scheduler.models.task import ACTION_LABELS, TASK_PERMISSIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse

    from .base import SchedulerAdmin

# Those who have a permission by a group or everywhere are named for information, up to this many.
OTHERS_AT_MOST = 100

# Also the names of the columns in the rows of the grants.
USER, GROUP = "user", "group"
GRANTS: dict[str, Any] = {USER: TaskUserObjectPermission, GROUP: TaskGroupObjectPermission}


@dataclass(frozen=True)
class Cell:
    """Whether somebody has one permission, on this task itself and from elsewhere."""

    codename: str
    label: str
    token: str
    direct: bool
    sources: list[str]


@dataclass
class Holder:
    """A user or a group, and what it may do on the task."""

    kind: str
    pk: str
    name: str
    notes: list[str]
    direct: set[str] = field(default_factory=set)
    elsewhere: dict[str, list[str]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.pk}"

    @property
    def cells(self) -> list[Cell]:
        return [
            Cell(
                codename=codename,
                label=str(ACTION_LABELS[codename]),
                token=f"{self.key}:{codename}",
                direct=codename in self.direct,
                sources=self.elsewhere.get(codename, []),
            )
            for codename in TASK_PERMISSIONS
        ]


def access_page(model_admin: SchedulerAdmin, request: HttpRequest, object_id: str) -> HttpResponse:
    """Show and change who may do what with a task. 404 for a task one may not see, 403 without ``manage_access``."""
    task = model_admin.get_object(request, object_id)
    assert isinstance(task, Task)
    if not access.can(request.user, "manage_access", task):
        raise PermissionDenied
    errors: list[str] = []
    if request.method == "POST":
        try:
            text = _save(task, request)
        except ValidationError as error:
            errors = error.messages
        else:
            if text:
                model_admin.log_change(request, task, text)
                audit.record(request, AuditEntry.Action.ACCESS, task=task, text=text)
                messages.success(request, gettext("The access to “%(task)s” was changed.") % {"task": task})
            else:
                messages.info(request, gettext("Nothing was changed."))
            return HttpResponseRedirect(request.path)
    elif request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    users, left_out = user_holders(task)
    groups = group_holders(task)
    ticked = set(request.POST.getlist("give")) if errors else None
    context = {
        **model_admin.admin_site.each_context(request),
        "title": gettext("Access to task"),
        "subtitle": str(task),
        "opts": model_admin.opts,
        "original": task,
        "sections": [
            _section(gettext("Users"), USER, users, gettext("Add a user by exact name"), ticked, request),
            _section(gettext("Groups"), GROUP, groups, gettext("Add a group by exact name"), ticked, request),
        ],
        "labels": [ACTION_LABELS[codename] for codename in TASK_PERMISSIONS],
        "left_out": left_out,
        "access_errors": errors,
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, "admin/scheduler/task/access.html", context)


def _section(
    title: str, kind: str, holders: list[Holder], add_label: str, ticked: set[str] | None, request: HttpRequest
) -> dict[str, Any]:
    """What the template needs for one table; ``ticked`` is what was posted when that was refused."""
    new = Holder(kind="new", pk=kind, name="", notes=[], direct={"view_task"})
    rows = [
        {
            "holder": holder,
            "cells": [(cell, cell.direct if ticked is None else cell.token in ticked) for cell in holder.cells],
        }
        for holder in [*holders, new]
    ]
    return {
        "title": title,
        "kind": kind,
        "rows": rows[:-1],
        "new_cells": rows[-1]["cells"],
        "new_name": request.POST.get(f"new_{kind}", "") if ticked is not None else "",
        "add_label": add_label,
    }


# Who has what, and from where


def user_holders(task: Task) -> tuple[list[Holder], int]:
    """Every user who has a permission on the task, the owner first; and how many of the others were left out.

    All who have one on this task itself are there; of those who have it by a group, everywhere, or as superuser,
    active ones up to ``OTHERS_AT_MOST``.
    """
    direct, by_group = _direct(task, USER), _direct(task, GROUP)
    users = _rows(USER)
    named = users.filter(Q(pk__in=list(direct)) | Q(pk=task.owner_id))
    others = (
        users.filter(
            Q(is_superuser=True)
            | Q(user_permissions__in=_permissions())
            | Q(groups__permissions__in=_permissions())
            | Q(groups__in=list(by_group)),
            is_active=True,
        )
        .exclude(pk__in=named.values("pk"))
        .distinct()
    )
    shown = [*sorted(named, key=lambda user: user.pk != task.owner_id), *others[:OTHERS_AT_MOST]]
    holders = {
        user.pk: Holder(USER, str(user.pk), user.get_username(), _notes(user, task), direct.get(user.pk, set()))
        for user in shown
    }
    # An inactive user may do nothing, wherever it would come from.
    active = [user.pk for user in shown if user.is_active]
    for user in shown:
        if user.is_active and user.is_superuser:
            _add(holders[user.pk], TASK_PERMISSIONS, gettext("superuser"))
    for pk, codename in _permissions().filter(user__in=active).values_list("user", "codename"):
        _add(holders[pk], [codename], gettext("on every task"))
    by_group_everywhere = _grouped(_permissions().exclude(group=None).values_list("group", "codename"))
    for pk, group, name in Group.objects.filter(user__in=active).values_list("user", "pk", "name"):
        _add(holders[pk], by_group.get(group, ()), gettext("by group %(group)s") % {"group": name})
        _add(
            holders[pk],
            by_group_everywhere.get(group, ()),
            gettext("on every task, by group %(group)s") % {"group": name},
        )
    return list(holders.values()), max(others.count() - OTHERS_AT_MOST, 0)


def group_holders(task: Task) -> list[Holder]:
    """Every group that has a permission on the task itself or on every task."""
    direct = _direct(task, GROUP)
    everywhere = _grouped(_permissions().exclude(group=None).values_list("group", "codename"))
    holders = []
    for group in _rows(GROUP).filter(pk__in={*direct, *everywhere}):
        holder = Holder(GROUP, str(group.pk), group.name, [], direct.get(group.pk, set()))
        _add(holder, everywhere.get(group.pk, ()), gettext("on every task"))
        holders.append(holder)
    return holders


def _permissions() -> QuerySet[Permission]:
    return Permission.objects.filter(
        content_type__app_label="scheduler", content_type__model="task", codename__in=TASK_PERMISSIONS
    )


def _direct(task: Task, kind: str) -> dict[Any, set[str]]:
    rows = GRANTS[kind]._default_manager.filter(content_object=task)
    return _grouped(rows.values_list(kind, "permission__codename"))


def _rows(kind: str) -> QuerySet[Any]:
    """All users or all groups, by name."""
    model: Any = get_user_model() if kind == USER else Group
    rows: QuerySet[Any] = model._default_manager.order_by(_name_field(kind))
    return rows


def _name_field(kind: str) -> str:
    return get_user_model().USERNAME_FIELD if kind == USER else "name"


def _grouped(rows: Iterable[tuple[Any, str]]) -> dict[Any, set[str]]:
    found: dict[Any, set[str]] = {}
    for holder, codename in rows:
        found.setdefault(holder, set()).add(codename)
    return found


def _add(holder: Holder, codenames: Iterable[str], source: str) -> None:
    for codename in codenames:
        holder.elsewhere.setdefault(codename, []).append(source)


def _notes(user: Any, task: Task) -> list[str]:
    notes = []
    if user.pk == task.owner_id:
        notes.append(gettext("owner"))
    if not user.is_active:
        notes.append(gettext("inactive"))
    elif not getattr(user, "is_staff", False):
        notes.append(gettext("not staff: downloads only"))
    return notes


# Saving


@dataclass(frozen=True)
class Change:
    """What is to be given to, and taken from, one user or group."""

    kind: str
    pk: Any
    name: str
    given: set[str]
    taken: set[str]

    def write(self, task: Task) -> None:
        grants = GRANTS[self.kind]._default_manager
        holder = {f"{self.kind}_id": self.pk, "content_object": task}
        grants.filter(**holder, permission__codename__in=self.taken).delete()
        grants.bulk_create(
            [grants.model(**holder, permission=each) for each in _permissions().filter(codename__in=self.given)],
            ignore_conflicts=True,
        )

    @property
    def in_words(self) -> str:
        parts = []
        if self.given:
            parts.append(gettext("gave %(permissions)s") % {"permissions": _listed(self.given)})
        if self.taken:
            parts.append(gettext("took %(permissions)s") % {"permissions": _listed(self.taken)})
        what = gettext("user") if self.kind == USER else gettext("group")
        return f"{what} {self.name}: {', '.join(parts)}"


def _listed(codenames: set[str]) -> str:
    return " ".join(codename for codename in TASK_PERMISSIONS if codename in codenames)


def _save(task: Task, request: HttpRequest) -> str:
    """Write what was changed on the page, and say it in words; empty when nothing was.

    Only the difference to what the page showed is written, so that two people can work on it at once. Raises
    ValidationError, with nothing written, for a name that does not exist, a row that has gone meanwhile, and when
    this person would lock themselves out.
    """
    with transaction.atomic():
        changes = _changes(task, request)
        for change in changes:
            change.write(task)
        if not access.can(request.user, "manage_access", task):
            raise ValidationError(
                gettext(
                    "You would lose your own permission to manage the access to this task, and could not take that "
                    "back. Nothing was saved; somebody else who has the permission can take it from you."
                )
            )
    with override(None):  # kept, in English: people of several languages read it
        words = "; ".join(change.in_words for change in changes)
        return gettext("Access changed: %(changes)s.") % {"changes": words} if words else ""


def _changes(task: Task, request: HttpRequest) -> list[Change]:
    shown, ticked = _by_key(request.POST.getlist("shown")), _by_key(request.POST.getlist("give"))
    known = {holder.key: holder for holder in [*user_holders(task)[0], *group_holders(task)]}
    changes = []
    for key in sorted(shown.keys() | ticked.keys()):
        given, taken = ticked.get(key, set()) - shown.get(key, set()), shown.get(key, set()) - ticked.get(key, set())
        if key.startswith("new:") or not given | taken:
            continue
        holder = known.get(key)
        if holder is None:
            raise ValidationError(gettext("This page has changed meanwhile. Nothing was saved; look at it again."))
        changes.append(Change(holder.kind, holder.pk, holder.name, given, taken))
    for kind in (USER, GROUP):
        name = request.POST.get(f"new_{kind}", "").strip()
        if name:
            changes.append(_added(kind, name, ticked.get(f"new:{kind}", set())))
    return changes


def _by_key(tokens: list[str]) -> dict[str, set[str]]:
    """``kind:pk:codename`` tokens as ``kind:pk`` -> codenames."""
    found: dict[str, set[str]] = {}
    for token in tokens:
        key, _colon, codename = token.rpartition(":")
        if codename not in TASK_PERMISSIONS:
            raise ValidationError(gettext("“%(token)s” is not a permission of a task.") % {"token": token})
        found.setdefault(key, set()).add(codename)
    return found


def _added(kind: str, name: str, codenames: set[str]) -> Change:
    row = _rows(kind).filter(**{_name_field(kind): name}).first() if "\0" not in name else None
    if row is None:
        text = gettext("There is no user “%(name)s”.") if kind == USER else gettext("There is no group “%(name)s”.")
        raise ValidationError(text % {"name": name})
    if not codenames:
        raise ValidationError(gettext("Choose at least one permission for “%(name)s”.") % {"name": name})
    return Change(kind, row.pk, name, codenames, set())
