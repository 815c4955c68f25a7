"""Groups of tasks that share places: shared by all, so that a change needs a say in every task that is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, Q
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from scheduler import access
from scheduler.models import ConcurrencyGroup, Run

from .base import SchedulerAdmin, is_anybody

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.contrib.auth.models import AnonymousUser, User
    from django.db.models import Field, QuerySet
    from django.http import HttpRequest, HttpResponse

NAMED_AT_MOST = 50


@admin.register(ConcurrencyGroup)
class ConcurrencyGroupAdmin(SchedulerAdmin):
    list_display = ("name", "max_runs", "in_use", "waiting", "task_count")
    search_fields = ("name", "description")
    readonly_fields = ("in_use", "waiting", "its_tasks", "its_runs")
    # Each is deleted on its own page, which names nothing that a person may not see.
    actions = None

    def get_fieldsets(self, request: HttpRequest, obj: ConcurrencyGroup | None = None) -> Any:
        form = (None, {"fields": ("name", "max_runs", "description")})
        now = (_("Now"), {"fields": ("in_use", "waiting", "its_runs", "its_tasks")})
        return (form,) if obj is None else (form, now)

    def formfield_for_dbfield(self, db_field: Field[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "description":
            kwargs["widget"] = forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"})
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    # What it looks like; the annotations are of get_queryset()

    @admin.display(description=_("places in use"))
    def in_use(self, group: ConcurrencyGroup) -> str:
        counted = {"in_use": vars(group)["in_use"], "places": group.max_runs}
        return gettext("%(in_use)d of %(places)d") % counted

    @admin.display(description=_("waiting"))
    def waiting(self, group: ConcurrencyGroup) -> int:
        count: int = vars(group)["waiting"]
        return count

    @admin.display(description=_("tasks"), ordering="visible_tasks")
    def task_count(self, group: ConcurrencyGroup) -> str:
        count = vars(group)["visible_tasks"]
        url = reverse(f"{self.admin_site.name}:scheduler_task_changelist")
        return format_html('<a href="{}?group__id__exact={}">{}</a>', url, group.pk, count) if count else "0"

    @admin.display(description=_("tasks"))
    def its_tasks(self, group: ConcurrencyGroup) -> str:
        return _joined(self._task_lines(group, vars(group)["seen_by"]))

    @admin.display(description=_("runs in progress"))
    def its_runs(self, group: ConcurrencyGroup) -> str:
        runs = Run.objects.processing().in_lane(group.pk)
        visible = runs.filter(task__in=access.visible_tasks(vars(group)["seen_by"])).select_related("task")
        shown = visible.order_by("claimed_at", "pk")[:NAMED_AT_MOST]
        return _joined(_lines([(run.get_absolute_url(), run) for run in shown], runs.count()))

    def _task_lines(self, group: ConcurrencyGroup, user: User | AnonymousUser) -> list[str]:
        page = f"{self.admin_site.name}:scheduler_task_change"
        tasks = access.visible_tasks(user).filter(group=group).order_by("name")[:NAMED_AT_MOST]
        return _lines([(reverse(page, args=[task.pk]), task) for task in tasks], group.tasks.count())

    # Who may

    def get_queryset(self, request: HttpRequest) -> QuerySet[ConcurrencyGroup]:
        seen = Q(tasks__in=access.visible_tasks(request.user))
        rows = ConcurrencyGroup.objects.with_in_use().with_waiting(timezone.now())
        tasks = Count("tasks", filter=seen, distinct=True)
        return rows.annotate(visible_tasks=tasks).order_by(*self.get_ordering(request))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> ConcurrencyGroup:
        group = super().get_object(request, object_id, from_field)
        assert isinstance(group, ConcurrencyGroup)
        vars(group)["seen_by"] = request.user
        return group

    def has_view_permission(self, request: HttpRequest, obj: ConcurrencyGroup | None = None) -> bool:
        """Also for those who have a task to put into one."""
        user = request.user
        codenames = (*(f"{each}_concurrencygroup" for each in ("view", "add", "change", "delete")), "add_task")
        return any(access.can_everywhere(user, codename) for codename in codenames) or is_anybody(
            user, "view_task", "change_task"
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return access.can_everywhere(request.user, "add_concurrencygroup")

    def has_change_permission(self, request: HttpRequest, obj: ConcurrencyGroup | None = None) -> bool:
        return self._has_say(request, "change_concurrencygroup", obj)

    def has_delete_permission(self, request: HttpRequest, obj: ConcurrencyGroup | None = None) -> bool:
        return self._has_say(request, "delete_concurrencygroup", obj)

    def _has_say(self, request: HttpRequest, codename: str, group: ConcurrencyGroup | None) -> bool:
        if not access.can_everywhere(request.user, codename):
            return False
        if group is None:
            return True
        changeable = access.tasks_with(request.user, "change_task")
        return not group.tasks.exclude(pk__in=changeable.values("pk")).exists()

    def get_deleted_objects(
        self, objs: QuerySet[ConcurrencyGroup] | Sequence[ConcurrencyGroup], request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """What keeps a group from being deleted are its tasks; nobody has to have the right to delete those."""
        (group,) = objs
        protecting = self._task_lines(group, request.user)
        return [str(group)], {str(self.opts.verbose_name_plural): 1}, set(), protecting

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().change_view(request, object_id, form_url, extra_context)
        could = request.method == "GET" and access.can_everywhere(request.user, "change_concurrencygroup")
        if could and not self.has_change_permission(request, self.get_object(request, object_id)):
            text = gettext("A task that you may not change is in this group: you can look at it but not change it.")
            messages.info(request, text)
        return response


def _lines(links: list[tuple[str, object]], count: int) -> list[str]:
    """What a person may see of so many, as links, and how many more there are."""
    lines: list[str] = [format_html('<a href="{}">{}</a>', url, name) for url, name in links]
    rest = count - len(links)
    return [*lines, ngettext("%(count)d more", "%(count)d more", rest) % {"count": rest}] if rest > 0 else lines


def _joined(lines: list[str]) -> str:
    return format_html_join(mark_safe("<br>"), "{}", ((line,) for line in lines)) or "-"
