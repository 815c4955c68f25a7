"""Pauses: of one schedule, of one task, or of the whole scheduler; each with who, when and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import models, transaction
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from scheduler.prepared import PreparedRows
from scheduler.wakeup import wake_on_commit

from . import locks

if TYPE_CHECKING:
    from datetime import datetime

    from django.contrib.auth.models import User

# The scheduler's own columns: a form that was open for a while must not undo a pause.
PAUSE_FIELDS = frozenset({"paused_at", "paused_by", "paused_by_name", "pause_reason"})
LONGEST_REASON = 300


class Pausable(models.Model):
    """What can be paused: nothing of it starts until it is resumed; what runs may end."""

    paused_at = models.DateTimeField(_("paused"), null=True, blank=True, editable=False)
    paused_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("paused by"),
        null=True,
        blank=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    paused_by_name = models.CharField(max_length=150, blank=True, editable=False)  # kept when the account goes
    pause_reason = models.CharField(_("why it is paused"), max_length=LONGEST_REASON, blank=True, editable=False)

    class Meta:
        abstract = True

    def pause(self, *, by: User | None, why: str = "", now: datetime) -> bool:
        """Pause it; ``by`` None is the scheduler itself. False when it is paused already: the first pause stands."""
        name = by.get_username() if by else ""
        why = why[:LONGEST_REASON]
        values: dict[str, Any] = {"paused_at": now, "paused_by": by, "paused_by_name": name, "pause_reason": why}
        return self._write(values, was_paused=False)

    def resume(self) -> bool:
        """End the pause; False when there was none."""
        values: dict[str, Any] = {"paused_at": None, "paused_by": None, "paused_by_name": "", "pause_reason": ""}
        return self._write(values, was_paused=True)

    def _write(self, values: dict[str, Any], *, was_paused: bool) -> bool:
        rows = type(self)._default_manager.filter(pk=self.pk, paused_at__isnull=not was_paused)
        with transaction.atomic():
            written = bool(rows.update(**values))
            wake_on_commit()
        if written:
            for name, value in values.items():
                setattr(self, name, value)
        return written

    @property
    def is_paused(self) -> bool:
        return self.paused_at is not None

    @property
    def pause_in_words(self) -> str:
        """Who paused it and why; empty when it is not paused."""
        if self.paused_at is None:
            return ""
        return f"{self.paused_by_whom}: {self.pause_reason}" if self.pause_reason else self.paused_by_whom

    @property
    def paused_by_whom(self) -> str:
        """The name of the person who paused it; the scheduler pauses, too, after a failure."""
        return self.paused_by_name or gettext("the scheduler")


def in_this_language(kept: str) -> str:
    """What ``pause_in_words`` said in English when it was kept; only the scheduler's own name is translated."""
    who, colon, why = kept.partition(":")
    return f"{gettext('the scheduler')}{colon}{why}" if who == "the scheduler" else kept


class SchedulerState(Pausable):
    """The scheduler as a whole: its one row says whether it is paused (drained: what runs may end, nothing starts)."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)

    class Meta:
        verbose_name = _("scheduler")
        verbose_name_plural = _("scheduler")
        default_permissions = ()
        permissions = [("pause_all", "Can pause and resume the whole scheduler")]
        constraints = [models.CheckConstraint(name="scheduler_state_is_one_row", condition=models.Q(id=1))]

    def __str__(self) -> str:
        return gettext("scheduler")

    def _write(self, values: dict[str, Any], *, was_paused: bool) -> bool:
        with transaction.atomic():
            # Claims that are under way are waited for: once the pause is committed, none of them comes after it.
            locks.take(locks.Lock.PAUSE)
            return super()._write(values, was_paused=was_paused)

    @classmethod
    def get(cls) -> SchedulerState:
        """The row, also in a database where nobody has paused anything yet."""
        return cls.objects.get_or_create(pk=1)[0]

    @classmethod
    def paused(cls) -> SchedulerState | None:
        """The row while the whole scheduler is paused, else None."""
        return next(iter(_PAUSED.all(cls)), None)


# Asked at each start.
_PAUSED = PreparedRows(lambda: SchedulerState.objects.filter(pk=1, paused_at__isnull=False))
