"""Who may do what: the one permission rule.

A user may do an action on a task if the user is active and is a superuser, holds the permission globally (directly or
through a group), or holds it on this task (directly or through a group). Staff alone grants nothing. Runs, schedules,
files and events have no permissions of their own: they take everything from their task.

``can`` decides about one task, ``tasks_with`` is the same rule as a query; everything else here is a name for one of
the two. ``granted`` and ``may`` are its two halves, for a query that brings its row and the answer in one go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db.models import Case, Exists, Expression, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce

from scheduler.models import Alarm, AuditEntry, Run, Task, TaskGroupObjectPermission, TaskUserObjectPermission
from scheduler.models.task import TASK_PERMISSIONS
from scheduler.prepared import Blank, Prepared, PreparedSubquery

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.contrib.auth.models import AnonymousUser, User
    from django.db.models import QuerySet

    from scheduler.models.alarm import AlarmQuerySet
    from scheduler.models.run import RunQuerySet


ACTIONS = frozenset(TASK_PERMISSIONS)
# Each of these is enough to dismiss a task's alarms.
DISMISS = frozenset({"stop_run", "change_task"})
# So few tasks are told the database one by one: it then knows how many rows they have.
FEW = 300
# A permission of another app may have the same codename.
_AMONG_PERMISSIONS = {"content_type__app_label": "scheduler", "content_type__model": "task"}
_OF_TASKS = {f"permission__{name}": value for name, value in _AMONG_PERMISSIONS.items()}


def can_everywhere(user: User | AnonymousUser, codename: str) -> bool:
    """Whether the user holds a permission globally: on every task, or one that belongs to no task (``add_task``)."""
    # has_perm answers False for inactive and anonymous users, and True for superusers.
    return user.has_perm(f"scheduler.{codename}")


def can(user: User | AnonymousUser, action: str, task: Task) -> bool:
    """Whether the user may do an action (a codename of ``TASK_PERMISSIONS``) on a task."""
    if action not in ACTIONS:
        raise ValueError(f"not an action on a task: {action!r}")
    if not user.is_active or user.is_anonymous:
        return False
    if can_everywhere(user, action):
        return Task.objects.filter(pk=task.pk).exists()
    return Task.objects.filter(granted(user.pk, action, OuterRef("pk")), pk=task.pk).exists()


def visible_tasks(user: User | AnonymousUser) -> QuerySet[Task]:
    """The tasks that the user may see."""
    return tasks_with(user, "view_task")


def visible_runs(user: User | AnonymousUser) -> QuerySet[Run]:
    """The runs of the tasks that the user may see."""
    return runs_with(user, "view_task")


def tasks_with(user: User | AnonymousUser, action: str) -> QuerySet[Task]:
    """The tasks on which the user may do an action."""
    if action not in ACTIONS:
        raise ValueError(f"not an action on a task: {action!r}")
    if not user.is_active or user.is_anonymous:
        return Task.objects.none()
    if can_everywhere(user, action):
        return Task.objects.all()
    return Task.objects.filter(pk__in=granted_ids(user, action))


def anywhere(user: User | AnonymousUser, action: str) -> bool:
    """Whether the user may do an action on at least one task; asked once a request, as Django does for its own."""
    if action not in ACTIONS:
        raise ValueError(f"not an action on a task: {action!r}")
    if not user.is_active or user.is_anonymous:
        return False
    known: dict[str, bool] = user.__dict__.setdefault("_scheduler_anywhere", {})
    if action not in known:
        if can_everywhere(user, action):
            known[action] = Task.objects.exists()
        else:
            held = {codename for (codename,) in _HELD.all(Permission, user=user.pk)}
            known |= {each: each in held for each in ACTIONS if each not in known}
    return known[action]


def may_dismiss(user: User | AnonymousUser) -> QuerySet[Task]:
    """The tasks whose alarms the user may dismiss."""
    found = Task.objects.none()
    for action in sorted(DISMISS):
        found = found | tasks_with(user, action)
    return found


def visible_alarms(user: User | AnonymousUser) -> AlarmQuerySet:
    """The alarms of the tasks that the user may see."""
    tasks = visible_tasks(user)
    return Alarm.objects.all() if can_everywhere(user, "view_task") else Alarm.objects.filter(task__in=tasks)


def runs_with(user: User | AnonymousUser, action: str) -> QuerySet[Run]:
    """The runs of the tasks on which the user may do an action."""
    if action not in ACTIONS:
        raise ValueError(f"not an action on a task: {action!r}")
    if not user.is_active or user.is_anonymous:
        return Run.objects.none()
    if can_everywhere(user, action):
        return Run.objects.all()
    return Run.objects.filter(task__in=granted_ids(user, action))


def listed_runs(user: User | AnonymousUser) -> RunQuerySet:
    """``visible_runs`` for a list of the first ones in some order; which tasks these are is asked once a request."""
    if not user.is_active or user.is_anonymous:
        return Run.objects.none()
    if can_everywhere(user, "view_task"):
        return Run.objects.all()
    known: dict[str, Q | Case] = user.__dict__.setdefault("_scheduler_listed", {})
    if "view_task" not in known:
        few = few_granted(user, "view_task")
        known["view_task"] = OneOfMany(granted_ids(user, "view_task")) if few is None else Q(task__in=few)
    return Run.objects.filter(known["view_task"])


def granted_ids(user: User | AnonymousUser, action: str) -> Expression:
    """The keys of the tasks on which an active user may do an action, for one who may not do it everywhere.

    For the right side of ``__in``.
    """
    return _GRANTS.filled(user=user.pk, action=action)


def few_granted(user: User | AnonymousUser, action: str) -> list[int] | None:
    """The keys of ``granted_ids``, if they are few."""
    return few_of(_grants(user.pk, action))


def few_of(ids: QuerySet[Any]) -> list[int] | None:
    """The keys that a query gives, if they are few."""
    found = [pk for (pk,) in ids[: FEW + 1]]
    return found if len(found) <= FEW else None


class OneOfMany(Case):
    """That a row's task is one of those whose keys a query gives."""

    def __init__(self, ids: QuerySet[Any] | Expression) -> None:
        super().__init__(When(task__in=ids, then=Value(True)), default=Value(False))

    def as_sql(self, compiler: Any, connection: Any, *args: Any, **kwargs: Any) -> Any:
        query = compiler.query
        if query.is_sliced and query.order_by:
            # The first rows in some order. In a join PostgreSQL would compare each row with each of these tasks, or
            # sort all rows of all of them. Of what is inside a CASE it makes a table in memory, in which it looks up
            # row after row, in the order of an index.
            return super().as_sql(compiler, connection, *args, **kwargs)
        return compiler.compile(self.cases[0].condition)


def visible_audit(user: User | AnonymousUser) -> QuerySet[AuditEntry]:
    """What was written down about the tasks whose access the user manages; all of it with ``view_auditentry``."""
    if can_everywhere(user, "view_auditentry"):
        return AuditEntry.objects.all()
    return AuditEntry.objects.filter(task__in=tasks_with(user, "manage_access"))


def actions_on(user: User | AnonymousUser, tasks: Iterable[Task]) -> dict[int, set[str]]:
    """Task id -> what the user may do with it, for a page of tasks at once (two queries, however many tasks)."""
    ids = {task.pk for task in tasks}
    if not user.is_active or user.is_anonymous:
        return {pk: set() for pk in ids}
    everywhere = {action for action in ACTIONS if can_everywhere(user, action)}
    allowed = {pk: set(everywhere) for pk in ids}
    if everywhere != ACTIONS:
        for rows in (_user_rows(user.pk), _group_rows(user.pk)):
            found = rows.filter(content_object__in=ids, **_OF_TASKS)
            for pk, codename in found.values_list("content_object", "permission__codename"):
                allowed[pk].add(codename)
    return allowed


def granted(user_id: object, action: str, task: OuterRef) -> Q:
    """Whether a user (an id, or an expression for it) holds a permission on the task itself, as a condition of a query.

    That is only half of the rule: ``may`` adds the other.
    """
    # The permission as a value: PostgreSQL takes longer to plan the joins than to answer the whole question.
    rows = {"content_object": task, "permission": Subquery(_permission(action))}
    return Q(Exists(_user_rows(user_id).filter(**rows))) | Q(Exists(_group_rows(user_id).filter(**rows)))


def _grants(user_id: object, action: object) -> QuerySet[Any]:
    """``granted`` for lists: the ids of the tasks, from the permissions on.

    With EXISTS for each task somebody with one task waits for ten thousand. The permission is a value and not a join,
    of which PostgreSQL would believe that it leaves next to nothing.
    """
    directly, by_group = (
        rows.filter(permission=Subquery(_permission(action))).order_by().values_list("content_object")
        for rows in (_user_rows(user_id), _group_rows(user_id))
    )
    return directly.union(by_group, all=True)


def _permission(action: object) -> QuerySet[Permission, Any]:
    return Permission.objects.filter(**_AMONG_PERMISSIONS, codename=action).order_by().values("pk")[:1]


def may(user: User | AnonymousUser, action: str, *, granted: bool) -> bool:
    """Whether the user may do an action on a task of which a query has answered ``granted``."""
    return user.is_active and not user.is_anonymous and (granted or can_everywhere(user, action))


def _user_rows(user_id: object) -> QuerySet[TaskUserObjectPermission]:
    return TaskUserObjectPermission.objects.filter(user=user_id)


def _group_rows(user_id: object) -> QuerySet[TaskGroupObjectPermission]:
    return TaskGroupObjectPermission.objects.filter(group__user=user_id)


# Most queries of a page ask for them, and to build this one took as long as all the rest of such a query.
_GRANTS = PreparedSubquery(
    lambda: _grants(_user_blank(), Blank("action", Permission._meta.get_field("codename"))), Task._meta.pk
)


def _user_blank() -> Blank:
    return Blank("user", get_user_model()._meta.pk)


def _held() -> QuerySet[Any, Any]:
    user = _user_blank()
    # The first row for each permission, in the order of an index: without one, and with EXISTS, PostgreSQL reads all
    # rows of somebody with thousands of tasks.
    directly = _user_rows(user).filter(permission=OuterRef("pk")).order_by("content_object_id").values("pk")[:1]
    in_group = TaskGroupObjectPermission.objects.filter(group=OuterRef("pk"), permission=OuterRef(OuterRef("pk")))
    first = in_group.order_by("content_object_id").values("pk")[:1]
    by_group = Group.objects.filter(user=user).annotate(first=Subquery(first)).filter(first__isnull=False)
    row = Coalesce(Subquery(directly), Subquery(by_group.order_by().values("first")[:1]))
    held = Permission.objects.filter(**_AMONG_PERMISSIONS).annotate(row=row)
    return held.filter(row__isnull=False).order_by().values_list("codename")


# What a user may do on one task at least, or on more of them.
_HELD = Prepared(_held)
