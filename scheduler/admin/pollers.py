"""Pollers, to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from scheduler import access
from scheduler.models import Poller
from scheduler.models.poller import SILENT_AFTER

from .base import SchedulerAdmin, instant_column

if TYPE_CHECKING:
    from django.http import HttpRequest


@admin.register(Poller)
class PollerAdmin(SchedulerAdmin):
    list_display = ("host_name", "pid", "alive", "version", "capacity", "room", "started", "seen", "ended")
    fields = (
        *("host_name", "pid", "alive", "version", "capacity", "room", "started", "seen", "ended"),
        *("cold_reason", "limits_problem", "host", "boot_id", "start_ticks"),
    )
    readonly_fields = ("alive", "room", "started", "seen", "ended")
    actions = None

    started = instant_column("started_at", _("started"))
    seen = instant_column("seen_at", _("last report"))
    ended = instant_column("ended_at", _("ended"))

    @admin.display(description=_("alive"), boolean=True)
    def alive(self, poller: Poller) -> bool:
        return poller.ended_at is None and poller.seen_at >= timezone.now() - SILENT_AFTER

    @admin.display(description=_("room on its disk"))
    def room(self, poller: Poller) -> str:
        if poller.free_bytes is None:
            return ""
        size = filesizeformat(poller.free_bytes)
        return gettext("%(size)s: too little, it starts no run") % {"size": size} if poller.is_out_of_room else size

    def has_view_permission(self, request: HttpRequest, obj: Poller | None = None) -> bool:
        return access.can_everywhere(request.user, "view_poller")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Poller | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Poller | None = None) -> bool:
        return False
