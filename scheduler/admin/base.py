"""What every admin page of the scheduler keeps to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin import helpers, options
from django.contrib.admin.filters import SimpleListFilter
from django.contrib.admin.models import LogEntry
from django.core.exceptions import BadRequest, FieldDoesNotExist, ValidationError
from django.core.paginator import Paginator as DjangoPaginator
from django.db.models import QuerySet
from django.http import Http404
from django.utils import formats, timezone
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.translation import gettext, override
from django.utils.translation import gettext as in_djangos_words  # which have their translation there

from scheduler import access, audit
from scheduler.models import AuditEntry, Schedule, Task

from . import theme

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, tzinfo

    from django.contrib.auth.models import AnonymousUser, User
    from django.db.models import Field, Model
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    BaseModelAdmin = options.BaseModelAdmin[Any]
    ModelAdmin = theme.ModelAdmin[Any]
    RelatedFieldListFilter = admin.RelatedFieldListFilter
    Paginator = DjangoPaginator[Any]
else:
    Paginator = DjangoPaginator
    BaseModelAdmin = options.BaseModelAdmin
    ModelAdmin = theme.ModelAdmin
    RelatedFieldListFilter = admin.RelatedFieldListFilter


class SchedulerAdmin(ModelAdmin):
    """Rows that a person may not see do not exist for them, and lists are narrowed down only by the filters they offer.

    Subclasses give ``get_queryset`` and all of ``has_*_permission``.
    """

    view_on_site = False

    class Media:
        css = theme.STYLES

    if not theme.IS_UNFOLD:

        def action_checkbox(self, obj: Model) -> SafeString:
            """The same as Django's, which renders a template for each of a hundred rows."""
            return format_html(
                '<input type="checkbox" name="{}" value="{}" class="action-select" aria-label="{}">',
                helpers.ACTION_CHECKBOX_NAME,
                obj.pk,
                format_html(in_djangos_words("Select this object for an action - {}"), obj),
            )

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> LogEntry:
        self._audit(request, AuditEntry.Action.CREATE, obj)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> LogEntry:
        self._audit(request, AuditEntry.Action.CHANGE, obj, message)
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: QuerySet[Model]) -> Any:
        for obj in queryset:
            self._audit(request, AuditEntry.Action.DELETE, obj)
        return super().log_deletions(request, queryset)

    def _audit(self, request: HttpRequest, action: AuditEntry.Action, obj: Model, message: Any = "") -> None:
        """Write down what was done to a task or to its schedules; the admin's own log forgets with the account."""
        with override(None):  # kept, in English: people of several languages read it
            text = (
                message
                if isinstance(message, str)
                else LogEntry(change_message=json.dumps(message)).get_change_message()
            )
            done = "" if action == AuditEntry.Action.CHANGE else f": {action.label}"
        if isinstance(obj, Task):
            audit.record(request, action, task=obj, text=text)
        elif isinstance(obj, Schedule):
            name = f"{obj.recurrence}{done}"
            audit.record(request, AuditEntry.Action.SCHEDULE, task=obj.task, object_name=name, text=text)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) or self.has_add_permission(request)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list. Raises BadRequest for values that no page sends and the database or Django's actions fail on."""
        asked = [value for _name, values in request.GET.lists() for value in values]
        if any("\0" in value for value in asked):
            raise BadRequest("A filter has a NUL character.")
        try:
            for key in request.POST.getlist(helpers.ACTION_CHECKBOX_NAME):
                self.opts.pk.clean(key, None)
        except ValidationError as error:
            raise BadRequest("A selected row has an impossible key.") from error
        return super().changelist_view(request, extra_context)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Model:
        """The row. Raises Http404 when there is none, or when this person may not see it."""
        found: Model | None = super().get_object(request, object_id, from_field)
        if found is None:
            raise Http404(gettext("There is no %(what)s “%(id)s”.") % {"what": self.opts.verbose_name, "id": object_id})
        return found

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Only what the offered filters put into the address.

        Django lets any field of the row be asked about by hand (``?program__startswith=``), and some of what it is
        related to; nothing here needs that.
        """
        field, _, rest = lookup.partition("__")
        for item in self.list_filter if request is None else self.get_list_filter(request):
            name = item[0] if isinstance(item, list | tuple) else item
            if isinstance(name, type):
                if issubclass(name, SimpleListFilter) and lookup == name.parameter_name:
                    return True
            elif field == name:
                return rest in self._filter_lookups(field)
        return False

    def _filter_lookups(self, name: str) -> set[str]:
        lookups = {"", "exact", "isnull"}
        try:
            target = getattr(self.opts.get_field(name), "target_field", None)
        except FieldDoesNotExist:
            target = None
        return lookups | ({f"{target.name}__exact"} if target is not None else set())


# A sidebar with more tasks than this is no help; the search finds them by name.
TASKS_OFFERED = 50


class VisibleTasksFilter(RelatedFieldListFilter):
    """Offers only tasks that this person may see; where they are many, only the one that was chosen."""

    def has_output(self) -> bool:
        # Django drops what was asked for where there is no choice, and lists everything.
        return super().has_output() or self.lookup_val is not None

    def field_choices(
        self, field: Field[Any, Any], request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[str, Any]]:
        visible = access.visible_tasks(request.user)
        # Sorted here: the database would sort thousands, of which none is shown then.
        names: list[Any] = list(visible.order_by().values_list("pk", "name")[: TASKS_OFFERED + 1])
        if len(names) > TASKS_OFFERED:
            chosen = [value for value in self.lookup_val or [] if str(value).isdecimal() and len(str(value)) < 19]
            names = list(visible.filter(pk__in=chosen).values_list("pk", "name"))
        return sorted(names, key=lambda each: str(each[1]).casefold())


class Many(int):
    """A number that stands for itself and all above it."""

    def __str__(self) -> str:
        return gettext("more than %(count)d") % {"count": int(self) - 1}


class CappedPaginator(Paginator):
    """Counts up to a limit: nobody turns pages of a million rows, and to count them takes longer than to show one."""

    COUNTED_AT_MOST = 10_000

    @cached_property
    def count(self) -> int:
        rows = self.object_list
        assert isinstance(rows, QuerySet)
        counted = rows.order_by()[: self.COUNTED_AT_MOST + 1].count()
        return counted if counted <= self.COUNTED_AT_MOST else Many(counted)


def is_anybody(user: User | AnonymousUser, *actions: str) -> bool:
    """Whether the user may do one of the actions on at least one task."""
    return any(access.anywhere(user, action) for action in actions)


class PartOfTask(BaseModelAdmin):
    """Rows on the page of their task, whose permissions are theirs: ``obj`` is the task, None while it is added."""

    def has_view_permission(self, request: HttpRequest, obj: Task | None = None) -> bool:
        return is_anybody(request.user, "view_task") if obj is None else access.can(request.user, "view_task", obj)

    def has_change_permission(self, request: HttpRequest, obj: Task | None = None) -> bool:
        return is_anybody(request.user, "change_task") if obj is None else access.can(request.user, "change_task", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Task | None = None) -> bool:
        return self.has_change_permission(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Task | None = None) -> bool:
        if obj is None:
            return access.can_everywhere(request.user, "add_task")
        return self.has_change_permission(request, obj)


# As in the sentences about a run; Django's own format leaves out the seconds and fills a column.
def in_current_zone(instant: datetime | None) -> str:
    """An instant in the current zone, to the second, as HTML; date and time stay whole in a narrow column."""
    if instant is None:
        return "-"
    local = timezone.localtime(instant)
    return format_html(
        '<span class="nowrap">{}</span> <span class="nowrap">{}</span>', f"{local:%Y-%m-%d}", f"{local:%H:%M:%S}"
    )


def instant_column(name: str, label: Any) -> Callable[[Any, Model], str]:
    """A column, or a line of a form, with a time of a row."""

    @admin.display(description=label)
    def shown(_admin: Any, row: Model) -> str:
        return in_current_zone(getattr(row, name))

    return shown


def in_zone(instant: datetime, zone: tzinfo) -> str:
    """An instant in a zone, with the zone's abbreviation."""
    local = timezone.localtime(instant, zone)
    return formats.date_format(local, "D Y-m-d H:i:s T")
