from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Self

from django.db import models
from django.utils.translation import gettext_lazy as _

# A poller reports every few seconds; one that has been silent for longer than this is not counted on.
SILENT_AFTER = timedelta(seconds=15)


class PollerQuerySet(models.QuerySet["Poller"]):
    def alive(self, now: datetime) -> Self:
        """Those that reported lately and have not said that they ended."""
        return self.filter(ended_at=None, seen_at__gte=now - SILENT_AFTER)


class Poller(models.Model):
    """A daemon that starts what is due and tracks it, and the row in which it reports."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    host = models.UUIDField(_("host"), db_index=True)
    host_name = models.CharField(_("host name"), max_length=255)
    pid = models.PositiveIntegerField(_("process"))
    boot_id = models.CharField(_("boot id"), max_length=36)
    start_ticks = models.BigIntegerField(_("start of the process (ticks since boot)"))
    version = models.CharField(_("version"), max_length=20)
    capacity = models.PositiveIntegerField(_("capacity"))
    cold_reason = models.TextField(_("why starts are cold"), blank=True)  # as the system said it, untranslated
    # Why memory and processes of a whole run cannot be limited here; empty when they can be. Untranslated as well.
    limits_problem = models.TextField(_("why runs cannot be limited as a whole"), blank=True)
    free_bytes = models.BigIntegerField(_("room on its disk (bytes)"), null=True, blank=True)
    is_out_of_room = models.BooleanField(_("disk full"), default=False)  # then it starts no run
    started_at = models.DateTimeField(_("started"))
    seen_at = models.DateTimeField(_("last report"), db_index=True)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)

    objects = PollerQuerySet.as_manager()

    class Meta:
        verbose_name = _("poller")
        verbose_name_plural = _("pollers")
        default_permissions = ("view",)
        ordering = ["-started_at"]

    def __str__(self) -> str:
        return f"{self.host_name} ({self.pid})"
